"""What has to be run for a table: which runs are there, which were interrupted, which are missing; and running them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from harness import words
from harness.record import faults, runs
from harness.record.composition import CONFIGS, composed_for_seeds
from harness.record.config import Effect, affecting, fingerprint, shaping
from harness.study.execution import run_all
from harness.study.specification import check_columns
from harness.study.tables import Row, Table


@dataclass(frozen=True)
class Job:
    """A row of a table with one seed: the arguments of train.py, what its run is known by, and where that is.

    Attributes:
        data: The settings of its data, by which `AtHand` finds out what they are now.
        finished: The newest finished run, if there is one.
        interrupted: Otherwise the newest that can be resumed.
        stopped: Otherwise the newest whose training stopped by itself, as its loss became nan; it may be resumable.
        other_data: How many runs are finished on other data than are there now, which do not count.
    """

    table: str
    row: str
    seed: int
    arguments: tuple[str, ...]
    fingerprint: str
    data: Mapping[str, Any] = field(default_factory=dict, compare=False)
    finished: Path | None = None
    interrupted: Path | None = None
    stopped: Path | None = None
    other_data: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.table}/{self.row}, seed {self.seed}"


def plan(
    table: Table,
    seeds: int,
    outputs: Path,
    configs: Path = CONFIGS,
    scale: str | None = None,
    found: Mapping[str, runs.Found] | None = None,
    here: AtHand | None = None,
    allow: Sequence[str] = (),
) -> list[Job]:
    """Every run that a table consists of, seed by seed: all rows with seed 0, then all with seed 1, and so on.

    Args:
        table: The table.
        seeds: How many: 0, 1, ...
        outputs: Where runs are looked for.
        configs: The folder with train.yaml.
        scale: `fixture` for the same on stand-in data; None for the real thing.
        found: `runs.index(outputs)`, if it is known already.
        here: As for `locate`.
        allow: As in `composed`.

    Raises:
        ValueError: If `seeds` is not positive, or a row names an experiment, an option or a metric that does not exist.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    rows = [row for row in table.rows.values() if row.experiment]
    by_row = [_jobs(table, row, seeds, configs, scale, allow) for row in rows]
    planned = [jobs[seed] for seed in range(seeds) for jobs in by_row]
    return locate(planned, runs.index(outputs) if found is None else found, here)


def _jobs(table: Table, row: Row, seeds: int, configs: Path, scale: str | None, allow: Sequence[str]) -> list[Job]:
    arguments = (f"experiment={row.experiment}", *row.overrides, *([f"scale={scale}"] if scale else []))
    try:
        by_seed = composed_for_seeds(arguments, range(seeds), configs, allow)
    except ValueError as error:
        raise ValueError(f"{table.name}.yaml: rows.{row.key}: {error}") from error
    check_columns(table.name, table.columns.values(), f"rows.{row.key} ({row.experiment})", by_seed[0])
    return [
        Job(table.name, row.key, seed, (*arguments, f"seed={seed}"), fingerprint(config), config["data"])
        for seed, config in by_seed.items()
    ]


class AtHand:
    """Which data there are now, by their settings; each are read once, and only where a run is looked for.

    Attributes:
        absent: Why data cannot be read, by their settings. Of them it cannot be said that a run was on others.
    """

    def __init__(self) -> None:
        self.absent: dict[str, str] = {}
        self._known: dict[str, str | None] = {}

    def fingerprint(self, data: Mapping[str, Any]) -> str | None:
        """That of the data with these settings; None if they are not there or tell none."""
        key = _settings(data)
        if key not in self._known:
            self._known[key] = None
            try:
                self._known[key] = instantiate(data, _convert_="all").describe().get("fingerprint")
                if self._known[key] is None:
                    self.absent[key] = "they tell no fingerprint"
            except (InstantiationException, OSError, ValueError, ImportError) as error:
                self.absent[key] = faults.sentence(error)
        return self._known[key]

    def notes(self, jobs: Sequence[Job]) -> list[str]:
        """What is to be said of the data behind located jobs: that runs are on others, or that nobody can know."""
        reasons = dict.fromkeys(
            self.absent[key] for key in map(_settings, (j.data for j in jobs)) if key in self.absent
        )
        told = [f"  whether finished runs are on these data is not known: {reason}" for reason in reasons]
        if other := sum({job.fingerprint: job.other_data for job in jobs}.values()):
            told.append(f"  {other} finished run{'s' * (other > 1)} left out: on other data than are there now")
        return told


def _settings(data: Mapping[str, Any]) -> str:
    """Of data, without those that make no others of them: `seed` decides order and augmentation."""
    apart = affecting(Effect.SPEED, Effect.ORDER)
    return json.dumps(shaping({"data": data}, apart), sort_keys=True, default=str)


def locate(jobs: Sequence[Job], found: Mapping[str, runs.Found], here: AtHand | None = None) -> list[Job]:
    """The jobs with the folders of their runs.

    Args:
        jobs: Of a plan.
        found: As `runs.index` gives it.
        here: The data that are there, which runs must be on to count. Where data are not there, all runs count.
    """
    located, here = [], here or AtHand()
    for job in jobs:
        every = found.get(job.fingerprint, runs.Found())
        mark = here.fingerprint(job.data) if job.data and every != runs.Found() else None
        there = every if mark is None else every.on(mark)
        finished = there.finished[-1] if there.finished else None
        interrupted = there.interrupted[-1] if there.interrupted and not finished else None
        stopped = there.stopped[-1] if there.stopped and not finished else None
        other = len(every.finished) - len(there.finished)
        located.append(replace(job, finished=finished, interrupted=interrupted, stopped=stopped, other_data=other))
    return located


def to_do(jobs: Sequence[Job], rows: Collection[str] = ()) -> list[Job]:
    """The jobs that are not finished, of these rows if any are named; one that several rows or tables share, once."""
    first: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if not job.finished and (not rows or job.row in rows):
            first.setdefault((job.fingerprint, _settings(job.data)), job)
    return list(first.values())


def run(
    jobs: Sequence[Job],
    entry: Path,
    outputs: Path,
    at_once: int | None = None,
    short: bool = False,
) -> dict[str, str]:
    """Runs the jobs, or goes on with what was interrupted; a failure leaves the others running.

    Args:
        jobs: Such as `to_do` gives.
        entry: The path of train.py.
        outputs: Where the runs go.
        at_once: As in `run_all`.
        short: Whether to spare what takes longer than a short run: pictures, and looking among all runs that there are
            for the same, which with `reuse` keeps two processes from making one run.

    Returns:
        What went wrong, in a sentence, by the fingerprint of each job that failed.
    """

    def more(job: Job) -> list[str]:
        spared = short and not job.interrupted
        return ["trainer.pictures=false" if spared else "reuse=true", words.override("paths.outputs", outputs)]

    failed = run_all({job.name: [*job.arguments, *more(job)] for job in jobs}, entry, at_once, keep_going=True)
    return {job.fingerprint: sentence(failed[job.name]) for job in jobs if job.name in failed}


def sentence(said: str) -> str:
    """What a failed run said last: its error in a sentence, or the last line of a traceback.

    Files are named as seen from the current folder, where they are below it, as the sentence may go into a page.
    """
    lines = [line.strip().replace(f"{Path.cwd()}/", "") for line in said.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or ["it ended without a word"])[-1]
