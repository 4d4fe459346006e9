"""Files that are whole or not there, also where Ctrl-C comes in between, and JSON that every reader takes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from harness import disk
from harness.interrupts import deferred, is_interrupt

UNFINISHED = ".writing"  # how the names of files end that are being written, or whose writer was killed
DAY = 24 * 3600
SUM = "sha256"  # the last key of a record, of all the others


class WriteError(OSError):
    """A file that could not be written, in a sentence with its name."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises a WriteError for `path` where the system, or torch's writer, fails inside."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise WriteError(disk.unwritten(path, error)) from error


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], kept: Path | None = None) -> None:
    """Calls `write(file)` on a binary file beside `path` and renames it, so that `path` is never half written.

    File and name are on the disk then, also if the power fails. What `path` held before is in `kept` afterwards, if
    that is given. Ctrl-C is heard when the file is there. After a WriteError, as on a full disk, `path` holds what it
    held before.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        with deferred():
            with beside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if kept is not None and path.exists():
                _call_too(path, kept)
            replace(beside, path)
    except BaseException as error:
        if beside is not None:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        if not isinstance(error, OSError | RuntimeError):  # torch reports a failed write as RuntimeError
            raise
        raise WriteError(disk.unwritten(path, error)) from error


def _beside(path: Path) -> Path:
    """A name of its own for each writer of `path`; what those that were killed left there a day ago goes."""
    for left in path.parent.glob(f"*{UNFINISHED}"):
        if left.name.startswith(f"{path.name[:40]}."):
            with suppress(OSError):  # somebody else was faster
                if left.stat().st_mtime < time.time() - DAY:
                    remove(left)
    return path.with_name(f"{path.name[:40]}.{uuid.uuid4().hex[:12]}{UNFINISHED}")


def clear_unfinished(*folders: Path) -> None:
    """Removes what killed writers left in these folders, not below; for whoever knows that nobody is writing there."""
    for folder in folders:
        for left in folder.glob(f"*{UNFINISHED}"):
            remove(left)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _call_too(path: Path, kept: Path) -> None:
    """Gives a file the second name `kept`, which it keeps when another takes its first; that one stays meanwhile."""
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        os.replace(path, kept)


def replace(source: Path, path: Path) -> None:
    """Renames, so that the new name is on the disk, also if the power fails."""
    os.replace(source, path)
    sync(path.parent)


def sync(*paths: Path) -> None:
    """Has files, or the names in folders, on the disk, as far as their file system can be told to."""
    for path in paths:
        with suppress(OSError):
            number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # which waits for no pipe
            try:
                os.fsync(number)
            finally:
                os.close(number)


def sync_everything() -> None:
    """Has whatever was written so far on the disk: sooner than `sync` where that is very many files."""
    getattr(os, "sync", lambda: None)()


def check_free(path: Path, force: bool = False) -> None:
    """Refuses a path where something is, but an empty folder, unless it may be written over."""
    if not force and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} is there already; choose another --out, or add --force to write over it")


@contextmanager
def whole_folder(path: Path, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `path` when the block is over, and goes if it fails.

    With `force`, files of a folder that is there make room for those of their names, one by one; others stay.
    """
    check_free(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        with deferred():
            sync(*beside.rglob("*"), beside)
            for file in sorted(beside.rglob("*")) if path.exists() else ():
                if file.is_file():
                    (path / file.relative_to(beside)).parent.mkdir(parents=True, exist_ok=True)
                    replace(file, path / file.relative_to(beside))
            if not path.exists():
                replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def shown(path: str | Path) -> str:
    """As seen from the current folder, where it is below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)


def write_text(path: Path, text: str) -> None:
    """Writes `text`, whole or not at all; see `write_whole`."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, whole or not at all; see `write_whole` and `to_json`."""
    write_text(path, to_json(value, indent=1) + "\n")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """As `write_json`, with the sha256 of all keys as the last one, by which `read_json` finds any damage."""
    write_json(path, {**record, SUM: sum_of(to_json(record))})


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run; of what `write_record` wrote, the record.

    Raises:
        ValueError: If it is truncated, not JSON, or not what was written; with its name.
    """
    try:
        value = from_json(path.read_text())
    except (ValueError, OSError) as error:  # ValueError: no JSON, or no text
        raise ValueError(
            f"{path} is truncated or not JSON ({error}); delete that run folder or repeat the run"
        ) from error
    written = value.pop(SUM, None) if isinstance(value, dict) else None
    if isinstance(written, str) and written != sum_of(to_json(value)):
        raise ValueError(
            f"{path} is damaged: it is not what was written there; take a copy from elsewhere or repeat the run (if "
            f'you changed it yourself, remove "{SUM}" from it)'
        )
    return value


def sum_of(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON: a number that is not finite becomes null, and what JSON does not know becomes text."""
    try:
        return json.dumps(value, default=str, indent=indent, allow_nan=False)
    except ValueError:  # what is not finite
        return json.dumps(from_json(json.dumps(value, default=str)), indent=indent)


def from_json(text: str) -> Any:
    """What a JSON text says, with None for the NaN and Infinity that JSON does not know; else a ValueError."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
