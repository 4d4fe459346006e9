"""Metrics to JSONL always; mirrored to W&B and TensorBoard, neither of which can stop a run."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.distributed import is_main
from harness.files import from_json, read_json, sync, to_json, write_whole, writing
from harness.interrupts import deferred
from harness.train.mirrors import TensorBoard, WandB
from harness.train.wandb_client import WANDB_MODES, harmless, wandb_mode, wandb_seconds

ARTIFACTS = ("none", "best", "all")


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
            `disabled`. The environment variable WANDB_MODE goes before `auto`. Nobody is ever asked to log in. A server
            that cannot be used costs a bounded wait, see `wandb_seconds`.
        project: W&B project.
        name: W&B run name.
        tensorboard: Whether to write TensorBoard events too.
        artifact: Which trained models W&B keeps as versions of the artifact `model-<id of its run>`, with their
            numbers: `none`, `best`, the model that the run leaves, or `all`, that and the last one. Their aliases are
            `best` and `last`.

    Raises:
        ValueError: If `wandb` is none of its modes, or `artifact` none of its choices, or as `wandb_seconds`.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        wandb: str = "auto",
        project: str = "blackbox-ranking",
        name: str | None = None,
        tensorboard: bool = False,
        artifact: str = "none",
    ) -> None:
        if artifact not in ARTIFACTS:
            raise ValueError(f"artifact must be one of {', '.join(ARTIFACTS)}, got {artifact!r}")
        if wandb not in WANDB_MODES:
            raise ValueError(f"wandb must be one of {', '.join(WANDB_MODES)}, got {wandb!r}")
        self.artifact, self.folder = artifact, Path(folder)
        self.file = self.folder / "metrics.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sum = hashlib.sha256()
        self.mirrors: list[WandB | TensorBoard] = []
        if not is_main():
            return
        mode = wandb_mode(wandb)
        if mode != "disabled":
            self.mirrors.append(WandB(self.folder, config, mode, project, name, wandb_seconds()))
        if tensorboard:
            with harmless("no TensorBoard for this run"):
                self.mirrors.append(TensorBoard(self.folder))

    def log(self, numbers: Mapping[str, float | int | str], step: int) -> None:
        """Appends one line; numbers that are not finite are written as null. WriteError: if there is no room."""
        if not is_main():
            return
        # Of a line that is cut off, readers and a resumed run know.
        with writing(self.file), deferred(), self.file.open("a") as file:  # a line is written whole
            file.write(line := to_json({"step": step, **numbers}) + "\n")
        self._sum.update(line.encode())
        self._mirror("log", numbers, step)

    def sum(self) -> str:
        """sha256 of what `metrics.jsonl` holds; a checkpoint and the report keep it, for no line has one of its own."""
        return self._sum.hexdigest()

    def sync(self) -> None:
        """Has what was logged on the disk, also if the power fails."""
        sync(self.file)

    def image(self, name: str, path: Path, step: int) -> None:
        """Mirrors a picture of the run folder."""
        self._mirror("image", name, path, step)

    def model(self, saved: Path, epoch: int | None, write_last: Callable[[Path], Any]) -> None:
        """Mirrors the trained model in the folder `saved`, and another if `artifact` asks for it.

        Args:
            saved: As `harness.record.standalone` writes it.
            epoch: The last one; where `saved` is of that epoch, both are the same.
            write_last: Writes the last model into a folder.
        """
        if self.artifact == "none" or not self.mirrors:
            return
        same = read_json(saved / "model.json")["epoch"] == epoch
        self._mirror("model", saved, ["best", "last"] if same else ["best"])
        if self.artifact == "all" and not same:
            with tempfile.TemporaryDirectory() as folder, harmless("the last model is no artifact"):
                write_last(Path(folder))
                self._mirror("model", Path(folder), ["last"])

    def rewind(self, step: int, known: str | None = None) -> None:
        """Drops the lines after `step`, so that a resumed run does not count them twice.

        Args:
            known: Their `sum` when the checkpoint was written; None: earlier versions kept none.

        Raises:
            ValueError: If what remains is not what was written.
        """
        if not is_main() or not self.file.exists():
            return
        lines = [line for line in self.file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        kept = self._up_to(step, lines) if known is None else self._as_known(known, lines)
        if kept is None:
            raise ValueError(
                f"{self.file} is damaged: up to step {step} it is not what the run wrote; take a copy from elsewhere, "
                "or move it away to go on without what it says of those steps"
            )
        self._sum = hashlib.sha256(kept)
        write_whole(self.file, lambda file: file.write(kept))

    @staticmethod
    def _up_to(step: int, lines: Sequence[bytes]) -> bytes | None:
        """The lines up to a step, None if one is not what a run writes."""
        try:
            return b"".join(line for line in lines if from_json(line.decode())["step"] <= step)
        except (ValueError, TypeError, LookupError):
            return None

    @staticmethod
    def _as_known(known: str, lines: Sequence[bytes]) -> bytes | None:
        """The first lines, as many as have this sum; None if there are no such."""
        found = hashlib.sha256()
        for number, line in enumerate([b"", *lines]):
            found.update(line)
            if found.hexdigest() == known:
                return b"".join(lines[:number])
        return None

    def close(self, exit_code: int = 0) -> None:
        """Finishes the mirrors; with an `exit_code` other than 0 they show the run as failed, where they can."""
        self._mirror("close", exit_code)
        self.mirrors = []

    def _mirror(self, method: str, *given: Any) -> None:
        going = []
        for mirror in self.mirrors:
            with harmless(f"{type(mirror).__name__} stopped"):
                getattr(mirror, method)(*given)
                going.append(mirror)
        self.mirrors = going
