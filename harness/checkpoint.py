"""Checkpoints: saved whole or not at all, loaded without running code, refused by name when broken."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
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
    """Reads a checkpoint on the CPU; `mapped` leaves tensors on disk until they are asked for.

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
    """Loads a state_dict into `part`: a module, an optimizer or anything else that has one; `what` names it.

    Raises:
        CheckpointError: If it was saved by something else; of modules, the first differing names are shown.
    """
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = told(differing(part.state_dict(), state)) if isinstance(part, nn.Module) else str(error)
        raise CheckpointError(
            f"{path} was saved by another {what}: {reason}; resume with the config that the run began with"
        ) from error


def check_data(before: str | None, now: str | None, path: Path) -> None:
    """Raises CheckpointError where the data's fingerprints, as saved and as at hand, are both known and differ."""
    if before is not None and now is not None and before != now:
        raise CheckpointError(
            f"{path} was saved on other data: their fingerprint was {before}, that of the data at hand is {now}; "
            "resume with the data that the run began with (paths.data, data.root)"
        )


def differing(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names that only one of two states has, or whose shapes differ, sorted."""
    shapes = [{name: getattr(value, "shape", None) for name, value in state.items()} for state in (own, other)]
    return sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})


def told(names: Sequence[str]) -> str:
    """How many entries differ, and the first of them."""
    return f"{len(names)} entries differ, first {', '.join(names[:3])}"
