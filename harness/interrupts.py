"""Ctrl-C and SIGTERM, which end a run at any moment with one sentence; light, as it is imported before all else."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 3.0  # for so long the same wish is not heard again: a launcher, or a hand, often sends several

_heard: list[tuple[int, float]] = []  # number and time of what was raised


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: a batch system, or whoever started the process, asks it to end."""


def leave_at_once() -> None:
    """Until `answer` is called, lets Ctrl-C and SIGTERM end the process with a sentence: nothing is begun yet."""
    _take(_leave)


def answer() -> None:
    """Lets Ctrl-C and SIGTERM raise an exception, unless somebody, such as a cluster's launcher, answers them already.

    Where Python can raise to nobody, as in a `__del__`, it would tell a trace and go on; then `raise_lost` raises it.
    """
    if _take(_raise):
        sys.unraisablehook = _tell_others


def _take(handler: Any) -> bool:
    """Sets the handler of the signals that nobody else answers, as far as this is the main thread."""
    free = (signal.SIG_DFL, signal.default_int_handler, _leave)
    with suppress(ValueError):
        for number in SIGNALS:
            if signal.getsignal(number) in free:
                signal.signal(number, handler)
        return True
    return False


def _leave(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes one tells it
        os.write(1, b"\ninterrupted\n")
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    if _heard and time.monotonic() - _heard[-1][1] < AGAIN_SECONDS:
        return
    _heard.append((number, time.monotonic()))
    # Loading processes that were told too end now, and torch would raise that in the midst of what is done about it.
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    raise_lost()


def raise_lost() -> None:
    """Raises the interrupt that was heard, if there was one and somebody took its exception for nothing."""
    if _heard:
        raise TerminatedError if _heard[0][0] == signal.SIGTERM else KeyboardInterrupt


def _tell_others(unraisable: Any) -> None:
    if not (_heard and issubclass(unraisable.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)


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
    if _heard:
        return 128 + _heard[0][0]
    while error is not None:
        if isinstance(error, TerminatedError):
            return 128 + signal.SIGTERM
        error = error.__cause__ or error.__context__
    return 128 + signal.SIGINT


@contextmanager
def deferred() -> Iterator[None]:
    """Holds back the signals that Python code answers to, and lets the last of them through once the block is over.

    A signal that ends the process by itself, as SIGTERM does unless somebody asked for it, still does. A process that
    is forked inside hears them no more.
    """
    held: list[tuple[int, FrameType | None]] = []
    answers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        with suppress(ValueError):  # outside the main thread, where no signal arrives
            for number in answers:
                signal.signal(number, lambda number, frame: held.append((number, frame)))
        yield
    finally:
        with suppress(ValueError):
            for number, handler in answers.items():
                signal.signal(number, handler)
        if held:
            last, frame = held[-1]
            answers[signal.Signals(last)](last, frame)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether `error` is Ctrl-C, or what came of it, as torch's writer makes a RuntimeError."""
    if _heard:
        return True
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
