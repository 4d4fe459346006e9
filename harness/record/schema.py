"""The constructors are the schema of a config: whether they take what it says, before anything is built."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from harness.named_class import taken_by
from harness.record.config import flat, nodes

OF_HYDRA = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
# What no constructor takes: the keys of configs/train.yaml itself.
TOP = {
    "seed": int, "resume": str | None, "workers": int, "threads": int | None, "deterministic": bool, "reuse": bool,
    "objective": str | None,
}  # fmt: skip


def check(config: DictConfig) -> None:
    """Refuses values of a wrong type and settings that a constructor does not take.

    Args:
        config: As composed.

    Raises:
        ValueError: With all of them, by their keys; of those that only follow another one, that one.
    """
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    found = dict(problems(resolved))
    written = flat(OmegaConf.to_container(config))
    sources = {key: str(written.get(key)).removeprefix("${").removesuffix("}") for key in found}
    if told := [text for key, text in found.items() if sources[key] not in found]:
        raise ValueError("; ".join(told))


def problems(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a resolved config: keys, each with a sentence."""
    for key, hint in TOP.items():
        if key in config and not fits(config[key], hint):
            yield _unfit(key, hint, config[key])
    for path, node in nodes(config):
        if isinstance(node, Mapping) and isinstance(node.get("_target_"), str):
            yield from _of_one(".".join(path), node)


def _of_one(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of the settings of one constructor."""
    taken, complete = parameters(node)
    later = (None, "???") if node.get("_partial_") else ("???",)  # what code, or the command line, has to give yet
    for key, value in node.items():
        if key in OF_HYDRA or value in later:
            continue
        name = f"{path}.{key}" if path else str(key)
        if key in taken:
            if not fits(value, taken[key]):
                yield _unfit(name, taken[key], value)
        elif complete:
            yield name, f"{name}: {node['_target_']} takes no {key}; {nearest(key, taken)}"


def parameters(node: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """What the constructor of `node` takes, with the type of each, and whether that is all that it takes.

    A class that takes any further settings for another one, which is named in the config, takes what that one does.
    """
    taken: dict[str, Any] = {}
    targets = [node["_target_"]]
    while targets:
        try:
            target = get_object(targets.pop())
        except Exception:  # Hydra will say so when it builds
            return taken, False
        if not callable(target):
            return taken, False
        own, complete = taken_by(target)
        taken = own | taken
        if not complete:
            targets = [v for k, v in node.items() if k in own and isinstance(v, str) and _names_a_class(v)][:1]
            if not targets:
                return taken, False
    return taken, True


def _names_a_class(value: str) -> bool:
    try:
        return "." in value and inspect.isclass(get_object(value))
    except Exception:
        return False


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a config can be an argument of this type; True where that cannot be told.

    A whole number is a real one, but true is no number; text is a path; a list is any sequence.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return type(value) in map(type, inner)  # which ones there are, the constructor says better
    if isinstance(value, Mapping):
        return "_target_" in value or _is_open(hint) or not _is_plain(origin or hint)
    if isinstance(value, list):
        return _list_fits(value, origin or hint, inner)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str)
    if hint is None or _is_open(hint):
        return hint is not None or value is None
    kind = origin or hint
    if isinstance(value, str) and inspect.isclass(kind) and issubclass(kind, collections.abc.Iterable):
        return kind is str  # and not a list of letters
    return not inspect.isclass(kind) or isinstance(value, kind)


def _list_fits(value: list[Any], kind: Any, inner: tuple[Any, ...]) -> bool:
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    if inspect.isclass(kind) and issubclass(kind, collections.abc.Iterable) and kind is not str:
        return not inner or issubclass(kind, Mapping) or all(fits(item, inner[0]) for item in value)
    return _is_open(kind) or not _is_plain(kind)


def _is_open(hint: Any) -> bool:
    protocol = getattr(hint, "_is_protocol", False) and not getattr(hint, "__module__", "").startswith("collections")
    return hint in (Any, inspect.Parameter.empty, object) or isinstance(hint, typing.TypeVar) or protocol


def _is_plain(kind: Any) -> bool:
    return kind in (int, float, str, bool, None, type(None), Path)


def _unfit(name: str, hint: Any, value: Any) -> tuple[str, str]:
    return name, f"{name}: wanted {_told(hint)}, got {value!r}"


def _told(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_told, inner))
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if hint is type(None) or hint is None:
        return "null"
    if origin is not None and inspect.isclass(origin):
        kind = "list" if issubclass(origin, collections.abc.Sequence) else origin.__name__
        of = ", ".join(_told(one) for one in inner if one is not Ellipsis and not isinstance(one, list))
        return f"{kind} of {of}" if of and kind == "list" else kind
    return getattr(hint, "__name__", str(hint))


def nearest(name: str, there: Iterable[str]) -> str:
    """What is called almost so, or else all that there is."""
    names = sorted(there)
    alike = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(names) or 'none'}"
