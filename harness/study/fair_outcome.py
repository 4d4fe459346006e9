"""What came of a fair comparison: the choice of every search, the final metrics by seed, and what they show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from harness.record import runs, stages
from harness.study import table_cells
from harness.study.fair import Search, Trial, choose
from harness.study.fair_file import Fair, Method
from harness.study.specification import Column
from harness.study.table_runs import Job
from harness.study.uncertainty import Comparison, Interval, compare, interval, together

Values = dict[int, float]  # by seed


@dataclass(frozen=True)
class Searched:
    """How the search of a method went.

    Attributes:
        found: The validation metric by trial; None for a trial that failed, which counts as the worst.
        faults: What went wrong, by trial.
        chosen: None if every trial failed.
        seconds: Training took, over all trials.
        monitor: The validation metric that decided.
    """

    method: Method
    trials: tuple[Trial, ...]
    found: dict[int, float | None]
    faults: dict[int, str]
    chosen: Trial | None
    seconds: float
    monitor: str

    @property
    def best(self) -> float:
        """The validation metric of the chosen trial."""
        value = None if self.chosen is None else self.found[self.chosen.number]
        return math.nan if value is None else value

    @property
    def median(self) -> float:
        """Of the trials that did not fail."""
        values = [value for value in self.found.values() if value is not None]
        return statistics.median(values) if values else math.nan


@dataclass(frozen=True)
class Tested:
    """A method: its search, and its final runs by seed, in the unit of the columns."""

    searched: Searched
    validation: Values = field(default_factory=dict)
    test: dict[str, Values] = field(default_factory=dict)
    untrained: dict[str, Values] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        return self.searched.method.name


@dataclass(frozen=True)
class Outcome:
    """Of a whole comparison, methods from best to worst; those without a result come last.

    Attributes:
        untrained: The test metrics of the network before training, by column and seed.
        made_of: Revisions, packages and processors behind the final runs, each once.
        stand_in: Whether the data are stand-ins, so that the numbers mean nothing.
    """

    fair: Fair
    methods: dict[str, Tested]
    untrained: dict[str, Values]
    made_of: tuple[str, ...]
    stand_in: bool

    def values(self, key: str) -> Values:
        """The deciding column of a method."""
        return self.methods[key].test.get(self.fair.main.name, {})

    @property
    def compared(self) -> list[str]:
        """The methods with two seeds or more, best first."""
        return [key for key in self.methods if len(self.values(key)) > 1]

    @cached_property
    def against(self) -> dict[str, dict[str, Comparison]]:
        """By reference, the best method and the baseline: every other method minus it, paired over their seeds.

        All of them allow for each other by Holm's method; best against baseline is one comparison, shown from both
        sides.
        """
        compared = self.compared
        references = dict.fromkeys(key for key in (*compared[:1], self.fair.baseline) if key in compared)
        pairs = [
            (reference, key)
            for reference in references
            for key in compared
            if key != reference and len(self.values(key).keys() & self.values(reference).keys()) > 1
        ]
        once = {frozenset(pair): pair for pair in reversed(pairs)}
        allowing = dict(zip(once, together([self._compared(*pair) for pair in once.values()]), strict=True))
        found: dict[str, dict[str, Comparison]] = {reference: {} for reference in references}
        for reference, key in pairs:
            judged, plain = allowing[frozenset((reference, key))], self._compared(reference, key)
            found[reference][key] = replace(
                plain, adjusted=judged.adjusted, among=judged.among, seeds_needed=judged.seeds_needed
            )
        return found

    def _compared(self, reference: str, key: str) -> Comparison:
        main = self.fair.main
        return compare(
            self.values(key),
            self.values(reference),
            better=main.better,
            names=(self.methods[key].name, self.methods[reference].name),
            decimals=main.decimals,
        )


def read_search(fair: Fair, search: Search) -> Searched:
    """Reads the validation metrics of a search and chooses; no record that it reads holds anything of the test split.

    Args:
        fair: The comparison.
        search: With the folders of its runs, all of which have finished or stopped.

    Raises:
        ValueError: If the report of a run is missing or truncated.
    """
    found: dict[int, float | None] = {}
    faults, seconds = dict[int, str](), 0.0
    for trial, job in zip(search.trials, search.jobs, strict=True):
        value: float | None = None
        if job.stopped is not None:
            faults[trial.number] = runs.why_stopped(job.stopped)
        else:
            value = _finite(_selected(job, fair).get(search.monitor))
            seconds += _seconds(job)
            if value is None:
                faults[trial.number] = f"{search.monitor} is not a number"
        found[trial.number] = value
    number = choose(found, search.higher_is_better)
    chosen = None if number is None else search.trials[number]
    return Searched(search.method, search.trials, found, faults, chosen, seconds, search.monitor)


def read_tests(fair: Fair, found: Searched, jobs: Sequence[Job]) -> Tested:
    """Reads the final runs of a method; arguments and errors as `read_search`."""
    measured, before = dict[int, Mapping[str, float | None]](), dict[int, Mapping[str, float | None]]()
    faults, seconds = dict[int, str](), 0.0
    for job in jobs:
        if job.stopped is not None:
            faults[job.seed] = runs.why_stopped(job.stopped)
            continue
        seconds += _seconds(job)
        measured[job.seed] = _selected(job, fair)
        before[job.seed] = runs.metrics_of(_report(job), "untrained") or {}
    found_again = {seed: _finite(metrics.get(found.monitor)) for seed, metrics in measured.items()}
    return Tested(
        found,
        validation={seed: value for seed, value in found_again.items() if value is not None},
        test={name: _by_seed(column, measured) for name, column in fair.columns.items()},
        untrained={name: _by_seed(column, before) for name, column in fair.columns.items()},
        faults=faults,
        seconds=seconds,
    )


def check_alike(jobs: Sequence[Job]) -> None:
    """As `table_cells.check_alike`, over all finished runs; errors also if a report is truncated."""
    table_cells.check_alike({job.finished: runs.read_report(job.finished) for job in jobs if job.finished})


def outcome(fair: Fair, methods: Mapping[str, Tested], jobs: Sequence[Job], stand_in: bool = False) -> Outcome:
    """Sorts the methods from best to worst and adds what they have in common.

    Args:
        fair: The comparison.
        methods: By key.
        jobs: All final runs.
        stand_in: Whether the data are known to be stand-ins; a run on such data says so itself.
    """

    def place(key: str) -> float:
        values = methods[key].test.get(fair.main.name)
        if not values:
            return math.inf
        mean = statistics.fmean(values.values())
        return -mean if fair.main.better == "higher" else mean

    untrained: dict[str, Values] = {name: {} for name in fair.columns}
    for method in methods.values():  # alike for all: the network's first weights are drawn before anything of the loss
        for name, values in method.untrained.items():
            untrained[name] = values | untrained[name]
    ordered = {key: methods[key] for key in sorted(methods, key=place)}
    reports = [_report(job) for job in jobs if job.finished]
    stand_in = stand_in or any(report["data"].get("fixture") for report in reports)
    return Outcome(fair, ordered, untrained, runs.made_of(reports), stand_in)


def spread(values: Values) -> Interval | None:
    """The 95 % t-interval of the mean over seeds; None under two."""
    return interval(list(values.values())) if len(values) > 1 else None


def _by_seed(column: Column, measured: Mapping[int, Mapping[str, float | None]]) -> Values:
    return {seed: value for seed, metrics in measured.items() if (value := column.value(metrics)) is not None}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _selected(job: Job, fair: Fair) -> Mapping[str, float | None]:
    assert job.finished is not None
    return table_cells.selected(_report(job), job.finished, fair.selection)


def _report(job: Job) -> dict[str, Any]:
    assert job.finished is not None
    return runs.read_report(job.finished)


def _seconds(job: Job) -> float:
    assert job.finished is not None
    parts = [folder for folder in (job.finished, job.finished / stages.FOLDER) if folder.is_dir()]
    return sum(float(runs.read_report(part)["results"].get("seconds", 0.0)) for part in parts)
