"""Reads the mappings of a table file: every value of the right kind, every key known, or one sentence naming both."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def file_called(name: str, folder: Path, kind: str) -> Path:
    """The file of that name in `folder`; - and _ are the same.

    Raises:
        ValueError: If there is none, with those there are.
    """
    there = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    for stem, path in there.items():
        if stem.replace("-", "_") == name.replace("-", "_"):
            return path
    raise ValueError(f"no {kind} is called {name}; there are {', '.join(there) or f'none in {folder}'}")


class Node:
    """A mapping in a file.

    Args:
        file: The file's name, for messages.
        where: The dotted key of the mapping in it; empty for the whole.
        value: What stands there.

    Raises:
        ValueError: If `value` is no mapping.
    """

    def __init__(self, file: str, where: str, value: Any) -> None:
        self.file, self.where, self.asked = file, where, set[str]()
        if not isinstance(value, Mapping):
            raise self.fault("", f"must be a mapping, got {value!r}")
        self.values = {str(key): item for key, item in value.items()}

    def fault(self, key: str, says: str) -> ValueError:
        """The error that says something of `key` here."""
        place = ".".join(part for part in (self.where, key) if part)
        return ValueError(f"{self.file}: {place} {says}" if place else f"{self.file} {says}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string; needed if there is no default."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.fault(key, f"must be a text, got {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; needed if there is no default."""
        return self._finite(key, self._value(key, default))

    def whole(self, key: str, default: int) -> int:
        """A whole number, not negative."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.fault(key, f"must be a whole number, not negative, got {value!r}")
        return value

    def choice(self, key: str, choices: Collection[str], default: str | None = None) -> str:
        """One of `choices`."""
        value = self._value(key, default)
        if value not in choices:
            raise self.fault(key, f"must be one of {', '.join(choices)}, got {value!r}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty if it is not there."""
        value = self._value(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fault(key, f"must be a list of texts, got {value!r}")
        return tuple(value)

    def children(self, key: str, required: bool = True) -> dict[str, Node]:
        """A mapping of mappings, in its order."""
        below = Node(self.file, self._place(key), self._value(key, None if required else {}))
        if required and not below.values:
            raise self.fault(key, "is empty")
        return {name: Node(self.file, below._place(name), value) for name, value in below.values.items()}

    def numbers_with_sources(self, key: str) -> dict[str, tuple[float, str]]:
        """Numbers by name, each plain, with an empty source, or {value: 6.91, source: readme}."""
        below, found = Node(self.file, self._place(key), self._value(key, {})), {}
        for name, value in below.values.items():
            if not isinstance(value, Mapping):
                below._finite(name, value)
                found[name] = (value, "")  # 33 stays apart from 33.0: a number is shown with the digits that it has
                continue
            entry = Node(self.file, below._place(name), value)
            found[name] = (entry.number("value"), entry.text("source"))
            entry.finish()
        return found

    def finish(self) -> None:
        """Refuses keys that nobody asked for."""
        if unknown := [key for key in self.values if key not in self.asked]:
            raise self.fault(unknown[0], f"is not known here; there are {', '.join(sorted(self.asked))}")

    def _value(self, key: str, default: Any) -> Any:
        self.asked.add(key)
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.fault(key, "is missing")
        return value

    def _finite(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fault(key, f"must be a number, got {value!r}")
        return float(value)

    def _place(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
