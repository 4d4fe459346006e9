"""One HTML page about runs, complete in itself: nothing is fetched when it is looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.files import write_text
from harness.record.composition import without_sweep
from harness.record.config import NOT_THE_METHOD, NOT_THE_RUN, is_under
from harness.show import report_facts, report_figures, report_tables
from harness.show.report_tables import Choice
from harness.show.sheet import Line, Sheet, template
from harness.study.results import PLUS_MINUS, SELECTED, Run, Study, slug
from harness.words import line

METHODS = ("method", "command, with a seed", "seeds", "epochs")
MANY_METHODS = 8  # above which the table shows one epoch of each, and the others below it


def write(
    path: Path,
    grouped: Sequence[Study],
    warnings: Sequence[str] = (),
    choice: Choice | None = None,
    settings: Sequence[str] = (),
) -> Path:
    """Writes the page about finished runs.

    Args:
        path: The HTML file.
        grouped: The runs.
        warnings: What was left out before, and `report_facts.warnings`.
        choice: What the tables of results show.
        settings: As for `report_figures.draw`.
    """
    said, sections = [*warnings], []
    names = list(dict.fromkeys(run.report["experiment"] for study in grouped for run in study.runs))
    with tempfile.TemporaryDirectory() as folder:
        for study, anchor in zip(grouped, anchors(grouped), strict=True):
            figures, failures = report_figures.draw(study, Path(folder), anchor, settings=settings)
            said += failures
            pictures = report_figures.pictures(study, said.append)
            section = _section(study, choice or Choice())
            sections.append({**section, "anchor": anchor, "figures": figures, "pictures": pictures})
        title = f"Report on {', '.join(names)}"
        about = report_figures.about
        text = template("report.html.j2").render(title=title, sections=sections, warnings=said, about=about)
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


def _section(study: Study, choice: Choice) -> dict[str, Any]:
    """What the template shows of a study beside its figures."""
    pictured = len(study.leading(report_figures.MOST_PICTURES))
    some = f"the {pictured} best of {len(study.methods)} methods" if pictured < len(study.methods) else ""
    now, later = choice.selections, list[str]()
    if len(study.methods) > MANY_METHODS and study.selection in choice.selections:
        now, later = [study.selection], [name for name in choice.selections if name != study.selection]
    other_epochs = replace(choice, selections=later, published={})
    return {
        "study": study,
        "title": study.data + (" (stand-in data)" if study.stand_in else ""),
        "selected": SELECTED[study.selection],
        "spread": f" ± {PLUS_MINUS[choice.spread]}" if any(len(own) > 1 for own in study.methods.values()) else "",
        "facts": report_facts.facts(study.runs),
        "methods": Sheet(METHODS, [_method(label, study) for label in study.methods], words=len(METHODS)),
        "results": report_tables.results(study, replace(choice, selections=now)),
        "other_epochs": report_tables.results(study, other_epochs) if later else None,
        "one_epoch": SELECTED.get(now[0], now[0]) if len(now) == 1 else "",
        "everything": report_tables.every_metric(study, choice.spread),
        "comparisons": report_tables.comparisons(study),
        "best": study.short[study.best_first()[0]],
        "pictured": some,
        "settings": report_tables.settings_tables(study),
        "configs": [(study.short[label], config_text(members[0])) for label, members in study.methods.items()],
    }


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
