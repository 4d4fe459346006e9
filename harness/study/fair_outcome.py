"""What came of a fair comparison: the choice of every search, the final metrics by seed, and what they show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.record import runs, stages
from harness.study.fair import Search
from harness.study.fair_file import Fair
from harness.study.jobs import Job
from harness.study.results import Run, values_of
from harness.study.table_cells import check_alike, read
from harness.study.uncertainty import Comparison, compare, together

Values = dict[int, float]  # by seed


@dataclass(frozen=True)
class Tested:
    """A method: its search, and its final runs by seed, with their metrics in the unit of the columns."""

    searched: Search
    runs: Sequence[Run]
    validation: Values
    test: Mapping[str, Values]
    untrained: Mapping[str, Values]
    faults: Mapping[int, str]
    seconds: float

    @property
    def name(self) -> str:
        """For people."""
        return self.searched.method.name


@dataclass(frozen=True)
class Outcome:
    """Of a whole comparison, methods from best to worst; those without a result come last."""

    fair: Fair
    methods: dict[str, Tested]
    untrained: dict[str, Values]  # test metrics of the network before training, by column
    made_of: tuple[str, ...]  # revisions, packages and processors behind the final runs, each once
    stand_in: bool  # whether the numbers mean nothing

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
        references = dict.fromkeys(key for key in (*self.compared[:1], self.fair.baseline) if key in self.compared)
        found = {one: {key: self._compared(one, key) for key in self._others(one)} for one in references}
        once = {frozenset((one, key)): c for one, own in found.items() for key, c in own.items()}
        allowing = dict(zip(once, together(list(once.values())), strict=True))
        for one, own in found.items():
            for key, comparison in own.items():
                judged = allowing[frozenset((one, key))]
                own[key] = replace(comparison, adjusted=judged.adjusted, among=judged.among)
        return found

    def _others(self, reference: str) -> list[str]:
        """Those with two seeds in common with the reference."""
        common = {key: self.values(key).keys() & self.values(reference).keys() for key in self.compared}
        return [key for key in self.compared if key != reference and len(common[key]) > 1]

    def _compared(self, reference: str, key: str) -> Comparison:
        main, names = self.fair.main, (self.methods[key].name, self.methods[reference].name)
        return compare(
            self.values(key), self.values(reference), better=main.better, names=names, decimals=main.decimals
        )


def read_search(fair: Fair, search: Search) -> Search:
    """Reads the validation metrics of a search whose runs have all finished or stopped; errors as `table_cells.read`.

    No record that it reads holds anything of the test split.
    """
    ended, faults, seconds = _ended(dict(enumerate(search.jobs)), fair.selection)
    found = values_of(ended, fair.selection, search.monitor)
    faults |= {number: f"{search.monitor} is not a number" for number in ended if number not in found}
    ordered = dict(sorted(faults.items()))
    return replace(search, found=found, faults=ordered, seconds=seconds, runs=list(ended.values()))


def read_tests(fair: Fair, search: Search, jobs: Sequence[Job]) -> Tested:
    """Reads the final runs of a method, as `read_search` does those of its search."""
    ended, faults, seconds = _ended({job.seed: job for job in jobs}, fair.selection)
    validation = values_of(ended, fair.selection, search.monitor)
    test = {name: column.values(ended, fair.selection) for name, column in fair.columns.items()}
    untrained = {name: column.values(ended, "untrained") for name, column in fair.columns.items()}
    return Tested(search, list(ended.values()), validation, test, untrained, faults, seconds)


def outcome(fair: Fair, methods: Mapping[str, Tested], stand_in: bool = False) -> Outcome:
    """Sorts the methods, which come by key, from best to worst, and adds what they have in common.

    Runs on different data are refused. `stand_in` tells that the data are stand-ins; a run on such data says so itself.
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
    check_alike([run for method in methods.values() for run in (*method.searched.runs, *method.runs)])
    reports = [run.report for method in methods.values() for run in method.runs]
    stand_in = stand_in or any(report["data"].get("fixture") for report in reports)
    ordered = {key: methods[key] for key in sorted(methods, key=place)}
    return Outcome(fair, ordered, untrained, runs.made_of(reports), stand_in)


def _ended(jobs: Mapping[int, Job], selection: str) -> tuple[dict[int, Run], dict[int, str], float]:
    """The finished runs, why the others stopped, and the seconds that training took."""
    ended, faults, seconds = dict[int, Run](), dict[int, str](), 0.0
    for number, job in jobs.items():
        if job.finished is None:
            assert job.stopped is not None
            faults[number] = runs.why_stopped(job.stopped)
            continue
        ended[number] = read(job.finished, selection)
        first = job.finished / stages.FOLDER
        for report in (ended[number].report, *([runs.read_report(first)] if first.is_dir() else [])):
            seconds += float(report["results"].get("seconds", 0.0))
    return ended, faults, seconds
