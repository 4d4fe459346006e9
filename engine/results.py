"""Run folders -> tables: mean and standard deviation over seeds, beside the published numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import runs, stages
from engine.experiments import without_sweep

COUNTS = ("queries_without_match",)  # among the metrics; a fact about the data
# What tells two runs of one method apart without making them two methods.
NOT_THE_METHOD = (*runs.CHANGES_NO_NUMBER, "seed", "threads", "trainer.device", "data.root", "hydra")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    report: dict[str, Any]

    @property
    def label(self) -> str:
        """The experiment and what its command line changed, seeds aside; of a sweep what its file sets for all runs."""
        changed = [o.lstrip("+") for o in without_sweep(self.report["overrides"])]
        kept = [o for o in changed if not runs.is_under(o.partition("=")[0], NOT_THE_METHOD)]
        return " ".join([self.report["experiment"], *sorted(kept)])


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The finished runs at or below `folders`, in the order of their names.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If a report is missing, truncated or something else.
    """
    done = sorted({path.parent for folder in folders for path in folder.rglob("DONE")})
    done = [folder for folder in done if folder.name != stages.FOLDER]  # a first stage is part of its run
    if not done:
        names = ", ".join(map(str, folders))
        raise FileNotFoundError(f"no finished run below {names}; make one: python train.py experiment=demo_rambo")
    return [Run(folder, runs.read_report(folder)) for folder in done]


@dataclass(frozen=True)
class Cell:
    """One metric of one method over its seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def percent(self) -> str:
        """As in papers: 64.0 +- 0.3, of a metric in [0, 1]."""
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"

    def plain(self) -> str:
        """An error in the unit of its target: 7.77 +- 0.05; three decimals below 3, as papers give small ones."""
        digits = 3 if self.mean < 3 else 2
        spread = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"

    def shown(self, metric: str) -> str:
        """As papers show `metric`: shares and correlations in percent, errors as they are, counts as whole numbers."""
        if metric.endswith(COUNTS):
            return f"{self.mean:.0f}" if not self.deviation else f"{self.mean:.1f} ± {self.deviation:.1f}"
        return self.plain() if is_error(metric) else self.percent()


def is_error(metric: str) -> bool:
    """Whether `metric`, with or without its split, is an error in the unit of the target and not a share of 1."""
    name = metric.rpartition("/")[2]
    return name.startswith(("mae", "mse", "rmse", "gmean", "balanced_mae", "loss"))


def group_by_method(found: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in the seed alone.

    Raises:
        ValueError: If a method was run twice with one seed, or on different data: their mean would mean nothing.
    """
    groups: dict[str, list[Run]] = {}
    for run in found:
        groups.setdefault(run.label, []).append(run)
    for label, members in groups.items():
        by_seed: dict[int, Run] = {}
        for run in members:
            seed, fingerprint = run.report["seed"], run.report["data"].get("fingerprint")
            if seed in by_seed:
                raise ValueError(f"{label}, seed {seed} is there twice: {by_seed[seed].folder} and {run.folder}")
            first = members[0]
            if fingerprint != first.report["data"].get("fingerprint"):
                raise ValueError(f"{label} was run on different data: {first.folder} and {run.folder}")
            by_seed[seed] = run
    return groups


def cell(members: Sequence[Run], selection: str, metric: str) -> Cell | None:
    """`metric` of every run under `selection` (last, best_on_test, ...); None where a run lacks it."""
    values = [run.report["results"].get(selection, {}).get("metrics", {}).get(metric) for run in members]
    return None if any(value is None for value in values) else Cell(tuple(values))


def markdown(
    found: Sequence[Run],
    selections: Sequence[str],
    metrics: Sequence[str],
    published: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """A Markdown table with a row per method and selection, below the published numbers where there are any.

    Args:
        found: The runs.
        selections: Which epochs of a run: last, best_on_test, ...
        metrics: The columns.
        published: By label `source`, `seeds` and `metrics`, as `engine.tables.published_by_label` reads them.
    """
    banner = [f"**{runs.STAND_IN}**", ""]
    lines = banner if any(run.report["data"].get("fixture") for run in found) else []
    lines += [
        "| method | selected | " + " | ".join(metrics) + " | seeds |",
        "|---|---|" + "---|" * (len(metrics) + 1),
    ]
    for label, members in group_by_method(found).items():
        lines += _published_row(label, members[0], metrics, published or {})
        for selection in selections:
            cells = [cell(members, selection, metric) for metric in metrics]
            if any(c is not None for c in cells):
                words = " | ".join("" if c is None else c.shown(m) for c, m in zip(cells, metrics, strict=True))
                lines.append(f"| {label} | {selection.replace('_', ' ')} | {words} | {len(members)} |")
    return "\n".join(lines)


def _published_row(
    label: str, run: Run, metrics: Sequence[str], published: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    entry = published.get(label)  # a changed recipe has another label, and nothing published
    if entry is None or run.report["data"].get("fixture"):  # stand-in data may not stand beside the paper's number
        return []
    words = " | ".join(str(entry["metrics"].get(m, "")) for m in metrics)
    return [f"| {label} | published: {entry['source']} | {words} | {entry.get('seeds') or ''} |"]
