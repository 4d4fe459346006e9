"""What shows a run elsewhere: W&B, in a thread of its own so that nothing there holds up the run, and TensorBoard."""

from __future__ import annotations

import logging
import queue
import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.files import shown
from harness.train.wandb_client import FINISH_SECONDS, INIT_SECONDS, Client, brief

log = logging.getLogger(__name__)
FAILED_SECONDS = 10.0  # to finish with where the run has failed: who interrupts it wants it to end
GRACE_SECONDS = 5.0  # more than the client is told to take, after which it hangs
WAITING = 10_000  # lines that may wait for a client that hangs; what comes then is in metrics.jsonl alone


class WandB:
    """A run's mirror in W&B. Its client works in another thread: `log` and `image` return at once.

    The client is waited for until it has begun, for `INIT_SECONDS`, and at the end, for `FINISH_SECONDS`. Where the
    server cannot be used, or the client's service ends, the run is recorded offline. Whatever goes wrong is a warning.

    Args:
        seconds: As `wandb_seconds` gives them.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        mode: str,
        project: str,
        name: str | None,
        seconds: tuple[float, float | None] = (INIT_SECONDS, FINISH_SECONDS),
    ) -> None:
        init, self.finish_seconds = seconds
        self.client = Client(folder, config, project, name, init, self.finish_seconds)
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...], threading.Event]] = queue.SimpleQueue()
        self._broken = False
        self._lost = 0
        threading.Thread(target=self._work, name="W&B", daemon=True).start()
        if not self._call("begin", mode).wait(init + GRACE_SECONDS):
            log.warning("W&B has not answered within %g s: the run goes on without waiting for it", init)

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Will show the numbers of a step."""
        self._call("log", dict(numbers), step)

    def image(self, name: str, path: Path, step: int) -> None:
        """Will show a picture."""
        self._call("image", name, path, step)

    def model(self, folder: Path, aliases: list[str]) -> None:
        """Keeps a model as an artifact; waits until its files have been read, for they may go then."""
        self._call("model", folder, aliases).wait(self.finish_seconds)

    def close(self, exit_code: int) -> None:
        """Waits until everything is sent, or the time for it is over, and says how to send what was not."""
        limit = None if self.finish_seconds is None else self.finish_seconds + GRACE_SECONDS
        if exit_code:
            limit = FAILED_SECONDS if limit is None else min(limit, FAILED_SECONDS)
        ended = False
        try:
            ended = self._call("close", exit_code).wait(limit)
        finally:
            if not ended:
                self._broken = True
                self.client.give_up()
            if unsent := self.client.unsent:
                folders = " ".join(shlex.quote(shown(path)) for path in unsent)
                # Without the option it takes runs that were begun offline, and no others.
                log.warning("not all of this run has reached W&B; to send it: wandb sync --include-online %s", folders)
            if self._lost:
                log.warning("%d lines did not get to W&B's client; metrics.jsonl has them", self._lost)

    def _call(self, method: str, *given: Any) -> threading.Event:
        """Leaves a call to the thread; returns what tells when it is over."""
        over = threading.Event()
        if method == "log" and self._calls.qsize() >= WAITING:
            self._lost += 1
        else:
            self._calls.put((method, given, over))
        return over

    def _work(self) -> None:
        while True:
            method, given, over = self._calls.get()
            try:
                if method == "close":
                    self.client.close(given[0], self._broken)
                elif not self._broken:
                    getattr(self.client, method)(*given)
            except BaseException as error:  # SystemExit too, with which W&B tells of a service that was killed
                self._broken = True
                what = "no W&B for this run" if method == "begin" else "W&B stopped"
                log.warning("%s (%s); metrics.jsonl has everything", what, brief(error))
            over.set()
            if method == "close":
                return


class TensorBoard:
    """A run's mirror in the files that TensorBoard reads."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Writes the numbers of a step."""
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, step)

    def image(self, name: str, path: Path, step: int) -> None:
        """Writes a picture."""
        import torchvision

        self.writer.add_image(name, torchvision.io.decode_image(str(path), mode="RGB"), step)

    def model(self, folder: Path, aliases: list[str]) -> None:
        """TensorBoard keeps no models."""

    def close(self, exit_code: int) -> None:
        """Writes what waits to be written."""
        self.writer.close()
