"""Checkpoints: saved whole or not at all, loaded without running code, refused by name when broken."""

from __future__ import annotations

import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from harness.files import write_whole

WAY_OUT = "; use an older one"
LAST, PREVIOUS = "last.pt", "previous.pt"  # of a run: what it goes on from, and what that was an epoch before

_PIECE = 2**20  # bytes
_DAMAGED = (
    RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    LookupError, ValueError, OSError,
)  # fmt: skip


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or used, with its file's name."""


def save(path: Path, state: dict[str, Any], kept: Path | None = None) -> None:
    """Writes `state` (tensors and plain values) to `path`, whole or not at all; see `write_whole`, also of `kept`."""
    write_whole(path, lambda file: torch.save(state, file), kept)


class Newest(NamedTuple):
    """The newest sound checkpoint of a run: its file, what it holds, and what is wrong with `LAST` if it is another."""

    path: Path
    state: dict[str, Any]
    fault: CheckpointError | None


def is_there(folder: Path) -> bool:
    """Whether the folder of checkpoints holds one to go on from."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def newest(folder: Path, mapped: bool = False) -> Newest:
    """Reads the last checkpoint in `folder`, or the one before it if that is damaged or gone; see `load`.

    Raises:
        CheckpointError: If the last is damaged, and the one before it is too or is not there.
        FileNotFoundError: If there is none.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.is_file() and previous.is_file():  # killed between two renames, or somebody removed it
        return Newest(previous, load(previous, mapped), None)
    try:
        return Newest(last, load(last, mapped), None)
    except CheckpointError as fault:
        try:
            return Newest(previous, load(previous, mapped), fault)
        except (CheckpointError, FileNotFoundError):
            raise fault from None


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Reads a checkpoint on the CPU; `mapped` leaves tensors on disk until they are asked for, and does not check them.

    A CheckpointError says if it is truncated, damaged, no checkpoint, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        _check_sums(path, tensors=not mapped)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({reason}){WAY_OUT}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, wanted the dict that a run saves")
    return state


def check(path: Path) -> None:
    """Raises CheckpointError if what is in a checkpoint is not what was written there."""
    try:
        _check_sums(path)
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); take a copy from elsewhere, or move it away to go on without that model"
        ) from error


def _check_sums(path: Path, tensors: bool = True) -> None:
    """Reads each entry of the zip archive that a checkpoint is, against its CRC-32, at which torch does not look."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if tensors or "/data/" not in entry.filename:
                with archive.open(entry) as content:
                    while content.read(_PIECE):
                        pass


def names(folder: Path) -> list[str]:
    """The checkpoints in a folder that a user may ask for: without `previous`, which is kept for `last` alone."""
    return sorted(path.stem for path in folder.glob("*.pt") if path.name != PREVIOUS)


def restore(part: Any, state: dict[str, Any], path: Path, what: str) -> None:
    """Loads a state_dict into `part`: a module, an optimizer or anything else that has one; `what` names it.

    A CheckpointError says if it was saved by something else.
    """
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = told(differing(part.state_dict(), state)) if isinstance(part, nn.Module) else str(error)
        raise CheckpointError(
            f"{path} was saved by another {what}: {reason}; resume with the config and the code that the run began with"
        ) from error


def check_data(before: str | None, now: str | None, path: Path) -> None:
    """Raises CheckpointError where the data's fingerprints, as saved and as at hand, are both known and differ."""
    if before is not None and now is not None and before != now:
        raise CheckpointError(
            f"{path} was saved on other data: their fingerprint was {before}, that of the data at hand is {now}; "
            "give the data that the run began with (paths.data, data.root or --data-root)"
        )


def differing(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """Of the names that only one of two states has, or whose shapes differ: what is wrong with that of the other."""
    shapes, theirs = ({n: tuple(getattr(v, "shape", ())) for n, v in state.items()} for state in (own, other))
    found = {}
    for name in sorted(shapes.keys() | theirs.keys()):
        if name not in theirs:
            found[name] = f"{name} is missing"
        elif name not in shapes:
            found[name] = f"{name} is not in the network"
        elif theirs[name] != shapes[name]:
            found[name] = f"{name} has shape {theirs[name]} instead of {shapes[name]}"
    return found


def told(found: Mapping[str, str]) -> str:
    """How many entries differ, and the first of them."""
    more = ", ..." if len(found) > 3 else ""
    return f"{len(found)} entries differ: {', '.join(list(found.values())[:3])}{more}"
