"""Metrics to JSONL always; mirrored to W&B and TensorBoard, neither of which can stop a run."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from requests.utils import get_netrc_auth
from torch import Tensor

from harness.distributed import is_main
from harness.files import deferred, from_json, is_interrupt, to_json, write_text

log = logging.getLogger(__name__)
WANDB_MODES = ("auto", "online", "offline", "disabled")


class Unread:
    """Numbers of steps that may still be on the device, read all at once: a read waits for the device."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, dict[str, Tensor | float]]] = []

    @torch.no_grad()
    def add(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Keeps numbers, or tensors of one number each, as they are now."""
        kept: dict[str, Tensor | float] = {}
        for name, value in numbers.items():
            if isinstance(value, Tensor):
                kept[name] = value.clone() if value.ndim == 0 else value.reshape(()).clone()
            else:
                kept[name] = float(value)
        self._kept.append((step, kept))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """The step and the numbers of each time that some were kept since the last read."""
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for _, kept in self._kept:
            for value in kept.values():
                if isinstance(value, Tensor):
                    kinds.setdefault((value.device, value.dtype), []).append(value)
        values = {kind: iter(torch.stack(tensors).tolist()) for kind, tensors in kinds.items()}
        found = [
            (step, {k: float(next(values[v.device, v.dtype]) if isinstance(v, Tensor) else v) for k, v in kept.items()})
            for step, kept in self._kept
        ]
        self._kept = []
        return found


class Means:
    """Means of named numbers, each over the times that it was given."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[float, int]] = {}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Counts each number once."""
        for name, value in numbers.items():
            total, count = self._given.get(name, (0.0, 0))
            self._given[name] = total + value, count + 1

    def values(self) -> dict[str, float]:
        """The mean of every name given so far."""
        return {name: total / count for name, (total, count) in self._given.items()}


class Tracker:
    """Writes numbers to `metrics.jsonl` in the run folder and mirrors them.

    Args:
        folder: The run folder.
        config: The resolved config of the run, shown by W&B.
        wandb: `auto` (online when logged in, else offline), `online` (the same, with a warning), `offline` or
            `disabled`. The environment variable WANDB_MODE goes before `auto`. Nobody is ever asked to log in.
        project: W&B project.
        name: W&B run name.
        tensorboard: Whether to write TensorBoard events too.

    Raises:
        ValueError: If `wandb` is none of its modes.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        wandb: str = "auto",
        project: str = "blackbox-ranking",
        name: str | None = None,
        tensorboard: bool = False,
    ) -> None:
        if wandb not in WANDB_MODES:
            raise ValueError(f"wandb must be one of {', '.join(WANDB_MODES)}, got {wandb!r}")
        self.folder = Path(folder)
        self.file = self.folder / "metrics.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mirrors: list[_WandB | _TensorBoard] = []
        if not is_main():
            return
        mode = _wandb_mode(wandb)
        if mode != "disabled":
            with _harmless("no W&B for this run"):
                self.mirrors.append(_WandB(self.folder, config, mode, project, name))
        if tensorboard:
            with _harmless("no TensorBoard for this run"):
                self.mirrors.append(_TensorBoard(self.folder))

    def log(self, numbers: Mapping[str, float | int | str], step: int) -> None:
        """Appends one line; numbers that are not finite are written as null."""
        if not is_main():
            return
        with deferred(), self.file.open("a") as file:  # a line is written whole
            file.write(to_json({"step": step, **numbers}) + "\n")
        self._mirror("log", numbers, step)

    def image(self, name: str, path: Path, step: int) -> None:
        """Mirrors a picture of the run folder."""
        self._mirror("image", name, path, step)

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, so that a resumed run does not count them twice."""
        if is_main() and self.file.exists():
            lines = [line for line in self.file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if from_json(line)["step"] <= step]
            write_text(self.file, "".join(kept))

    def close(self, exit_code: int = 0) -> None:
        """Finishes the mirrors; with an `exit_code` other than 0 they show the run as failed, where they can."""
        self._mirror("close", exit_code)
        self.mirrors = []

    def _mirror(self, method: str, *given: Any) -> None:
        going = []
        for mirror in self.mirrors:
            with _harmless(f"{type(mirror).__name__.strip('_')} stopped"):
                getattr(mirror, method)(*given)
                going.append(mirror)
        self.mirrors = going


@contextmanager
def _harmless(said: str) -> Iterator[None]:
    """A mirror is a convenience: whatever goes wrong in it costs a warning, and never the run."""
    try:
        yield
    except Exception as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        log.warning("%s (%s: %s); metrics.jsonl has everything", said, type(error).__name__, error)


class _WandB:
    def __init__(self, folder: Path, config: Mapping[str, Any], mode: str, project: str, name: str | None) -> None:
        import wandb

        identity = folder / "wandb_id.txt"  # a resumed run goes on in the same W&B run
        if not identity.exists():
            write_text(identity, uuid.uuid4().hex[:12])
        settings = wandb.Settings(silent=True, console="off", init_timeout=30)
        if hasattr(settings, "finish_timeout"):  # newer versions only; without it a lost connection holds up the report
            settings.finish_timeout = 120
        self.wandb = wandb
        self.run = wandb.init(
            project=project, name=name, id=identity.read_text().strip(), resume="allow", dir=str(folder),
            config=dict(config), mode=mode, settings=settings,  # type: ignore[arg-type]
        )  # fmt: skip

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def image(self, name: str, path: Path, step: int) -> None:
        self.run.log({name: self.wandb.Image(str(path))}, step=step)

    def close(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, step)

    def image(self, name: str, path: Path, step: int) -> None:
        import torchvision

        self.writer.add_image(name, torchvision.io.decode_image(str(path), mode="RGB"), step)

    def close(self, exit_code: int) -> None:
        self.writer.close()


def _wandb_mode(wanted: str) -> str:
    """Resolves `auto`, and `online` where nobody is logged in: W&B would ask on a terminal and hold up the run."""
    if wanted == "auto":
        chosen = os.environ.get("WANDB_MODE", "").lower()
        wanted = chosen if chosen in WANDB_MODES else "auto"
    if wanted in ("offline", "disabled"):
        return wanted
    keys = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    if keys or get_netrc_auth(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"):
        return "online"
    if wanted == "online":
        log.warning(
            "nobody is logged in to W&B, so this run is recorded offline; run `wandb login` or set WANDB_API_KEY"
        )
    return "offline"
