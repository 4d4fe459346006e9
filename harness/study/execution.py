"""Many runs of train.py beside each other, each in a process of its own that need not import torch.

Nothing of one run reaches the next, and a run that dies costs itself alone: see `harness.study.worker`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.device import gpus
from harness.record.reproducibility import CODE

# What takes seconds; the last brings matplotlib.
IMPORTED = ("hydra", "torchvision", "timm", "harness.data.pretrained", "harness.train.trainer", "harness.show.figures")
SERVE = "import sys; sys.path[0] = sys.argv[1]; from harness.study import worker; worker.serve(*sys.argv[2:])"
GRACE_SECONDS = 2.0


class Worker:
    """Runs `entry`, the path of train.py, with one list of arguments after the other.

    What runs print goes into files in `folder`. They see one `gpu`, as CUDA_VISIBLE_DEVICES names it; None changes
    nothing.
    """

    def __init__(self, entry: Path, folder: Path, gpu: str | None = None) -> None:
        self.entry, self.folder, self.output = entry, folder, folder
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
        self._start()

    def _start(self) -> None:
        command, pipe = [sys.executable, "-c", SERVE, str(CODE), str(self.entry), *IMPORTED], subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=self.entry.parent, env=self.environment, stdin=pipe, stdout=pipe, text=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.commands, self.codes = self.process.stdin, self.process.stdout

    def begin(self, arguments: Sequence[str]) -> None:
        """Begins a run; the last one must have ended."""
        if self.process.poll() is not None:
            self._start()
        self.output = self.folder / f"{time.monotonic_ns()}"
        self.output.touch()
        print(json.dumps([str(self.output), *arguments]), file=self.commands, flush=True)

    def end(self) -> tuple[int, str]:
        """Waits for the exit code of the run and what it printed; one that a signal ended says so last."""
        told = self.codes.readline()
        code, said = int(told) if told else self.process.wait() or 1, self.output.read_text(errors="replace")
        if code < 0:
            memory = ", as the system does where memory is short" if code == -signal.SIGKILL else ""
            said += f"\nerror: the run was ended by {signal.Signals(-code).name}{memory}\n"
        return code, said


def close(workers: Sequence[Worker]) -> None:
    """Ends workers, and by Ctrl-C the runs that they still have; a terminal has told these already."""
    for worker in workers:
        with suppress(BrokenPipeError):
            worker.commands.close()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(deadline - time.monotonic(), 0))
        worker.process.terminate()
        worker.process.wait()
        worker.codes.close()


def run_all(runs: Mapping[str, Sequence[str]], entry: Path, at_once: int, keep_going: bool = False) -> dict[str, str]:
    """Runs train.py with each list of arguments, and prints a line when one is done; in a terminal there is a bar.

    They are spread over the GPUs, each seeing one. Without a choice of threads each has one. Ctrl-C ends all of them,
    and is raised.

    Args:
        runs: Arguments of train.py by a name for people.
        entry: The path of train.py.
        at_once: How many run beside each other.
        keep_going: Whether after a failure what has not begun is begun all the same.

    Returns:
        The end of the output of every run that failed, by name.
    """
    waiting, running, failed = list(runs), dict[int, tuple[Worker, str]](), dict[str, str]()
    seen = gpus()
    bar = Progress(
        *(TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()),
        transient=True,
        speed_estimate_period=float("inf"),
    )
    task = bar.add_task("", total=len(runs))
    bar.advance(task, 0)  # from here on the pace is taken
    with TemporaryDirectory() as folder, bar if sys.stdout.isatty() else nullcontext():
        free = [
            Worker(entry, Path(folder), seen[k % len(seen)] if seen else None) for k in range(min(at_once, len(runs)))
        ]
        workers = list(free)
        try:
            while waiting or running:
                while waiting and free:
                    worker, name = free.pop(0), waiting.pop(0)
                    chosen = any(argument.startswith("threads=") for argument in runs[name])
                    worker.begin([*runs[name], *([] if chosen else ["threads=1"])])
                    running[worker.codes.fileno()] = worker, name
                for ended in wait(list(running)):
                    worker, name = running.pop(ended)  # type: ignore[arg-type]  # a descriptor, as it was given
                    code, said = worker.end()
                    free.append(worker)
                    bar.advance(task)
                    _tell(bar, name, code)
                    if code:
                        failed[name] = said[-2000:]
                    if code and not keep_going:
                        waiting.clear()
        finally:
            close(workers)
    return failed


def _tell(bar: Progress, name: str, code: int) -> None:
    (task,) = bar.tasks
    left = f"{timedelta(seconds=task.time_remaining)} left" if task.time_remaining else ""
    words = [f"{task.completed:.0f}/{task.total:.0f}", f"{task.elapsed:4.0f} s", name, "FAILED" if code else "", left]
    print("  " + "  ".join(word for word in words if word), flush=True)
