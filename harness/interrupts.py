"""Ctrl-C at a moment that must not be cut in two: held until a write is done, and never taken for a fault."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
