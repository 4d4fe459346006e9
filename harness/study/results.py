"""Run folders -> runs, by method and by study: those of one version of one data set, judged by one metric."""

from __future__ import annotations

import logging
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.files import shown
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
SELECTED = {
    "untrained": "untrained",
    "last": "last epoch",
    "best_on_validation": "best epoch on validation",
    "best_on_test": "best epoch on test",
    "last_average": "last epoch, averaged weights",
    "best_on_validation_average": "best epoch of averaged weights on validation",
    "best_on_test_average": "best epoch of averaged weights on test",
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
            found.append(read(folder))
        except ValueError as error:
            faults.append(str(error))
    if not found:
        raise ValueError(faults[0])
    for fault in faults:
        say(f"left out: {fault}")
    return found


def read(folder: Path, selection: str = "last") -> Run:
    """The finished run in a folder.

    Raises:
        ValueError: If its report is not what a run writes, or has no result `selection`; with those it has.
    """
    report = runs.read_report(folder)
    if wrong := next(_strange(report), None):
        file = folder / "report.json"
        raise ValueError(f"{file} is not what a run writes ({wrong}); delete that run folder or repeat the run")
    there = [name for name in report["results"] if runs.metrics_of(report, name) is not None]
    if selection not in there:
        raise ValueError(f"{shown(folder)} has no result {selection}; it has {', '.join(there)}")
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


def cell(members: Sequence[Run], selection: str, metric: str, measure: Measure, spread: str = "interval") -> str:
    """`metric` under `selection` (last, best_on_test, ...) as `mean_shown`; empty where no run has it."""
    if not any(metric in run.metrics(selection) for run in members):
        return ""
    values = list(values_of(dict(enumerate(members)), selection, metric).values())
    return mean_shown(values, measure, spread, len(members) - len(values))


def mean_shown(values: Sequence[float], measure: Measure, spread: str = "interval", without: int = 0) -> str:
    """Values of several seeds as papers show such a metric, 64.0 ± 0.3, in percent where it is a share.

    After ± stands what `spread`, a key of `PLUS_MINUS`, says; nothing with a single seed. It is told that there are
    more runs `without` a value.
    """
    among = f" ({len(values)} of {len(values) + without} runs)" if without else ""
    if not values:
        return f"nan{among}"
    digits, half = measure.decimals([measure.factor * value for value in values]), 0.0
    if len(values) > 1:
        half = interval(values).half if spread == "interval" else statistics.stdev(values)
    alone = len(values) == 1 or (measure.kind == "count" and not half)  # counts that are all equal
    after = "" if alone else f" ± {measure.factor * half:.{digits}f}"
    return f"{measure.factor * statistics.fmean(values):.{digits}f}{after}{among}"


def measure_of(members: Sequence[Run], metric: str) -> Measure:
    """How `metric` is read, as these runs declare it."""
    return measures.of([run.report for run in members], metric)


@dataclass(frozen=True)
class Study:
    """Methods, each with its runs, by label (see `Run.label`)."""

    methods: dict[str, list[Run]]
    data: str  # the name
    fingerprint: str  # of the data; empty where none is known
    stand_in: bool  # whether the data are made up to try the code
    monitored: str  # the metric that chooses epochs, without its split

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for members in self.methods.values() for run in members]

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric that a run ended with, the test split's first."""
        names = dict.fromkeys(name for run in self.runs for name in run.metrics("last"))
        return sorted(names, key=lambda name: not name.startswith("test/"))

    @cached_property
    def split(self) -> str:
        """test, or the first that there is where that was left alone, as in a search for settings."""
        return self.metrics[0].partition("/")[0] if self.metrics else "test"

    @property
    def monitor(self) -> str:
        """The metric that chooses epochs, of the split that the page is about."""
        return f"{self.split}/{self.monitored}"

    @property
    def higher_is_better(self) -> bool:
        """Of `monitor`."""
        return self.measure(self.monitor).higher_is_better is not False

    def measure(self, metric: str) -> Measure:
        """How a metric is read."""
        return measure_of(self.runs, metric)

    @cached_property
    def selection(self) -> str:
        """The epoch that the figures are about: chosen on held-out data where all runs have some, or the last."""
        chosen = "best_on_validation"
        return chosen if all(run.metrics(chosen) for run in self.runs) else "last"

    @cached_property
    def short(self) -> dict[str, str]:
        """Labels without the words that all have in common; the experiment's name where nothing is left."""
        words = {label: label.split() for label in self.methods}
        common = set.intersection(*map(set, words.values()))
        return {label: " ".join(w for w in found if w not in common) or found[0] for label, found in words.items()}

    def by_seed(self, label: str, metric: str) -> dict[int, float]:
        """The finite values of a metric by seed."""
        return values_of({run.report["seed"]: run for run in self.methods[label]}, self.selection, metric)

    def best_first(self) -> list[str]:
        """Labels by the mean of the monitored metric; those without it last."""

        def key(label: str) -> float:
            values = self.by_seed(label, self.monitor).values()
            return statistics.fmean(values) * (-1 if self.higher_is_better else 1) if values else math.inf

        return sorted(self.methods, key=key)

    def leading(self, count: int) -> list[str]:
        """The best `count` labels, in the order of the study."""
        best = set(self.best_first()[:count])
        return [label for label in self.methods if label in best]


def studies(found: Sequence[Run], say: Say = log.warning) -> list[Study]:
    """The runs by data set, version and monitored metric, in the order of first runs; `say` as in `group_by_method`."""
    apart: dict[tuple[str, str, bool, str, bool], list[Run]] = {}
    for run in found:
        data, trainer = run.report["data"], run.report["config"].get("trainer", {})
        known = str(data.get("name", "unnamed data")), str(data.get("fingerprint") or ""), bool(data.get("fixture"))
        monitored = str(trainer.get("monitor", "recall@1")), bool(trainer.get("higher_is_better", True))
        apart.setdefault((*known, *monitored), []).append(run)
    return [Study(group_by_method(members, say), *key[:4]) for key, members in apart.items()]


def check_metrics(grouped: Sequence[Study], metrics: Sequence[str] | None) -> None:
    """Refuses a metric that no run has, with those that there are."""
    there = list(dict.fromkeys(name for study in grouped for name in study.metrics))
    if unknown := [name for name in metrics or () if name not in there]:
        raise ValueError(f"no run has the metric {unknown[0]}; there are {', '.join(there)}")


def slug(text: str) -> str:
    """A name for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"
