"""A fair comparison: every method gets a search of the same size on validation data, and is then tested once.

A search run evaluates the validation split alone, so its record holds nothing of the test split. The trials are drawn
up front from a fixed sequence: run again, they are found as finished runs.

Source: Musgrave, Belongie and Lim 2020, A Metric Learning Reality Check, arXiv:2003.08505, section 3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import qmc

from harness.record import runs
from harness.record.composition import CONFIGS, composed, composed_for_seeds
from harness.record.config import fingerprint, first_difference, shaping
from harness.seeds import derived_seed
from harness.study import table_runs
from harness.study.execution import default_at_once
from harness.study.fair_file import MOST_SETTINGS, Fair, Method, Value, text
from harness.study.specification import check_columns
from harness.study.table_runs import AtHand, Job, locate, to_do

SPLIT = "validation"
SEARCH = (f"trainer.splits=[{SPLIT}]",)  # what a search run changes, beside its settings
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
        trials.append(
            Trial(method, number, {key: setting.at(places[key]) for key, setting in method.settings.items()}, places)
        )
    return trials


@dataclass(frozen=True)
class Search:
    """The search of a method: its trials, the run of each, and the validation metric that decides."""

    method: Method
    trials: tuple[Trial, ...]
    jobs: tuple[Job, ...]
    monitor: str
    higher_is_better: bool


def plan_search(
    fair: Fair, scale: str | None = None, configs: Path = CONFIGS, allow: Sequence[str] = ()
) -> dict[str, Search]:
    """Every run of every search, by method.

    Args:
        fair: The comparison.
        scale: `fixture` for the same on stand-in data; None for the real thing.
        configs: The folder with train.yaml.
        allow: As in `composed`.

    Raises:
        ValueError: If a method names what does not exist, changes more than it may, or does not measure a column.
    """
    searches: dict[str, Search] = {}
    first: Mapping[str, Any] = {}
    for key, method in fair.methods.items():
        trials, jobs = draw(fair, method), []
        for trial in trials:
            arguments = (*_recipe(fair, method, scale), *trial.overrides, *SEARCH, f"seed={fair.search_seed}")
            with _told_of(fair, method):
                config = composed(arguments, configs, allow)
            first = first or config
            _check_equal(fair, method, first, config, {key for m in fair.methods.values() for key in m.settings})
            row = f"{key}, trial {trial.number + 1} of {fair.trials}"
            jobs.append(_job(fair, row, fair.search_seed, arguments, config))
        monitor, higher = f"{SPLIT}/{first['trainer']['monitor']}", bool(first["trainer"]["higher_is_better"])
        searches[key] = Search(method, tuple(trials), tuple(jobs), monitor, higher)
    check_columns(fair.name, fair.columns.values(), fair.experiment, first)
    return searches


def plan_tests(
    fair: Fair,
    chosen: Mapping[str, Trial],
    scale: str | None = None,
    configs: Path = CONFIGS,
    allow: Sequence[str] = (),
) -> dict[str, list[Job]]:
    """The final runs, seeds 0, 1, ... of every method that has a chosen trial; the rest as for `plan_search`."""
    planned: dict[str, list[Job]] = {}
    for key, trial in chosen.items():
        arguments = (*_recipe(fair, trial.method, scale), *trial.overrides)
        with _told_of(fair, trial.method):
            by_seed = composed_for_seeds(arguments, range(fair.seeds), configs, allow)
        planned[key] = [
            _job(fair, f"{key}, chosen", seed, (*arguments, f"seed={seed}"), config) for seed, config in by_seed.items()
        ]
    return planned


def run(
    jobs: Sequence[Job],
    entry: Path,
    outputs: Path,
    at_once: int | None = None,
    here: AtHand | None = None,
    short: bool = False,
) -> None:
    """Runs what is not finished, and goes on with what was interrupted.

    A run whose training stopped by itself has come to its end, and is not run again unless its folder is deleted. The
    first few are looked at before the rest is begun, as missing data would fail them all.

    Args:
        jobs: With the folders of their runs, as `located` gives them.
        entry: The path of train.py.
        outputs: Where the runs go.
        at_once: As in `run_all`.
        here: As for `locate`.
        short: As in `table_runs.run`.

    Raises:
        ValueError: As `check_ended`.
    """
    pending, few = to_do([job for job in jobs if not job.stopped]), at_once or default_at_once()
    for part in filter(None, (pending[:few], pending[few:])):
        failed = table_runs.run(part, entry, outputs, at_once, short)
        check_ended(locate(part, runs.index(outputs), here), failed)


def check_ended(jobs: Sequence[Job], failed: Mapping[str, str]) -> None:
    """Refuses to go on where a run failed for a reason that is not its method's, such as missing data or memory.

    Args:
        jobs: As found after running.
        failed: What went wrong, in a sentence, by fingerprint.

    Raises:
        ValueError: With the first of them, and what it said.
    """
    if lost := [job for job in jobs if not job.finished and not job.stopped]:
        raise ValueError(
            f"{len(lost)} of {len(jobs)} runs failed before they came to an end, and no page was written; "
            f"{lost[0].name}: {failed.get(lost[0].fingerprint, 'it was not run')}"
        )


def located(searches: Mapping[str, Search], outputs: Path, here: AtHand | None = None) -> dict[str, Search]:
    """The searches with the folders of their runs; `here` as for `locate`."""
    found, here = runs.index(outputs), here or AtHand()
    return {key: replace(search, jobs=tuple(locate(search.jobs, found, here))) for key, search in searches.items()}


def alternating(groups: Sequence[Sequence[Job]]) -> list[Job]:
    """The first of every group, then the second, and so on: stopped anywhere, every method has had as many."""
    longest = max(map(len, groups), default=0)
    return [group[k] for k in range(longest) for group in groups if k < len(group)]


def choose(values: Mapping[int, float | None], higher_is_better: bool) -> int | None:
    """The trial with the best validation metric, the first of equal ones; None if all failed.

    Args:
        values: The metric by trial; a trial that failed has None, which is worse than any number, and so is nan.
        higher_is_better: Which way is better.
    """
    sound = {number: value for number, value in values.items() if value is not None and math.isfinite(value)}
    best = max if higher_is_better else min
    return best(sorted(sound), key=lambda number: sound[number]) if sound else None


def _recipe(fair: Fair, method: Method, scale: str | None) -> tuple[str, ...]:
    scaled = [f"scale={scale}"] if scale else []
    return (f"experiment={fair.experiment}", *fair.overrides, *method.overrides, *scaled)


def _job(fair: Fair, row: str, seed: int, arguments: tuple[str, ...], config: Mapping[str, Any]) -> Job:
    return Job(f"fair-{fair.name}", row, seed, arguments, fingerprint(config), config["data"])


@contextmanager
def _told_of(fair: Fair, method: Method) -> Iterator[None]:
    """Tells an error with its place in the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{fair.name}.yaml: methods.{method.key}: {error}") from error


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
