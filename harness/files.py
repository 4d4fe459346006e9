"""Files that are whole or not there, also where Ctrl-C comes in between, and JSON that every reader takes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    beside = path.with_name(path.name + ".writing")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        with deferred():
            for file in sorted(beside.rglob("*")) if path.exists() else ():
                if file.is_file():
                    (path / file.relative_to(beside)).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, path / file.relative_to(beside))
            if not path.exists():
                os.replace(beside, path)
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


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: a batch system, or whoever started the process, asks it to end."""


def answer_sigterm() -> None:
    """Lets SIGTERM end a run as Ctrl-C does, unless somebody, such as a cluster's launcher, answers it already."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    with suppress(ValueError):  # outside the main thread, where no signal arrives
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, end)


def hear_no_more() -> None:
    """Ignores further signals once an interrupt is answered, while the process ends: a launcher often sends several.

    One that came while the processes of a loader are waited for would be raised in its `__del__`, and be told there
    with a trace.
    """
    with suppress(ValueError):  # outside the main thread, where no signal arrives
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def exit_status(error: BaseException | None) -> int:
    """What a process that `error` interrupted exits with: 143 after SIGTERM, 130 after Ctrl-C."""
    while error is not None:
        if isinstance(error, TerminatedError):
            return 128 + signal.SIGTERM
        error = error.__cause__ or error.__context__
    return 128 + signal.SIGINT


@contextmanager
def deferred() -> Iterator[None]:
    """Holds back the signals that Python code answers to, and lets the last of them through once the block is over.

    A signal that ends the process by itself, as SIGTERM does unless somebody asked for it, still does.
    """
    held: list[tuple[int, FrameType | None]] = []
    answers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    with suppress(ValueError):  # outside the main thread, where no signal arrives
        for number in answers:
            signal.signal(number, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        with suppress(ValueError):
            for number, handler in answers.items():
                signal.signal(number, handler)
        if held:
            last, frame = held[-1]
            answers[signal.Signals(last)](last, frame)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether `error` is Ctrl-C, or what a library made of it, as torch's writer makes a RuntimeError."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
