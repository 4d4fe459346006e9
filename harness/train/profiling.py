"""Where the time of a step goes: a table of its parts, and a trace of a few steps for Perfetto or Chrome."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch.profiler import profile, record_function

from harness.files import write_text

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
PARTS = ("data", "forward", "loss", "backward", "optimizer")
SKIPPED, TIMED, TRACED = 3, 10, 5  # steps, where an epoch has as many

_watching: Profile | None = None


def part_of_step(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Says of a function which of `PARTS` its time belongs to; it costs nothing where nobody watches."""

    def named(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **settings: P.kwargs) -> R:
            if _watching is None:
                return function(*args, **settings)
            with _watching.part(name):
                return function(*args, **settings)

        return call

    return named


class Profile:
    """Watches the first steps of an epoch: times some, with the device at rest between the parts, and traces others.

    Args:
        folder: Receives `trace.json` and `table.txt`.
        device: Where the steps are computed.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps, self.whole, self.timing = 0, 0.0, False

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of an epoch, one by one, as before."""
        global _watching
        count = len(batches) if isinstance(batches, Sized) else SKIPPED + TIMED + TRACED
        skipped = min(SKIPPED, count // 4)
        traced = min(TRACED, max((count - skipped) // 3, 1))
        begin = min(skipped + TIMED, count - traced)  # of the trace
        profiler, coming, end, tracing = profile(), iter(batches), object(), False
        _watching = self
        try:
            for number in itertools.count():
                self.timing = skipped <= number < max(begin, skipped + 1)
                if number == begin:
                    profiler.start()
                    tracing = True
                started = self._now()
                with self.part("data"):
                    batch = next(coming, end)
                if batch is end:
                    break
                yield batch
                if self.timing:
                    self.steps, self.whole = self.steps + 1, self.whole + self._now() - started
                if number == begin + traced - 1:
                    break
        finally:
            self.timing, _watching = False, None
            if tracing:
                profiler.stop()
        if tracing:
            self._write(profiler)
        yield from coming

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside as that of a part."""
        started = self._now()
        with record_function(name):
            yield
        if self.timing:
            self.seconds[name] += self._now() - started

    def table(self) -> str:
        """Milliseconds and share of each part of a step, and of what is in none of them."""
        rest = {"rest": self.whole - sum(self.seconds.values()), "step": self.whole}
        lines = [f"{self.steps} steps on {self.device}", f"{'part':10}{'ms a step':>12}{'share':>8}"]
        for name, seconds in (self.seconds | rest).items():
            lines.append(f"{name:10}{1000 * seconds / self.steps:12.3f}{100 * seconds / self.whole:7.1f}%")
        return "\n".join(lines)

    def _now(self) -> float:
        if self.timing and self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def _write(self, profiler: profile) -> None:
        self.folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
        order = "self_cpu_time_total" if self.device.type == "cpu" else "self_device_time_total"
        operations = profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=40)
        write_text(self.folder / "table.txt", f"{self.table()}\n\n{operations}\n")
        log.info("where the time goes, and a trace of it, are in %s\n%s", self.folder, self.table())
