"""Classes named in a config, and what they can be built with."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

from torch import nn


def look_up(name: str) -> Any:
    """What a dotted name stands for, found as Hydra finds a `_target_`: by attribute, else by importing."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ImportError(f"{name!r} is no dotted name, such as rambo.losses.RecallLoss")
    found: Any = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], start=1):
        whole = ".".join(parts[:place])
        if not hasattr(found, part) and inspect.ismodule(found):
            try:
                importlib.import_module(f"{whole}.{part}")
            except ModuleNotFoundError as error:
                if error.name != f"{whole}.{part}":  # it is there, and needs something that is not
                    raise
        if not hasattr(found, part):
            raise ImportError(f"there is no {part} in {whole}")
        found = getattr(found, part)
    return found


def class_named(name: str, settings: dict[str, Any]) -> tuple[Callable[..., nn.Module], list[str]]:
    """The class of modules with this dotted name, and the names of what it can be built with.

    Raises:
        ImportError, TypeError: If there is none, or it does not take one of `settings`.
    """
    if "." not in name:
        raise ImportError(f"loss must be named with its module, such as rambo.losses.RecallLoss, got {name!r}")
    found = look_up(name)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise TypeError(f"{name} is no torch.nn.Module class; name one, such as rambo.losses.RecallLoss")
    wanted = list(taken_by(found)[0])
    if unknown := [key for key in settings if key not in wanted]:
        full = f"{found.__module__}.{found.__qualname__}"
        raise TypeError(f"{full} takes no {unknown[0]}; it takes {', '.join(wanted)}")
    return found, wanted


def taken_by(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Names and types of what a function or class takes, those that a class hands on to its parents included.

    And whether that is all: a `**settings` that nobody names may take anything.
    """
    if not inspect.isclass(target):
        return _named_by(target)
    found: dict[str, Any] = {}
    for ancestor in target.__mro__[:-1]:
        own, complete = _named_by(getattr(ancestor, "__init__"), skip=1)  # noqa: B009
        found |= {name: kind for name, kind in own.items() if name not in found}
        if complete:
            return found, True
    return found, False


def _named_by(function: Callable[..., Any], skip: int = 0) -> tuple[dict[str, Any], bool]:
    try:
        listed = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):  # of C
        return {}, False
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # a name that is there for a type checker only
        hints = {}
    named = [p for p in listed if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: hints.get(p.name, Any) for p in named}, not any(p.kind is p.VAR_KEYWORD for p in listed)
