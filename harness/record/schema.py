"""The constructors are the schema of a config: whether they take what it says, before anything is built."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from harness import words
from harness.named_class import taken_by
from harness.record.config import flat, resolved, targets

OF_HYDRA = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
# What no constructor takes: the keys of configs/train.yaml itself.
TOP = {
    "seed": int, "resume": str | None, "workers": int, "threads": int | None, "deterministic": bool, "reuse": bool,
    "objective": str | None,
}  # fmt: skip
UNIONS = (typing.Union, types.UnionType)
PLAIN = (int, float, str, bool, type(None), Path)


def check(config: DictConfig) -> None:
    """Refuses values of a wrong type and settings that a constructor does not take, in a composed config.

    Raises:
        ValueError: With all of them, by their keys; of those that only follow another one, that one.
    """
    found = dict(_problems(resolved(config)))
    written = flat(OmegaConf.to_container(config))
    sources = {key: str(written.get(key)).removeprefix("${").removesuffix("}") for key in found}
    if told := [text for key, text in found.items() if sources[key] not in found]:
        raise ValueError("; ".join(told))


def _problems(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a resolved config: keys, each with a sentence."""
    for key, hint in TOP.items():
        if key in config and not fits(config[key], hint):
            yield _unfit(key, hint, config[key])
    for path, node in targets(config):
        taken, complete = parameters(node)
        later = (None, "???") if node.get("_partial_") else ("???",)  # what code, or the command line, gives yet
        for key, value in node.items():
            name = f"{path}.{key}" if path else str(key)
            if key in OF_HYDRA or value in later:
                continue
            if key not in taken and complete:
                yield name, f"{name}: {node['_target_']} takes no {key}; {words.nearest(key, taken)}"
            elif key in taken and not fits(value, taken[key]):
                yield _unfit(name, taken[key], value)


def parameters(node: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """What the constructor of `node` takes, with the type of each, and whether that is all that it takes.

    A class that takes any further settings for another one, which is named in the config, takes what that one does.
    """
    taken, complete = taken_by(_found(node["_target_"]))
    if complete:
        return taken, True
    named = [_found(value) for key, value in node.items() if key in taken]
    further = [one for one in named if inspect.isclass(one)]
    more, complete = taken_by(further[0]) if further else ({}, False)
    return more | taken, complete


def _found(name: Any) -> Any:
    """What a dotted name stands for; None if it is no such name. Hydra says what is wrong with one when it builds."""
    try:
        return get_object(name) if "." in name else None
    except Exception:
        return None


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a config can be an argument of this type; True where that cannot be told.

    A whole number is a real one, but true is no number; text is a path; a list is any sequence.
    """
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in UNIONS:
        return any(fits(value, one) for one in inner)
    if kind is typing.Literal:
        return type(value) in map(type, inner)  # which ones there are, the constructor says better
    if isinstance(value, Mapping):
        return "_target_" in value or kind not in PLAIN
    if kind is float:
        return type(value) in (int, float)
    if kind is int:
        return type(value) is int
    if kind is Path:
        return isinstance(value, str)
    if not inspect.isclass(kind) or kind in (Any, object) or getattr(kind, "_is_protocol", False):
        return True
    if isinstance(value, str) and issubclass(kind, Iterable):
        return kind is str  # and not a list of letters
    return _list_fits(value, kind, inner) if isinstance(value, list) else isinstance(value, kind)


def _list_fits(value: list[Any], kind: type, inner: tuple[Any, ...]) -> bool:
    if not issubclass(kind, Iterable) or kind is str:
        return kind not in PLAIN
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or issubclass(kind, Mapping) or all(fits(item, inner[0]) for item in value)


def _unfit(name: str, hint: Any, value: Any) -> tuple[str, str]:
    return name, f"{name}: wanted {_told(hint)}, got {value!r}"


def _told(hint: Any) -> str:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in UNIONS:
        return " or ".join(map(_told, inner))
    if kind is typing.Literal:
        return " or ".join(map(str, inner))
    if kind is type(None):
        return "null"
    if inner and inspect.isclass(kind) and issubclass(kind, Sequence):
        return f"list of {', '.join(_told(one) for one in inner if one is not Ellipsis)}"
    return getattr(kind, "__name__", str(hint))
