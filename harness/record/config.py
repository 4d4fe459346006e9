"""Configs as values: made flat, compared, known by a fingerprint; and what each of their keys affects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from omegaconf import OmegaConf

# What a run is built from. Anything else in a config, such as a recipe or a note, acts through these or not at all.
BUILT = (
    "data", "model", "loss", "metrics", "optimizer", "scheduler", "trainer", "seed", "deterministic", "threads",
    "first_stage",
)  # fmt: skip


# What a key affects, with all below it. A key that is in none of these shapes the numbers.
STARTS_A_RUN = ("experiment", "hydra", "objective", "resume", "reuse")  # how a run is started or found
SPEED = (  # how fast it is, where it writes and what it shows
    "data.cache", "data.pin_memory", "data.worker_timeout", "data.workers", "metrics.memory", "paths", "pictures",
    "tracking", "trainer.log_every", "trainer.pictures", "trainer.profile", "workers",
)  # fmt: skip
PLACE = ("data.on_bad_image", "data.root")  # which its data are and where; they are known by their fingerprint
BITS = ("metrics.engine", "threads", "trainer.chunk", "trainer.device")  # the last bits of the numbers
ORDER = ("data.seed",)  # order and augmentation of the data, though not which they are
# Which metrics are given, though not how they are measured.
REPORTED = ("metrics.class_means", "metrics.map", "metrics.recall_at", "metrics.rerank")
FREE_ONCE_FINISHED = (*STARTS_A_RUN, *SPEED, *PLACE)  # in a finished stage of a resumed run
FREE_TO_CHANGE = (*FREE_ONCE_FINISHED, "trainer.epochs")  # in a resumed run, which may go on for longer
NOT_THE_RUN = (*FREE_ONCE_FINISHED, *BITS)  # between two runs of one method with one seed
NOT_THE_METHOD = (*NOT_THE_RUN, "seed")  # between two runs of one method

# Options with what they stand for in runs that do not have them.
CAME_LATER = {"data.decode": "exact", "data.split": "open", "metrics.class_means": False, "metrics.engine": "exact"}


def is_under(key: str, keys: Iterable[str]) -> bool:
    """Whether the dotted `key` is one of `keys` or below one: data.cache and data.cache.folder are under data.cache."""
    return any(key == other or key.startswith(other + ".") for other in keys)


def resolved(config: Any) -> dict[str, Any]:
    """A composed config, or a block of one, as plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def nodes(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in a config, blocks and lists before what is in them, each with its keys and places from the top."""
    yield path, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from nodes(item, (*path, str(key)))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from nodes(item, (*path, str(place)))


def targets(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is built of a config, outermost first: the dotted key, and the settings with their `_target_`."""
    for path, node in nodes(config):
        if isinstance(node, Mapping) and isinstance(node.get("_target_"), str):
            yield ".".join(path), node


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

    They are those that the run is built from, without those under a key that is set `apart`. Null counts as absent, so
    that a new option which is off by default leaves finished runs what they were, and so do those of `CAME_LATER`; 1.0
    is 1; a file below `paths.data` is the same wherever that folder is. Of a run in two stages everything counts, since
    what the first one changes may act through any key.
    """
    built = config if config.get("first_stage") else {k: v for k, v in config.items() if k in BUILT}
    data = str((config.get("paths") or {}).get("data") or "")
    found = {k: _plain(v, data.rstrip("/") + "/") for k, v in flat(built).items() if not is_under(k, apart)}
    return {key: value for key, value in found.items() if value is not None and value != CAME_LATER.get(key)}


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
    lines = []
    for key, values in sorted(differences(was, now).items()):
        before, after = ("absent" if value is None else value for value in values)
        lines.append(f"{key} was {before}, is {after}")
    return lines


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
    if not differing:
        return None
    key = min(differing)
    return f"{key}={differing[key][0]}", f"{key}={differing[key][1]}"


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))
