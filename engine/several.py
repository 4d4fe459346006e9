"""Several runs of train.py beside each other, as many as there are cores, one thread each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path


def run_all(
    runs: Mapping[str, Sequence[str]],
    entry: Path,
    at_once: int | None = None,
    say: Callable[[str], None] = print,
    keep_going: bool = False,
) -> dict[str, str]:
    """Runs train.py with each list of arguments and says when each is done.

    Args:
        runs: Arguments of train.py by a name for people.
        entry: The path of train.py.
        at_once: How many run beside each other; default: one for each core.
        say: Receives a line for each run that ends.
        keep_going: Whether a failure leaves the others running; otherwise what has not begun is not begun.

    Returns:
        The end of the output of every run that failed, by name.
    """
    at_once = min(len(runs), at_once or os.cpu_count() or 1)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started, failed = time.perf_counter(), dict[str, str]()

    def train(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(entry), *arguments, "threads=1"]
        return subprocess.run(command, cwd=entry.parent, env=environment, capture_output=True, text=True)

    pool = ThreadPoolExecutor(max(at_once, 1))
    try:
        jobs = {pool.submit(train, arguments): name for name, arguments in runs.items()}
        for done, job in enumerate(as_completed(jobs), start=1):
            result = job.result()
            word = "" if result.returncode == 0 else "  FAILED"
            say(f"  {done}/{len(runs)}  {time.perf_counter() - started:4.0f} s  {jobs[job]}{word}")
            if result.returncode:
                failed[jobs[job]] = (result.stdout + result.stderr)[-2000:]
                if not keep_going:
                    break
        pool.shutdown(wait=True, cancel_futures=True)
    finally:  # whatever ends this, Ctrl-C included, begins nothing more
        pool.shutdown(wait=False, cancel_futures=True)
    return failed


def train_seeds(
    experiment: str,
    methods: Mapping[str, Sequence[str]],
    seeds: int,
    folder: Path,
    overrides: Sequence[str],
    entry: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Trains every method of a demo with seeds 0, 1, ... into `folder`.

    Args:
        experiment: What all of them run.
        methods: What each changes, by its name.
        seeds: How many.
        folder: Where the runs go.
        overrides: What is changed for all.
        entry: The path of train.py.
        say: Receives a line for each run that ends.

    Raises:
        SystemExit: If one fails; with the end of what it said.
    """
    runs = {
        f"{name}, seed {seed}": [
            f"experiment={experiment}", *chosen, f"seed={seed}", f"paths.outputs='{folder}'",
            "tracking.wandb=disabled", *overrides,
        ]
        for seed in range(seeds)
        for name, chosen in methods.items()
    }  # fmt: skip
    say(f"{len(runs)} short trainings; each is python train.py experiment={experiment}")
    for name, said in run_all(runs, entry, say=say).items():
        raise SystemExit(f"{name} failed:\n{said}")
