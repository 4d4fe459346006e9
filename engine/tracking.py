"""Metrics to JSONL always; mirrored to W&B and TensorBoard, neither of which can stop a run."""

from __future__ import annotations

import json
import logging
import math
import netrc
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.distributed import is_main

log = logging.getLogger(__name__)
WANDB_MODES = ("auto", "online", "offline", "disabled")


class Tracker:
    """Writes numbers to `metrics.jsonl` in the run folder and mirrors them.

    Args:
        folder: The run folder.
        config: The resolved config of the run, shown by W&B.
        wandb: `auto` (online when logged in, else offline), `online`, `offline` or `disabled`. The environment
            variable WANDB_MODE goes before `auto`.
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
        self.mirrors: list[_Mirror] = []
        if not is_main():
            return
        mode = _wandb_mode(wandb)
        if mode != "disabled":
            self._mirror("W&B", lambda: _WandB(self.folder, config, mode, project, name))
        if tensorboard:
            self._mirror("TensorBoard", lambda: _TensorBoard(self.folder))

    def log(self, numbers: Mapping[str, float | int | str], step: int) -> None:
        """Appends one line; numbers that are not finite are written as null, since JSON has no word for them."""
        if not is_main():
            return
        line = {"step": step} | {name: _jsonable(value) for name, value in numbers.items()}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._each(lambda mirror: mirror.log(numbers, step))

    def image(self, name: str, path: Path, step: int) -> None:
        """Mirrors a picture of the run folder."""
        self._each(lambda mirror: mirror.image(name, path, step))

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, so that a resumed run does not count them twice."""
        if is_main() and self.file.exists():
            lines = [line for line in self.file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            beside = self.file.with_name(self.file.name + ".writing")
            beside.write_text("".join(kept))
            os.replace(beside, self.file)

    def close(self) -> None:
        """Finishes the mirrors."""
        self._each(lambda mirror: mirror.close())
        self.mirrors = []

    def _mirror(self, name: str, start: Callable[[], _Mirror]) -> None:
        try:
            self.mirrors.append(start())
        except Exception as error:  # a mirror is a convenience: whatever goes wrong in it must not cost a run
            log.warning("no %s for this run (%s: %s); metrics.jsonl has everything", name, type(error).__name__, error)

    def _each(self, call: Callable[[_Mirror], None]) -> None:
        for mirror in list(self.mirrors):
            try:
                call(mirror)
            except Exception as error:  # as above
                log.warning("%s stopped (%s); metrics.jsonl has everything", type(mirror).__name__.strip("_"), error)
                self.mirrors.remove(mirror)


class _Mirror:
    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        raise NotImplementedError

    def image(self, name: str, path: Path, step: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _WandB(_Mirror):
    def __init__(self, folder: Path, config: Mapping[str, Any], mode: str, project: str, name: str | None) -> None:
        import wandb

        identity = folder / "wandb_id.txt"  # a resumed run goes on in the same W&B run
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:12])
        settings = wandb.Settings(silent=True, console="off", init_timeout=30)
        self.wandb = wandb
        self.run = wandb.init(
            project=project, name=name, id=identity.read_text().strip(), resume="allow", dir=str(folder),
            config=dict(config), mode=mode, settings=settings,  # type: ignore[arg-type]
        )  # fmt: skip

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def image(self, name: str, path: Path, step: int) -> None:
        self.run.log({name: self.wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        self.run.finish()


class _TensorBoard(_Mirror):
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

    def close(self) -> None:
        self.writer.close()


def _wandb_mode(wanted: str) -> str:
    """Resolves `auto` without asking anybody: logged in means a key in the environment or in the netrc file."""
    if wanted != "auto":
        return wanted
    chosen = os.environ.get("WANDB_MODE", "").lower()
    if chosen in WANDB_MODES[1:]:
        return chosen
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        file = os.environ.get("NETRC") or str(Path.home() / ".netrc")
        return "online" if netrc.netrc(file).authenticators("api.wandb.ai") else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"


def _jsonable(value: float | int | str) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
