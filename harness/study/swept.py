"""Which settings differ between runs, and which of them were swept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import OmegaConf

from harness.record.composition import CONFIGS
from harness.record.config import NOT_THE_METHOD, differences, flat, is_under
from harness.study.results import Run

ABSENT = "-"  # shown where a run has no such setting, as one loss has no other's margin
CURVE_POINTS = 3  # values that a setting needs for a curve
Value = str | int | float | bool


@dataclass(frozen=True)
class Sweep:
    """Runs of one command, seeds aside: `fixed` is what all have in common, `settings` the numbers that were swept."""

    settings: tuple[str, ...]
    runs: tuple[Run, ...]
    fixed: str = ""


def settings_of(run: Run) -> dict[str, Value]:
    """What a run was made with, by dotted name, seed, paths and the like left out; null as "null", lists as text."""
    known = {key: value for key, value in flat(run.report["config"]).items() if not is_under(key, NOT_THE_METHOD)}
    return {
        key: value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)
        for key, value in known.items()
    }


def varied(runs: Sequence[Run]) -> dict[str, list[Value]]:
    """The settings that are not the same in all runs: for each the value of every run, `ABSENT` where it has none.

    What follows the seed is no setting. Of settings that are equal in every run, because one is made of the other,
    one is named: that on the command line, or else the one with the shortest name.
    """
    seeds, found = [run.report["seed"] for run in runs], differences(*map(settings_of, runs))
    given = {o.lstrip("+~").partition("=")[0] for run in runs for o in run.report["overrides"]}
    named: dict[tuple[str, ...], tuple[str, list[Value]]] = {}
    for key in sorted(found, key=lambda key: (key not in given, len(key), key)):
        values = [ABSENT if value is None else value for value in found[key]]
        known = tuple(repr(float(value)) if is_number(value) else repr(value) for value in values)  # 0 and 0.0 are one
        if values != seeds:
            named.setdefault(known, (key, values))
    return dict(sorted(named.values()))


def is_number(value: Value) -> bool:
    """Whether `value` has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """The sweeps of one or two numbers on record among runs on the same data.

    What was swept is what the file of `+sweep=NAME` lists, and without one what the command lines give, as those of
    `-m loss.margin=0,0.1`. A figure takes three values of a setting; where more than two were swept, as in a search,
    there is none.
    """
    groups: dict[tuple[tuple[str, ...], str], list[Run]] = {}
    for run in runs:
        keys = _swept_numbers(run)
        others = [word for word in run.label.split(" ") if word.partition("=")[0] not in keys]
        groups.setdefault((keys, " ".join(others)), []).append(run)
    found = []
    for (keys, fixed), members in groups.items():
        values = {key: {settings_of(run)[key] for run in members} for key in keys}
        settings = tuple(key for key in keys if len(values[key]) > 1)
        if len(settings) in (1, 2) and max(len(values[key]) for key in settings) >= CURVE_POINTS:
            found.append(Sweep(settings, tuple(members), fixed))
    return found


def _swept_numbers(run: Run) -> tuple[str, ...]:
    """The settings of a run that its sweep gave, those that are numbers, in the order on record."""
    given = [override.lstrip("+~").partition("=") for override in run.report["overrides"]]
    listed: list[str] = []
    for path in [CONFIGS / "sweep" / f"{value}.yaml" for key, _, value in given if key == "sweep"]:
        if path.is_file():
            listed += OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") or ()
    settings = settings_of(run)
    keys = dict.fromkeys(listed or [key for key, _, _ in given])
    return tuple(key for key in keys if is_number(settings.get(key, ABSENT)))


def shown(value: Value) -> str:
    """A value as people write it: 0.02, 4, loglog."""
    if not is_number(value):
        return str(value)
    return str(value) if isinstance(value, int) else f"{value:g}"
