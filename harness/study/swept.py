"""Which settings differ between runs, and which of them were swept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness.record import runs as run_folders
from harness.study.results import NO_SETTING, Run

ABSENT = "-"  # shown where a run has no such setting, as one loss has no other's margin
CURVE_POINTS = 3  # values that a setting needs for a curve
Value = str | int | float | bool


@dataclass(frozen=True)
class Sweep:
    """Runs that differ, seeds aside, in one setting or in two."""

    settings: tuple[str, ...]
    runs: tuple[Run, ...]


def settings_of(run: Run) -> dict[str, Value]:
    """What a run was made with, by dotted name, seed, paths and the like left out; null as "null", lists as text."""
    flat = _flat(run.report["config"])
    return {key: value for key, value in flat.items() if not run_folders.is_under(key, NO_SETTING)}


def varied(runs: Sequence[Run]) -> dict[str, list[Value]]:
    """The settings that are not the same in all runs: for each the value of every run, `ABSENT` where it has none.

    What follows the seed is no setting. Of settings that are equal in every run, because one is made of the other,
    one is named: that on the command line, or else the one with the shortest name.
    """
    everything = [settings_of(run) for run in runs]
    keys = dict.fromkeys(key for settings in everything for key in settings)
    seeds = [run.report["seed"] for run in runs]
    given = {o.lstrip("+~").partition("=")[0] for run in runs for o in run.report["overrides"]}
    named: dict[tuple[str, ...], tuple[str, list[Value]]] = {}
    for key in sorted(keys, key=lambda key: (key not in given, len(key), key)):
        values = [settings.get(key, ABSENT) for settings in everything]
        known = tuple(map(_known, values))
        if len(set(known)) > 1 and values != seeds:
            named.setdefault(known, (key, values))
    return dict(sorted(named.values()))


def is_number(value: Value) -> bool:
    """Whether `value` has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """The sweeps among runs on the same data: first those of two settings, then those of one in no such pair.

    Two numbers were swept where at least half of the cells of their grid were run, with everything else equal, and one
    of them has three values; one was, where it has three.
    """
    differing = varied(runs)
    numbers = [key for key, values in differing.items() if sum(map(is_number, values)) >= 2]
    found: list[Sweep] = []
    for x, y in combinations(numbers, 2):
        for members in _alike(runs, differing, (x, y)):
            if _is_grid(members, differing, x, y):
                found.append(Sweep(_longer_first(members, differing, x, y), tuple(runs[i] for i in members)))
    in_pairs = {(id(run), key) for sweep in found for run in sweep.runs for key in sweep.settings}
    for key in numbers:
        for members in _alike(runs, differing, (key,)):
            values = {differing[key][i] for i in members}
            new = any((id(runs[i]), key) not in in_pairs for i in members)
            if len(values) >= CURVE_POINTS and all(map(is_number, values)) and new:
                found.append(Sweep((key,), tuple(runs[i] for i in members)))
    return found


def shown(value: Value) -> str:
    """A value as people write it: 0.02, 4, loglog."""
    if not is_number(value):
        return str(value)
    return str(value) if isinstance(value, int) else f"{value:g}"


def _known(value: Value) -> str:
    """What a value is told from others by: 0 and 0.0 are one."""
    return repr(float(value)) if is_number(value) else repr(value)


def _alike(runs: Sequence[Run], differing: Mapping[str, list[Value]], swept: tuple[str, ...]) -> list[list[int]]:
    """Places of the runs that agree in all but the swept settings."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(runs)):
        rest = tuple(_known(values[i]) for key, values in differing.items() if key not in swept)
        groups.setdefault(rest, []).append(i)
    return list(groups.values())


def _is_grid(members: list[int], differing: Mapping[str, list[Value]], x: str, y: str) -> bool:
    cells = {(differing[x][i], differing[y][i]) for i in members}
    wide, high = ({cell[k] for cell in cells} for k in (0, 1))
    if not all(is_number(value) for value in wide | high):
        return False
    enough = max(len(wide), len(high)) >= CURVE_POINTS and min(len(wide), len(high)) >= 2
    return enough and 2 * len(cells) >= len(wide) * len(high)


def _longer_first(members: list[int], differing: Mapping[str, list[Value]], x: str, y: str) -> tuple[str, str]:
    counts = [len({differing[key][i] for i in members}) for key in (x, y)]
    return (x, y) if counts[0] >= counts[1] else (y, x)


def _flat(value: Any, prefix: str = "") -> dict[str, Value]:
    if isinstance(value, dict) and value:
        parts: dict[str, Value] = {}
        for key, item in value.items():
            parts |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
        return parts
    plain = isinstance(value, str | int | float | bool)
    return {prefix: value if plain else json.dumps(value, default=str)}
