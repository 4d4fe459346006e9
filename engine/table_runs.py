"""What has to be run for a table: which runs are there, which were interrupted, which are missing; and running them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine import runs
from engine.experiments import CONFIGS, composed_for_seeds
from engine.several import Pace, run_all
from engine.tables import Row, Table, check_metrics


@dataclass(frozen=True)
class Job:
    """A row of a table with one seed: the arguments of train.py, what its run is known by, and where that is.

    Attributes:
        finished: The newest finished run, if there is one.
        interrupted: Otherwise the newest that can be resumed.
        stopped: Otherwise the newest whose training stopped by itself, as its loss became nan; it may be resumable.
    """

    table: str
    row: str
    seed: int
    arguments: tuple[str, ...]
    fingerprint: str
    finished: Path | None = None
    interrupted: Path | None = None
    stopped: Path | None = None

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
) -> list[Job]:
    """Every run that a table consists of, seed by seed: all rows with seed 0, then all with seed 1, and so on.

    Args:
        table: The table.
        seeds: How many: 0, 1, ...
        outputs: Where runs are looked for.
        configs: The folder with train.yaml.
        scale: `fixture` for the same on stand-in data; None for the real thing.
        found: `runs.index(outputs)`, if it is known already.

    Raises:
        ValueError: If `seeds` is not positive, or a row names an experiment, an option or a metric that does not exist.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    rows = [row for row in table.rows.values() if row.experiment]
    by_row = [_jobs(table, row, seeds, configs, scale) for row in rows]
    return locate(
        [jobs[seed] for seed in range(seeds) for jobs in by_row], runs.index(outputs) if found is None else found
    )


def _jobs(table: Table, row: Row, seeds: int, configs: Path, scale: str | None) -> list[Job]:
    arguments = (f"experiment={row.experiment}", *row.overrides, *([f"scale={scale}"] if scale else []))
    try:
        by_seed = composed_for_seeds(arguments, range(seeds), configs)
    except ValueError as error:
        raise ValueError(f"{table.name}.yaml: rows.{row.key}: {error}") from error
    check_metrics(table, row, by_seed[0])
    return [
        Job(table.name, row.key, seed, (*arguments, f"seed={seed}"), runs.fingerprint(config))
        for seed, config in by_seed.items()
    ]


def locate(jobs: Sequence[Job], found: Mapping[str, runs.Found]) -> list[Job]:
    """The jobs with the folders of their runs."""
    located = []
    for job in jobs:
        there = found.get(job.fingerprint, runs.Found())
        finished = there.finished[-1] if there.finished else None
        interrupted = there.interrupted[-1] if there.interrupted and not finished else None
        stopped = there.stopped[-1] if there.stopped and not finished else None
        located.append(replace(job, finished=finished, interrupted=interrupted, stopped=stopped))
    return located


def to_do(jobs: Sequence[Job], rows: Collection[str] = ()) -> list[Job]:
    """The jobs that are not finished, of these rows if any are named; one that several rows or tables share, once."""
    first: dict[str, Job] = {}
    for job in jobs:
        if not job.finished and (not rows or job.row in rows):
            first.setdefault(job.fingerprint, job)
    return list(first.values())


def run(
    jobs: Sequence[Job],
    entry: Path,
    outputs: Path,
    at_once: int | None = None,
    say: Callable[[str], None] = print,
    gpus: Sequence[str] = (),
    watch: Callable[[Pace], None] | None = None,
    in_turn: bool = False,
) -> dict[str, str]:
    """Runs the jobs, or goes on with what was interrupted; a failure leaves the others running.

    Args:
        jobs: Such as `to_do` gives.
        entry: The path of train.py.
        outputs: Where the runs go.
        at_once: As in `run_all`, and so the rest.
        say: As in `run_all`.
        gpus: As in `run_all`.
        watch: As in `run_all`.
        in_turn: As in `run_all`.

    Returns:
        What went wrong, in a sentence, by the fingerprint of each job that failed.
    """

    def more(job: Job) -> list[str]:
        # With `reuse` train.py goes on with what was interrupted, and lets no two processes make one run. To find out,
        # it reads the config of every run that there is, which takes longer than a short run; so do pictures.
        short = in_turn and not job.interrupted
        return ["trainer.pictures=false" if short else "reuse=true", f"paths.outputs='{outputs}'"]

    failed = run_all(
        {job.name: [*job.arguments, *more(job)] for job in jobs}, entry, at_once, say, True, gpus, watch, in_turn
    )
    return {job.fingerprint: sentence(failed[job.name]) for job in jobs if job.name in failed}


def sentence(said: str) -> str:
    """What a failed run said last: its error in a sentence, or the last line of a traceback.

    Files are named as seen from the current folder, where they are below it, as the sentence may go into a page.
    """
    lines = [line.strip().replace(f"{Path.cwd()}/", "") for line in said.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or ["it ended without a word"])[-1]
