"""Words for a command line: values as Hydra's grammar takes them, lines for a POSIX shell, and what was meant."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# What the grammar takes as a string without quotes.
PLAIN = re.compile(r"(?!(null|true|false|inf|nan)$)([a-z_/]|\.(?!\d))[a-z0-9_/.:+@-]*", re.IGNORECASE | re.ASCII)


def value(given: Any) -> str:
    """`given` for the right side of an override, so that Hydra reads it back as it was."""
    if isinstance(given, Mapping):
        return "{" + ",".join(f"{key}:{value(item)}" for key, item in given.items()) + "}"
    if isinstance(given, list | tuple):
        return f"[{','.join(map(value, given))}]"
    if given is None or isinstance(given, bool):
        return "null" if given is None else str(given).lower()
    text = str(given)
    if isinstance(given, int | float) or PLAIN.fullmatch(text):
        return text
    # A backslash counts for itself, but before what it could escape it is written twice: an interpolation, a quote.
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", escaped)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def override(key: str, given: Any) -> str:
    """`key=value` as one argument of train.py; for people, see `line`."""
    return f"{key}={value(given)}"


def printable(text: str) -> str:
    """`text` for a screen or a log: bytes of a file's name that are no UTF-8, which no stream takes, are spelt out."""
    return text.encode(errors="backslashreplace").decode()


def numbered(count: int, noun: str) -> str:
    """1 seed, 3 seeds."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def alike(name: str, there: Iterable[str]) -> list[str]:
    """What is called almost so, the nearest first."""
    return difflib.get_close_matches(name, sorted(there), n=3)


def nearest(name: str, there: Iterable[str], otherwise: str | None = None) -> str:
    """What is called almost so, as a question; else `otherwise`, or all that there is."""
    names = sorted(there)
    if near := alike(name, names):
        return f"did you mean {' or '.join(near)}?"
    return otherwise or f"there are {', '.join(names) or 'none'}"


def line(words: Iterable[str]) -> str:
    """The words as a POSIX shell reads them, in double quotes where that is easier to read."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if "'" in word and not re.search(r'["$`\\!]', word):
        return f'"{word}"'
    return shlex.quote(word)
