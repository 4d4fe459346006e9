"""The runs that a table or a comparison consists of: which are there, which were interrupted, which are missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from harness import words
from harness.device import cores, gpus
from harness.record import faults
from harness.record.composition import composed_for_seeds
from harness.record.config import ORDER, SPEED, fingerprint, shaping
from harness.record.index import Found, index
from harness.record.reproducibility import CODE
from harness.study.execution import run_all
from harness.study.specification import Specification, check_columns
from harness.study.tables import Table


@dataclass(frozen=True)
class Job:
    """A row of a table with one seed: the arguments of train.py, what its run is known by, and its newest runs."""

    table: str
    row: str
    seed: int
    arguments: tuple[str, ...]
    fingerprint: str
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)  # resolved
    finished: Path | None = None
    interrupted: Path | None = None  # one that can be resumed
    stopped: Path | None = None  # one whose training stopped by itself, as its loss became nan; it may be resumable
    other_data: int = 0  # how many are finished on other data than are there now, which do not count

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.table}/{self.row}, seed {self.seed}"


def recipe(experiment: str, overrides: Sequence[str], scale: str | None) -> list[str]:
    """The arguments of train.py; `scale` is that of the data: fixture for stand-ins, without pictures; None: real."""
    return [f"experiment={experiment}", *overrides, *([f"scale={scale}", "trainer.pictures=false"] if scale else [])]


def jobs_of(
    file: Specification, place: str, row: str, arguments: Sequence[str], seeds: Iterable[int], allow: Sequence[str]
) -> list[Job]:
    """A row with every seed; `place` is where the file has it, for an error; `allow` and errors as in `composed`."""
    try:
        by_seed = composed_for_seeds(arguments, seeds, allow=allow)
    except ValueError as error:
        raise ValueError(f"{file.name}.yaml: {place}: {error}") from error
    return [
        Job(file.label, row, seed, (*arguments, f"seed={seed}"), fingerprint(config), config)
        for seed, config in by_seed.items()
    ]


def plan(table: Table, seeds: int, scale: str | None = None, allow: Sequence[str] = ()) -> list[Job]:
    """Every run that a table consists of, seed by seed: all rows with seed 0, then all with seed 1, and so on.

    Raises:
        ValueError: If `seeds` is not positive, or a row names an experiment, an option or a metric that does not exist.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    by_row = []
    for key, row in table.rows.items():
        if row.experiment:
            arguments = recipe(row.experiment, row.overrides, scale)
            by_row.append(jobs_of(table, f"rows.{key}", key, arguments, range(seeds), allow))
            check_columns(table.name, table.columns.values(), f"rows.{key} ({row.experiment})", by_row[-1][0].config)
    return alternating(by_row)


def alternating(groups: Sequence[Sequence[Job]]) -> list[Job]:
    """The first of every group, then the second, and so on: stopped anywhere, all have had as many."""
    return [job for turn in zip_longest(*groups) for job in turn if job]


def to_do(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are not finished; one that several rows or tables share, once."""
    first: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if not job.finished:
            first.setdefault((job.fingerprint, _data(job)), job)
    return list(first.values())


def _data(job: Job) -> str:
    """The settings of its data, without those that make no others of them: `seed` decides order and augmentation."""
    settings = shaping({"data": job.config.get("data")}, (*SPEED, *ORDER))
    return json.dumps(settings, sort_keys=True, default=str)


class Outputs:
    """The runs below a folder, how more are made, and which data there are now, as a run on others does not count.

    Data are read once, and only where a run is looked for. Where they are not there, all runs count.

    Args:
        folder: Where runs are found and go.
        at_once: How many run beside each other; default: one for each GPU, or if there is none or they are short, one
            for each core.
        short: Whether to spare what takes longer than a short run: pictures, and looking among all runs that there are
            for the same, which with `reuse` keeps two processes from making one run.
    """

    entry = CODE / "train.py"

    def __init__(self, folder: Path, at_once: int | None = None, short: bool = False) -> None:
        self.folder, self.short = folder, short
        self.at_once = at_once or (0 if short else len(gpus())) or cores()
        self.found = index(folder)
        self._fingerprints: dict[str, tuple[str | None, str]] = {}  # or why there is none

    def data(self, job: Job) -> str | None:
        """The fingerprint of the data of a job; None if they are not there or tell none."""
        key = _data(job)
        if key not in self._fingerprints:
            found, reason = None, "they tell no fingerprint"
            try:
                found = instantiate(job.config["data"], _convert_="all").describe().get("fingerprint")
            except (InstantiationException, OSError, ValueError, ImportError) as error:
                reason = faults.sentence(error)
            self._fingerprints[key] = found, reason
        return self._fingerprints[key][0]

    def notes(self, jobs: Sequence[Job]) -> list[str]:
        """What is to be said of the data behind located jobs: that runs are on others, or that nobody can know."""
        looked_at = [self._fingerprints[key] for key in map(_data, jobs) if key in self._fingerprints]
        reasons = dict.fromkeys(reason for found, reason in looked_at if found is None)
        told = [f"  whether finished runs are on these data is not known: {reason}" for reason in reasons]
        if other := sum({job.fingerprint: job.other_data for job in jobs}.values()):
            told.append(f"  {other} finished run{'s' * (other > 1)} left out: on other data than are there now")
        return told

    def locate(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs with the folders of their runs."""
        located = []
        for job in jobs:
            every = self.found.get(job.fingerprint, Found())
            data = self.data(job) if every != Found() else None
            there = every if data is None else every.on(data)
            newest = (own[-1] if own else None for own in (there.finished, there.interrupted, there.stopped))
            finished, interrupted, stopped = newest
            other = len(every.finished) - len(there.finished)
            located.append(replace(job, finished=finished, interrupted=interrupted, stopped=stopped, other_data=other))
        return located

    def run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Runs jobs, or goes on with what was interrupted; a failure leaves the others running.

        Returns:
            What went wrong, in a sentence, by the fingerprint of each job that failed.
        """
        commands = {}
        for job in jobs:
            spared = self.short and not job.interrupted
            more = ["trainer.pictures=false" if spared else "reuse=true", words.override("paths.outputs", self.folder)]
            commands[job.name] = [*job.arguments, *more]
        failed = run_all(commands, self.entry, self.at_once, keep_going=True)
        self.found = index(self.folder) if jobs else self.found
        return {job.fingerprint: sentence(failed[job.name]) for job in jobs if job.name in failed}


def sentence(said: str) -> str:
    """What a failed run said last: its error in a sentence, or the last line of a traceback.

    Files are named as seen from the current folder, where they are below it, as the sentence may go into a page.
    """
    lines = [line.strip().replace(f"{Path.cwd()}/", "") for line in said.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or ["it ended without a word"])[-1]
