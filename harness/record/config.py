"""Configs as values: made flat, compared, and known by a fingerprint; which key affects what stands in `AFFECTS`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Any

# What a run is built from. Anything else in a config, such as a recipe or a note, acts through these or not at all.
BUILT = (
    "data", "model", "loss", "metrics", "optimizer", "scheduler", "trainer", "seed", "deterministic", "threads",
    "first_stage",
)  # fmt: skip


class Effect(Enum):
    """What a key of a config affects, where that is not simply the numbers."""

    START = auto()  # how a run is started or found
    SPEED = auto()  # how fast it is, where it writes and what it shows
    PLACE = auto()  # where its data are, which are known by their fingerprint
    BITS = auto()  # the last bits of the numbers
    LENGTH = auto()  # how long it is: an unfinished run may go on for longer
    SEED = auto()  # all random draws: runs that differ in it alone are one method
    ORDER = auto()  # order and augmentation of the data, though not which they are
    REPORTED = auto()  # which metrics are given, though not how they are measured


# By key, with all below it. A key that is not here shapes the numbers.
AFFECTS = {
    "experiment": Effect.START,
    "hydra": Effect.START,
    "objective": Effect.START,
    "resume": Effect.START,
    "reuse": Effect.START,
    "data.cache": Effect.SPEED,
    "data.pin_memory": Effect.SPEED,
    "data.workers": Effect.SPEED,
    "paths": Effect.SPEED,
    "pictures": Effect.SPEED,
    "tracking": Effect.SPEED,
    "trainer.log_every": Effect.SPEED,
    "trainer.pictures": Effect.SPEED,
    "workers": Effect.SPEED,
    "data.root": Effect.PLACE,
    "threads": Effect.BITS,
    "trainer.device": Effect.BITS,
    "trainer.epochs": Effect.LENGTH,
    "seed": Effect.SEED,
    "data.seed": Effect.ORDER,
    "metrics.map": Effect.REPORTED,
    "metrics.recall_at": Effect.REPORTED,
}


def affecting(*effects: Effect) -> tuple[str, ...]:
    """The keys that affect one of these and nothing else."""
    return tuple(key for key, effect in AFFECTS.items() if effect in effects)


STARTS_A_RUN = affecting(Effect.START)
FREE_ONCE_FINISHED = affecting(Effect.START, Effect.SPEED, Effect.PLACE)  # in a finished stage of a resumed run
FREE_TO_CHANGE = (*FREE_ONCE_FINISHED, *affecting(Effect.LENGTH))  # in a resumed run
NOT_THE_RUN = (*FREE_ONCE_FINISHED, *affecting(Effect.BITS))  # between two runs of one method with one seed
NOT_THE_METHOD = (*NOT_THE_RUN, *affecting(Effect.SEED))  # between two runs of one method


def is_under(key: str, keys: Iterable[str]) -> bool:
    """Whether the dotted `key` is one of `keys` or below one: data.cache and data.cache.folder are under data.cache."""
    return any(key == other or key.startswith(other + ".") for other in keys)


def nodes(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in a config, blocks and lists before what is in them, each with its keys and places from the top."""
    yield path, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from nodes(item, (*path, str(key)))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from nodes(item, (*path, str(place)))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists stay as they are."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return parts


def shaping(config: Mapping[str, Any], apart: Iterable[str] = NOT_THE_RUN) -> dict[str, Any]:
    """The values of a resolved config, or of parts of one, that shape the numbers, flat: {"loss.margin": 0.1}.

    They are those that the run is built from. Null counts as absent, so that a new option which is off by default
    leaves finished runs what they were; 1.0 is 1; a file below `paths.data` is the same wherever that folder is. Of a
    run in two stages everything counts, since what the first one changes may act through any key.

    Args:
        config: Resolved.
        apart: Keys that are left out, with all below them.
    """
    built = config if config.get("first_stage") else {k: v for k, v in config.items() if k in BUILT}
    data = str((config.get("paths") or {}).get("data") or "")
    found = {k: _plain(v, data.rstrip("/") + "/") for k, v in flat(built).items() if not is_under(k, apart)}
    return {key: value for key, value in found.items() if value is not None}


def _plain(value: Any, data: str) -> Any:
    """The value in the one way to write it; `data` is the folder of the data, with a slash at its end."""
    if isinstance(value, Mapping):
        return {key: _plain(item, data) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, data) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(data) > 1 and value.startswith(data):
        return f"${{paths.data}}/{value.removeprefix(data)}"
    return value


def fingerprint(config: Mapping[str, Any]) -> str:
    """What a run is known by, beside its data: 16 hexadecimal digits over what of its resolved config is `shaping`.

    The seed counts; paths, tracking, workers, threads and the device do not.
    """
    return hashlib.sha256(json.dumps(shaping(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every key in which two flat settings differ, by name: loss.margin was 0.02, is absent."""
    told = {
        key: ["absent" if value is None else value for value in values]
        for key, values in sorted(differences(was, now).items())
    }
    return [f"{key} was {before}, is {after}" for key, (before, after) in told.items()]


def differences(*settings: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The keys in which flat settings differ, with the value in each of them; None stands for an absent one.

    Keys come in the order in which they are met. Nan is equal to nan.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    found = {key: tuple(one.get(key) for one in settings) for key in keys}
    return {key: values for key, values in found.items() if not all(_equal(values[0], value) for value in values)}


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key by name in which two flat settings differ, as "key=value" of each; None if they are equal."""
    differing = differences(one, other)
    key = min(differing, default=None)
    return None if key is None else (f"{key}={differing[key][0]}", f"{key}={differing[key][1]}")


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))
