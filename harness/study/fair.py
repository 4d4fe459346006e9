"""A fair comparison: every method gets a search of the same size on validation data, and is then tested once.

Source: Musgrave, Belongie and Lim 2020, A Metric Learning Reality Check, arXiv:2003.08505, section 3.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from scipy.stats import qmc

from harness.record import runs, stages
from harness.record.config import first_difference, shaping
from harness.seeds import derived_seed
from harness.study.fair_file import MOST_SETTINGS, Fair, Method, text
from harness.study.jobs import Job, Outputs, jobs_of, recipe, to_do
from harness.study.results import Run, read, values_of
from harness.study.specification import check_columns
from harness.study.swept import Value
from harness.study.table_cells import check_alike
from harness.study.uncertainty import Comparison, compare, together

Values = dict[int, float]  # by seed
SPLIT = "validation"
SEARCH = f"trainer.splits=[{SPLIT}]"  # what a search run changes, so that its record holds nothing of the test split
EQUAL = ("data", "model", "trainer", "optimizer", "scheduler", "metrics")  # in which methods must not differ, but for
OF_A_METHOD = ("model.smoothing",)  # of these, what is a method's own, and the settings that are searched


@dataclass(frozen=True)
class Trial:
    """A draw of a method's settings: `values` by key, and their `places` in the ranges, in [0, 1)."""

    method: Method
    number: int
    values: Mapping[str, Value]
    places: Mapping[str, float]

    @property
    def overrides(self) -> tuple[str, ...]:
        """As they stand on the command line."""
        return tuple(f"{key}={text(value)}" for key, value in self.values.items())

    @property
    def at_edge(self) -> tuple[str, ...]:
        """The settings that lie near an end of their range."""
        return tuple(key for key, setting in self.method.settings.items() if setting.near_edge(self.places[key]))


def draw(fair: Fair, method: Method) -> list[Trial]:
    """The trials of a method: the first points of a Sobol sequence, shifted by what the seed of the search says.

    Trial k of any two methods has the same shared settings, as these come first. Asking for more trials leaves the
    first ones as they are, and so do other methods. With a power of two of trials, every setting is tried evenly over
    its range. Nothing depends on the versions of libraries: the sequence is not scrambled, and the shift comes from
    Python's generator.

    Source: Sobol 1967, with the direction numbers of Joe and Kuo 2008; the shift: Cranley and Patterson 1976.
    """
    generator = random.Random(derived_seed(fair.search_seed, "fair"))
    shift = [generator.random() for _ in range(MOST_SETTINGS)]
    points = qmc.Sobol(MOST_SETTINGS, scramble=False).random_base2((fair.trials - 1).bit_length())
    trials = []
    for number, point in enumerate(points[: fair.trials].tolist()):
        shifted = [(x + s) % 1.0 for x, s in zip(point, shift, strict=True)]
        places = dict(zip(method.settings, shifted, strict=False))
        values = {key: setting.at(places[key]) for key, setting in method.settings.items()}
        trials.append(Trial(method, number, values, places))
    return trials


@dataclass(frozen=True)
class Search:
    """The search of a method: its trials, the run of each, and once these are read, the metric that decides."""

    method: Method
    trials: Sequence[Trial]
    jobs: Sequence[Job]
    monitor: str  # the metric
    higher_is_better: bool
    recipe: Sequence[str] = ()  # the arguments of all of its runs
    found: Mapping[int, float] = field(default_factory=dict)  # by trial
    faults: Mapping[int, str] = field(default_factory=dict)  # of the other trials
    seconds: float = 0.0  # of training, over all trials
    runs: Sequence[Run] = ()

    @property
    def chosen(self) -> Trial | None:
        """The first trial with the best metric; None if every trial failed."""
        best = max if self.higher_is_better else min
        return self.trials[best(self.found, key=lambda number: self.found[number])] if self.found else None

    @property
    def best(self) -> float:
        """The metric of the chosen trial."""
        return math.nan if self.chosen is None else self.found[self.chosen.number]

    @property
    def median(self) -> float:
        """Of the trials that did not fail."""
        return statistics.median(self.found.values()) if self.found else math.nan


def plan_search(fair: Fair, scale: str | None = None, allow: Sequence[str] = ()) -> dict[str, Search]:
    """Every run of every search, by method; arguments as of `plan`.

    Raises:
        ValueError: If a method names what does not exist, changes more than it may, or does not measure a column.
    """
    searches: dict[str, Search] = {}
    first: Mapping[str, Any] = {}
    for key, method in fair.methods.items():
        trials, jobs = draw(fair, method), list[Job]()
        shared = recipe(fair.experiment, (*fair.overrides, *method.overrides), scale)
        for trial in trials:
            row, arguments = f"{key}, trial {trial.number + 1} of {fair.trials}", [*shared, *trial.overrides, SEARCH]
            jobs += jobs_of(fair, f"methods.{key}", row, arguments, [fair.search_seed], allow)
            first = first or jobs[0].config
            _check_equal(fair, method, first, jobs[-1].config)
        monitor, higher = f"{SPLIT}/{first['trainer']['monitor']}", bool(first["trainer"]["higher_is_better"])
        searches[key] = Search(method, trials, jobs, monitor, higher, shared)
    check_columns(fair.name, fair.columns.values(), fair.experiment, first)
    return searches


def plan_tests(fair: Fair, searches: Mapping[str, Search], allow: Sequence[str] = ()) -> dict[str, list[Job]]:
    """The final runs, seeds 0, 1, ... of every method that has a chosen trial; errors as `plan_search`."""
    planned = {}
    for key, search in searches.items():
        if search.chosen:
            arguments = [*search.recipe, *search.chosen.overrides]
            planned[key] = jobs_of(fair, f"methods.{key}", f"{key}, chosen", arguments, range(fair.seeds), allow)
    return planned


def run(jobs: Sequence[Job], outputs: Outputs) -> None:
    """Runs what is not finished, and goes on with what was interrupted.

    A run whose training stopped by itself has come to its end, and is not run again unless its folder is deleted. The
    first few are looked at before the rest is begun, as missing data would fail them all.

    Raises:
        ValueError: If a run failed for a reason that is not its method's, such as missing data or memory; with the
            first of them, and what it said.
    """
    pending = to_do([job for job in jobs if not job.stopped])
    for part in filter(None, (pending[: outputs.at_once], pending[outputs.at_once :])):
        failed = outputs.run(part)
        if lost := [job for job in outputs.locate(part) if not job.finished and not job.stopped]:
            raise ValueError(
                f"{len(lost)} of {len(part)} runs failed before they came to an end, and no page was written; "
                f"{lost[0].name}: {failed.get(lost[0].fingerprint, 'it was not run')}"
            )


def located(searches: Mapping[str, Search], outputs: Outputs) -> dict[str, Search]:
    """The searches with the folders of their runs."""
    return {key: replace(search, jobs=outputs.locate(search.jobs)) for key, search in searches.items()}


def _check_equal(fair: Fair, method: Method, first: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    apart = [*OF_A_METHOD, *(key for other in fair.methods.values() for key in other.settings)]
    for part in EQUAL:
        if differing := first_difference(*(shaping({part: of[part]}, apart) for of in (config, first))):
            raise ValueError(
                f"{fair.name}.yaml: methods.{method.key} changes {part} ({' instead of '.join(differing)}), which has "
                "to be equal for all methods; change it for all, in the overrides of the file"
            )


@dataclass(frozen=True)
class Tested:
    """A method: its search, and its final runs by seed, with their metrics in the unit of the columns."""

    searched: Search
    runs: Mapping[int, Run]
    validation: Values
    test: Mapping[str, Values]
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
    """Reads the validation metrics of a search whose runs have all finished or stopped; errors as `read`.

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
    return Tested(search, ended, validation, test, faults, seconds)


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
        for name, column in fair.columns.items():
            untrained[name] = column.values(method.runs, "untrained") | untrained[name]
    check_alike([run for method in methods.values() for run in (*method.searched.runs, *method.runs.values())])
    reports = [run.report for method in methods.values() for run in method.runs.values()]
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
