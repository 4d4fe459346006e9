"""A fair comparison: every method gets a search of the same size on validation data, and is then tested once.

A search run evaluates the validation split alone, so its record holds nothing of the test split. The trials are drawn
up front from a fixed sequence: run again, they are found as finished runs.

Source: Musgrave, Belongie and Lim 2020, A Metric Learning Reality Check, arXiv:2003.08505, section 3.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scipy.stats import qmc

from harness.record.config import first_difference, shaping
from harness.record.reproducibility import CODE
from harness.seeds import derived_seed
from harness.study.execution import default_at_once
from harness.study.fair_file import MOST_SETTINGS, Fair, Method, Value, text
from harness.study.jobs import Job, Outputs, jobs_of, to_do
from harness.study.specification import check_columns

SPLIT = "validation"
SEARCH = f"trainer.splits=[{SPLIT}]"  # what a search run changes, beside its settings
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
    """The search of a method: its trials, the run of each, and the validation metric that decides.

    Attributes:
        found: That metric by trial, once it is read; None for a trial that failed, which counts as the worst.
        faults: What went wrong, by trial.
        seconds: Training took, over all trials.
    """

    method: Method
    trials: tuple[Trial, ...]
    jobs: tuple[Job, ...]
    monitor: str
    higher_is_better: bool
    found: Mapping[int, float | None] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def chosen(self) -> Trial | None:
        """The trial with the best metric; None if every trial failed."""
        number = choose(self.found, self.higher_is_better)
        return None if number is None else self.trials[number]

    @property
    def best(self) -> float:
        """The metric of the chosen trial."""
        value = None if self.chosen is None else self.found[self.chosen.number]
        return math.nan if value is None else value

    @property
    def median(self) -> float:
        """Of the trials that did not fail."""
        values = [value for value in self.found.values() if value is not None]
        return statistics.median(values) if values else math.nan


def choose(values: Mapping[int, float | None], higher_is_better: bool) -> int | None:
    """The trial with the best validation metric, the first of equal ones; None if all failed.

    Args:
        values: The metric by trial; a trial that failed has None, which is worse than any number, and so is nan.
        higher_is_better: Which way is better.
    """
    sound = {number: value for number, value in values.items() if value is not None and math.isfinite(value)}
    best = max if higher_is_better else min
    return best(sorted(sound), key=lambda number: sound[number]) if sound else None


def plan_search(fair: Fair, scale: str | None = None, allow: Sequence[str] = ()) -> dict[str, Search]:
    """Every run of every search, by method.

    Args:
        fair: The comparison.
        scale: `fixture` for the same on stand-in data; None for the real thing.
        allow: As in `composed`.

    Raises:
        ValueError: If a method names what does not exist, changes more than it may, or does not measure a column.
    """
    searches: dict[str, Search] = {}
    first: Mapping[str, Any] = {}
    searched = {key for method in fair.methods.values() for key in method.settings}
    for key, method in fair.methods.items():
        trials, jobs = draw(fair, method), list[Job]()
        for trial in trials:
            row = f"trial {trial.number + 1} of {fair.trials}"
            jobs += _jobs(fair, trial, row, [fair.search_seed], scale, allow, SEARCH)
            first = first or jobs[0].config
            _check_equal(fair, method, first, jobs[-1].config, searched)
        monitor, higher = f"{SPLIT}/{first['trainer']['monitor']}", bool(first["trainer"]["higher_is_better"])
        searches[key] = Search(method, tuple(trials), tuple(jobs), monitor, higher)
    check_columns(fair.name, fair.columns.values(), fair.experiment, first)
    return searches


def plan_tests(
    fair: Fair, searches: Mapping[str, Search], scale: str | None = None, allow: Sequence[str] = ()
) -> dict[str, list[Job]]:
    """The final runs, seeds 0, 1, ... of every method that has a chosen trial; the rest as for `plan_search`."""
    chosen = {key: search.chosen for key, search in searches.items()}
    return {
        key: _jobs(fair, trial, "chosen", range(fair.seeds), scale, allow) for key, trial in chosen.items() if trial
    }


def run(
    jobs: Sequence[Job],
    outputs: Outputs,
    at_once: int | None = None,
    short: bool = False,
    entry: Path = CODE / "train.py",
) -> None:
    """Runs what is not finished, and goes on with what was interrupted; arguments as of `Outputs.run`.

    A run whose training stopped by itself has come to its end, and is not run again unless its folder is deleted. The
    first few are looked at before the rest is begun, as missing data would fail them all.

    Raises:
        ValueError: If a run failed for a reason that is not its method's, such as missing data or memory; with the
            first of them, and what it said.
    """
    pending, few = to_do([job for job in jobs if not job.stopped]), at_once or default_at_once()
    for part in filter(None, (pending[:few], pending[few:])):
        failed = outputs.run(part, at_once, short, entry)
        if lost := [job for job in outputs.locate(part) if not job.finished and not job.stopped]:
            raise ValueError(
                f"{len(lost)} of {len(part)} runs failed before they came to an end, and no page was written; "
                f"{lost[0].name}: {failed.get(lost[0].fingerprint, 'it was not run')}"
            )


def located(searches: Mapping[str, Search], outputs: Outputs) -> dict[str, Search]:
    """The searches with the folders of their runs."""
    return {key: replace(search, jobs=tuple(outputs.locate(search.jobs))) for key, search in searches.items()}


def _jobs(
    fair: Fair, trial: Trial, row: str, seeds: Iterable[int], scale: str | None, allow: Sequence[str], *more: str
) -> list[Job]:
    method, scaled = trial.method, [f"scale={scale}"] if scale else []
    recipe = (f"experiment={fair.experiment}", *fair.overrides, *method.overrides, *scaled)
    arguments = (*recipe, *trial.overrides, *more)
    return jobs_of(fair, f"methods.{method.key}", f"{method.key}, {row}", arguments, seeds, allow)


def _check_equal(
    fair: Fair, method: Method, first: Mapping[str, Any], config: Mapping[str, Any], searched: Collection[str]
) -> None:
    for part in EQUAL:
        own, other = (shaping({part: c[part]}, (*OF_A_METHOD, *searched)) for c in (config, first))
        if differing := first_difference(own, other):
            raise ValueError(
                f"{fair.name}.yaml: methods.{method.key} changes {part} ({differing[0]} instead of {differing[1]}), "
                "which has to be equal for all methods; change it for all, in the overrides of the file"
            )
