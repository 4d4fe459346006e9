"""Checkpoints: saved whole or not at all, loaded without running code, refused by name when broken."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.files import write_whole


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or used, with its file's name."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) to `path`, whole or not at all; see `write_whole`."""
    write_whole(path, lambda file: torch.save(state, file))


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Reads a checkpoint on the CPU.

    Args:
        path: The file.
        mapped: Whether tensors stay on disk until they are asked for, so that a look at a number costs nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is truncated, is no checkpoint, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({reason}); use an older one") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, wanted the dict that a run saves")
    return state


def restore(part: Any, state: dict[str, Any], path: Path, what: str) -> None:
    """Loads `state` into `part`.

    Args:
        part: Receives the state: a module, an optimizer or anything else that has a state_dict.
        state: Its state_dict.
        path: Where it came from, for the message.
        what: "model", "loss", "optimizer", ..., for the message.

    Raises:
        CheckpointError: If it was saved by something else; of modules, the first differing names are shown.
    """
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = _differences(part, state) if isinstance(part, nn.Module) else str(error)
        raise CheckpointError(
            f"{path} was saved by another {what}: {reason}; resume with the config that the run began with"
        ) from error


def check_data(before: str | None, now: str | None, path: Path) -> None:
    """Refuses to go on with other data than a run began with.

    Args:
        before: Fingerprint of the data, as saved; None if they had none.
        now: Fingerprint of the data at hand, likewise.
        path: The checkpoint, for the message.

    Raises:
        CheckpointError: If both are known and differ.
    """
    if before is not None and now is not None and before != now:
        raise CheckpointError(
            f"{path} was saved on other data: their fingerprint was {before}, that of the data at hand is {now}; "
            "resume with the data that the run began with (paths.data, data.root)"
        )


def _differences(module: nn.Module, state: dict[str, Any]) -> str:
    ours = {name: getattr(value, "shape", None) for name, value in module.state_dict().items()}
    theirs = {name: getattr(value, "shape", None) for name, value in state.items()}
    names = sorted(ours.keys() | theirs.keys())
    differing = [n for n in names if n not in ours or n not in theirs or ours[n] != theirs[n]]
    return f"{len(differing)} entries differ, first {', '.join(differing[:3])}"
