"""Files that are whole or not there, and JSON that every reader takes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from harness.interrupts import deferred, is_interrupt


class WriteError(RuntimeError):
    """A file that could not be written, with its name."""


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls `write(file)` on a binary file beside `path` and renames it, so that `path` is never half written.

    Ctrl-C is heard when the file is there. After a WriteError, as on a full disk, `path` holds what it held before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    try:
        with deferred():
            with beside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        if not isinstance(error, OSError | RuntimeError):  # torch reports a failed write as RuntimeError
            raise
        kept = "; the file of that name from before is unharmed" if path.exists() else ""
        raise WriteError(f"could not write {path} ({error}){kept}; free some space and resume") from error


def write_text(path: Path, text: str) -> None:
    """Writes `text`, whole or not at all; see `write_whole`."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, whole or not at all; see `write_whole` and `to_json`."""
    write_text(path, to_json(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run; a ValueError names one that is truncated or not JSON."""
    try:
        return from_json(path.read_text())
    except (ValueError, OSError) as error:  # ValueError: no JSON, or no text
        raise ValueError(
            f"{path} is truncated or not JSON ({error}); delete that run folder or repeat the run"
        ) from error


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON: a number that is not finite becomes null, and what JSON does not know becomes text."""
    return json.dumps(_finite(value), indent=indent, default=str, allow_nan=False)


def from_json(text: str) -> Any:
    """What `to_json` wrote; the NaN and Infinity of older files are read as None, too."""
    return json.loads(text, parse_constant=lambda _: None)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
