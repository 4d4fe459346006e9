"""Run folders -> tables: mean and spread over seeds, beside the published numbers."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.record import measures, runs, stages
from harness.record.composition import without_sweep
from harness.record.config import NOT_THE_METHOD, differences, is_under, shaping
from harness.record.measures import Measure
from harness.study.uncertainty import interval

log = logging.getLogger(__name__)
Say = Callable[[str], None]

PLUS_MINUS = {
    "interval": "half of the 95 % t-interval of the mean over seeds",
    "deviation": "the standard deviation over seeds",
}
NEEDED = {"experiment": str, "overrides": list, "seed": int}  # beside what `runs.read_report` asks for


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    report: dict[str, Any]

    @property
    def label(self) -> str:
        """The experiment and what its command line changed, seeds aside; of a sweep what its file sets for all runs."""
        changed = [o.lstrip("+") for o in without_sweep(self.report["overrides"])]
        kept = [o for o in changed if not is_under(o.partition("=")[0], NOT_THE_METHOD)]
        return " ".join([self.report["experiment"], *sorted(kept)])

    @property
    def age(self) -> tuple[str, str]:
        """Grows with the time of the run: when it started, or when its report was written; folders are called by it."""
        written = time.gmtime((self.folder / "report.json").stat().st_mtime)
        return str(self.report.get("started") or time.strftime("%Y-%m-%dT%H:%M:%SZ", written)), str(self.folder)

    def metrics(self, selection: str) -> dict[str, float | None]:
        """Those under `selection` (last, best_on_test, ...), None where one was not finite; empty if there are none."""
        return dict(runs.metrics_of(self.report, selection) or {})


def find_runs(folders: Sequence[Path], say: Say = log.warning) -> list[Run]:
    """The finished runs at or below `folders`, in the order of their names.

    A folder that cannot be read costs itself and nothing else; `say` receives a sentence about it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If none can be read; with what is wrong with the first.
    """

    def closed(error: OSError) -> None:
        say(f"left out: {error.filename} cannot be looked into ({error.strerror})")

    done = {Path(at) for folder in folders for at, _, files in os.walk(folder, onerror=closed) if "DONE" in files}
    done = {folder for folder in done if folder.name != stages.FOLDER}  # a first stage is part of its run
    if not done:
        names = ", ".join(map(str, folders))
        raise FileNotFoundError(f"no finished run below {names}; make one: python train.py experiment=demo_rambo")
    found, faults = list[Run](), list[str]()
    for folder in sorted(done):
        try:
            found.append(_read(folder))
        except ValueError as error:
            faults.append(str(error))
    if not found:
        raise ValueError(faults[0])
    for fault in faults:
        say(f"left out: {fault}")
    return found


def _read(folder: Path) -> Run:
    report = runs.read_report(folder)
    if wrong := next(_strange(report), None):
        file = folder / "report.json"
        raise ValueError(f"{file} is not what a run writes ({wrong}); delete that run folder or repeat the run")
    return Run(folder, report)


def _strange(report: Mapping[str, Any]) -> Iterator[str]:
    """What is missing, or of another kind than a run writes."""
    yield from (f"no {key}" for key, kind in NEEDED.items() if not isinstance(report.get(key), kind))
    if runs.metrics_of(report, "last") is None:
        yield "no results.last.metrics"
    yield from (f"the override {o!r}" for o in report["overrides"] if not isinstance(o, str))
    yield from (
        f"{part}={report['config'][part]!r}" for part in ("trainer", "metrics")
        if not isinstance(report["config"].get(part, {}), dict)
    )  # fmt: skip
    for selection in report["results"]:
        for name, value in (runs.metrics_of(report, selection) or {}).items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                yield f"{selection} has {name}={value!r}"
    if not isinstance(report["results"]["last"].get("epoch", 0), int):
        yield f"the last epoch is {report['results']['last']['epoch']!r}"


@dataclass(frozen=True)
class Cell:
    """One metric of one method: the finite values of its seeds, and how many runs are `without` one."""

    values: tuple[float, ...]
    without: int = 0

    def shown(self, measure: Measure, spread: str = "interval") -> str:
        """As papers show such a metric, 64.0 ± 0.3, in percent where it is a share; says where runs have no value.

        After ± stands what `spread`, a key of `PLUS_MINUS`, says; nothing with a single seed.
        """
        without = f" ({len(self.values)} of {len(self.values) + self.without} runs)" if self.without else ""
        if not self.values:
            return f"nan{without}"
        digits, half = measure.decimals([measure.factor * value for value in self.values]), 0.0
        if len(self.values) > 1:
            half = interval(self.values).half if spread == "interval" else statistics.stdev(self.values)
        alone = len(self.values) == 1 or (measure.kind == "count" and not half)  # counts that are all equal
        after = "" if alone else f" ± {measure.factor * half:.{digits}f}"
        return f"{measure.factor * statistics.fmean(self.values):.{digits}f}{after}{without}"


def group_by_method(found: Sequence[Run], say: Say = log.warning) -> dict[str, list[Run]]:
    """Runs that differ in the seed alone, so that they have a mean.

    Left out, with a sentence to `say`, is one that was repeated, or that was made on other data or with other settings
    than the newest of its name.
    """
    groups: dict[str, list[Run]] = {}
    for run in found:
        groups.setdefault(run.label, []).append(run)
    return {label: _newest(members, say) for label, members in groups.items()}


def _newest(members: Sequence[Run], say: Say) -> list[Run]:
    """Of every seed the newest run, if it is like the newest of all."""
    newest, *older = sorted(members, key=lambda run: run.age, reverse=True)
    kept = {newest.report["seed"]: newest}
    for run in older:
        seed, name = run.report["seed"], run.label
        if other := _unlike(newest, run):
            say(f"left out: {run.folder}, as the newer {newest.folder} is {name}, too, but {other}")
        elif seed in kept:
            say(f"left out: {run.folder}, as {kept[seed].folder} is the newer run of {name}, seed {seed}")
        else:
            kept[seed] = run
    return [run for run in members if run in kept.values()]


def _unlike(newest: Run, run: Run) -> str | None:
    """Why two runs of one name have no mean, if so; a setting that one of them does not know has its default there."""
    if newest.report["data"].get("fingerprint") != run.report["data"].get("fingerprint"):
        return "on other data"
    seeds = newest.report["seed"], run.report["seed"]  # what follows them is no setting
    for key, values in differences(*(shaping(of.report["config"], NOT_THE_METHOD) for of in (newest, run))).items():
        if None not in values and values != seeds:
            return f"with {key}={values[0]} instead of {values[1]}"
    return None


def values_of(found: Mapping[int, Run], selection: str, metric: str) -> dict[int, float]:
    """`metric` under `selection` of runs by seed, or by another number, where it is finite."""
    values = {number: run.metrics(selection).get(metric) for number, run in found.items()}
    return {number: float(value) for number, value in values.items() if value is not None}


def cell(members: Sequence[Run], selection: str, metric: str) -> Cell | None:
    """`metric` of every run under `selection` (last, best_on_test, ...); None where no run has it."""
    if not any(metric in run.metrics(selection) for run in members):
        return None
    values = values_of(dict(enumerate(members)), selection, metric).values()
    return Cell(tuple(values), len(members) - len(values))


def measure_of(members: Sequence[Run], metric: str) -> Measure:
    """How `metric` is read, as these runs declare it."""
    return measures.of([run.report for run in members], metric)
