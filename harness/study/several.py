"""Several runs of train.py beside each other, as many as there are cores or GPUs, one thread each."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from harness import words
from harness.device import cores, gpus
from harness.study.in_turn import InTurn


class Pace:
    """How far several runs are, and how long the rest will take, judged by the lines that they print.

    All runs are taken to be equally long, so the estimate is rough where they are not.

    Args:
        names: Of the runs.
        clock: The time in seconds.
    """

    def __init__(self, names: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.started = clock, clock()
        self.parts = dict.fromkeys(names, 0.0)  # how much of each is done
        self.earlier = dict.fromkeys(names, 0.0)  # how much of each was done before this began

    def hear(self, name: str, line: str) -> None:
        """Takes from a line of run `name` how far it is: "epoch 3/12 ...", or "resumed after epoch 2 of 12"."""
        if found := re.search(r"\bresumed after epoch (\d+) of (\d+)", line):
            self.earlier[name] = self.parts[name] = int(found[1]) / max(int(found[2]), 1)
        elif found := re.search(r"\bepoch (\d+)/(\d+)  loss", line):
            self.parts[name] = max(self.parts[name], int(found[1]) / max(int(found[2]), 1))

    def end(self, name: str) -> None:
        """Run `name` is over, however it ended."""
        self.parts[name] = 1.0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds until all are done, at the pace so far; None before anything has been heard."""
        done = sum(self.parts.values()) - sum(self.earlier.values())
        left = len(self.parts) - sum(self.parts.values())
        return self.elapsed * left / done if done > 0 else None

    @property
    def left(self) -> str:
        """The remaining time in words; empty if it is not known or nothing remains."""
        seconds = self.remaining
        if not seconds:
            return ""
        for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
            if seconds >= 1.5 * size:
                return f"about {seconds / size:.0f} {unit} left"
        return "about a minute left" if seconds > 30 else "under a minute left"


def default_at_once() -> int:
    """How many runs go beside each other: one for each GPU, or without any one for each core."""
    return len(gpus()) or cores()


def run_all(
    runs: Mapping[str, Sequence[str]],
    entry: Path,
    at_once: int | None = None,
    say: Callable[[str], None] = print,
    keep_going: bool = False,
    watch: Callable[[Pace], None] | None = None,
    in_turn: bool = False,
) -> dict[str, str]:
    """Runs train.py with each list of arguments and says when each is done.

    Args:
        runs: Arguments of train.py by a name for people. Without a choice of threads each run has one.
        entry: The path of train.py.
        at_once: How many run beside each other; default: `default_at_once`. They are spread over the GPUs, each seeing
            one.
        say: Receives a line for each run that ends.
        keep_going: Whether a failure leaves the others running; otherwise what has not begun is not begun.
        watch: Receives the pace whenever it may have changed, from several threads.
        in_turn: Whether runs share a Python each, one after the other, which spares the seconds of importing; for runs
            so short that nobody asks for their memory.

    Returns:
        The end of the output of every run that failed, by name.
    """
    at_once, seen = min(len(runs), at_once or default_at_once()), gpus()
    pythons = [
        InTurn(entry, _environment(seen[k % len(seen)] if seen else None), fresh=not in_turn) for k in range(at_once)
    ]
    places: SimpleQueue[InTurn] = SimpleQueue()
    for python in pythons:
        places.put(python)
    pace, failed = Pace(list(runs)), dict[str, str]()

    def train(name: str) -> tuple[int, str]:
        place = places.get()
        try:
            return _train(runs[name], place, lambda line: heard(name, line))
        finally:
            places.put(place)

    def heard(name: str, line: str | None) -> None:
        pace.end(name) if line is None else pace.hear(name, line)
        if watch is not None:
            watch(pace)

    pool = ThreadPoolExecutor(max(at_once, 1))
    try:
        jobs = {pool.submit(train, name): name for name in runs}
        for done, job in enumerate(as_completed(jobs), start=1):
            name, (code, said) = jobs[job], job.result()
            heard(name, None)
            words = [f"{done}/{len(runs)}", f"{pace.elapsed:4.0f} s", name, "FAILED" if code else "", pace.left]
            say("  " + "  ".join(word for word in words if word))
            if code:
                failed[name] = said
                if not keep_going:
                    break
        pool.shutdown(wait=True, cancel_futures=True)
    finally:  # whatever ends this, Ctrl-C included, begins nothing more
        pool.shutdown(wait=False, cancel_futures=True)
        for python in pythons:
            python.close()
    return failed


def _train(arguments: Sequence[str], python: InTurn, hear: Callable[[str], None]) -> tuple[int, str]:
    """Exit code and the end of what was printed."""
    threads = [] if any(argument.startswith("threads=") for argument in arguments) else ["threads=1"]
    said: deque[str] = deque(maxlen=100)

    def heard(line: str) -> None:
        said.append(line)
        hear(line)

    code = python.run([*arguments, *threads], heard)
    return code, "".join(said)[-2000:]


def _environment(gpu: str | None) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})


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
            f"experiment={experiment}", *chosen, f"seed={seed}", words.override("paths.outputs", folder),
            "tracking.wandb=disabled", *overrides,
        ]
        for seed in range(seeds)
        for name, chosen in methods.items()
    }  # fmt: skip
    say(f"{len(runs)} short trainings; each is python train.py experiment={experiment}")
    for name, said in run_all(runs, entry, cores(), say).items():  # too small to fill a GPU
        raise SystemExit(f"{name} failed:\n{said}")
