"""One HTML page about runs, complete in itself: nothing is fetched when it is looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.files import write_text
from harness.record.composition import without_sweep
from harness.record.config import NOT_THE_METHOD, NOT_THE_RUN, is_under
from harness.show import report_facts, report_figures, report_tables
from harness.show.report_figures import Drawn
from harness.show.sheet import Line, Sheet, template
from harness.study.results import PLUS_MINUS, Run
from harness.study.studies import SELECTED, Study, slug
from harness.words import line

METHODS = ("method", "command, with a seed", "seeds", "epochs")
MANY_METHODS = 8  # above which the table shows one epoch of each, and the others below it


@dataclass(frozen=True)
class Section:
    """A study as the template shows it."""

    study: Study
    anchor: str
    title: str
    selected: str
    spread: str
    facts: list[tuple[str, str]]
    methods: Sheet
    results: Sheet
    other_epochs: Sheet | None
    one_epoch: str
    everything: Sheet
    comparisons: Sheet | None
    best: str
    figures: list[Drawn]
    pictures: dict[str, list[Drawn]]
    pictured: str
    settings: list[Sheet]
    configs: list[tuple[str, str]]


def write(
    path: Path,
    grouped: Sequence[Study],
    warnings: Sequence[str] = (),
    selections: Sequence[str] = tuple(SELECTED),
    metrics: Sequence[str] | None = None,
    published: Mapping[str, Mapping[str, Any]] | None = None,
    spread: str = "interval",
    settings: Sequence[str] = (),
) -> Path:
    """Writes the page about finished runs.

    Args:
        path: The HTML file.
        grouped: The runs.
        warnings: What was left out before, and `report_facts.warnings`.
        selections: Rows of each method in the table: untrained, last, best_on_validation, best_on_test.
        metrics: Its columns; default: the monitored metric and those nearest to it.
        published: By label, as `harness.study.tables.published_by_label` gives it.
        spread: What stands after ±, a key of `PLUS_MINUS`.
        settings: As for `report_figures.draw`.
    """
    page, said = template("report.html.j2"), [*warnings]
    sections = []
    names = list(dict.fromkeys(run.report["experiment"] for study in grouped for run in study.runs))
    with tempfile.TemporaryDirectory() as folder:
        for study, anchor in zip(grouped, anchors(grouped), strict=True):
            figures, failures = report_figures.draw(study, Path(folder), anchor, settings=settings)
            said += failures
            pictures = report_figures.pictures(study, said.append)
            sections.append(_section(study, anchor, figures, pictures, selections, metrics, published, spread))
        title = f"Report on {', '.join(names)}"
        text = page.render(title=title, sections=sections, warnings=said, about=report_figures.about)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def write_figures(folder: Path, grouped: Sequence[Study], settings: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Writes every figure of the page that is drawn from records as PNG and as SVG.

    Returns:
        Their paths, and a sentence for each that could not be drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths, failures = list[Path](), list[str]()
    for study, anchor in zip(grouped, anchors(grouped), strict=True):
        for suffix in (".png", ".svg"):
            drawn, failures_of_study = report_figures.draw(study, folder, anchor, suffix, settings)
            paths += [one.path for one in drawn]
        failures += failures_of_study  # the same for both
    return paths, failures


def anchors(grouped: Sequence[Study]) -> list[str]:
    """A name for each study, for links and files: that of its data, numbered where it is not the only one."""
    names = [slug(study.data) + ("-stand-in" if study.stand_in else "") for study in grouped]
    return [name if names.count(name) == 1 else f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _section(
    study: Study,
    anchor: str,
    figures: list[Drawn],
    pictures: dict[str, list[Drawn]],
    selections: Sequence[str],
    metrics: Sequence[str] | None,
    published: Mapping[str, Mapping[str, Any]] | None,
    spread: str,
) -> Section:
    labels = study.leading(report_figures.MOST_PICTURES)
    many = len(study.methods) > MANY_METHODS and study.selection in selections
    shown_now = [study.selection] if many else selections
    later = [name for name in selections if name not in shown_now]
    return Section(
        study=study,
        anchor=anchor,
        title=study.data + (" (stand-in data)" if study.stand_in else ""),
        selected=SELECTED[study.selection],
        spread=f" ± {PLUS_MINUS[spread]}" if any(len(members) > 1 for members in study.methods.values()) else "",
        facts=report_facts.facts(study.runs),
        methods=Sheet(METHODS, [_method(label, study) for label in study.methods], words=len(METHODS)),
        results=report_tables.results(study, shown_now, metrics, published, spread),
        other_epochs=report_tables.results(study, later, metrics, spread=spread) if later else None,
        one_epoch=SELECTED.get(shown_now[0], shown_now[0]) if len(shown_now) == 1 else "",
        everything=report_tables.every_metric(study, spread),
        comparisons=report_tables.comparisons(study),
        best=study.short[study.best_first()[0]],
        figures=figures,
        pictures=pictures,
        pictured=f"the {len(labels)} best of {len(study.methods)} methods" if len(labels) < len(study.methods) else "",
        settings=report_tables.settings_tables(study),
        configs=[(study.short[label], config_text(members[0])) for label, members in study.methods.items()],
    )


def config_text(run: Run) -> str:
    """The resolved config of a run as YAML, without paths and the like."""
    kept = {key: value for key, value in run.report["config"].items() if not is_under(key, NOT_THE_RUN)}
    return OmegaConf.to_yaml(OmegaConf.create(kept))


def _method(label: str, study: Study) -> Line:
    """Name, command, seeds and epochs of a method."""
    members = study.methods[label]
    run = members[0]
    changes = [
        o
        for o in without_sweep(run.report["overrides"])
        if not is_under(o.lstrip("+~").partition("=")[0], NOT_THE_METHOD)
    ]
    words = ["python", "train.py", f"experiment={run.report['experiment']}", *changes]
    seeds = ", ".join(str(seed) for seed in sorted(run.report["seed"] for run in members))
    epochs = sorted({int(run.report["results"]["last"]["epoch"]) for run in members})
    span = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    return Line([study.short[label], line(words), seeds, span])
