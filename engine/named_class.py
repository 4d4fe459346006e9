"""Classes named in a config, and what they can be built with."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn


def class_named(name: str) -> Callable[..., nn.Module]:
    """The class with this dotted name.

    Raises:
        ImportError: If there is none.
    """
    module, _, kind = name.rpartition(".")
    if not module:
        raise ImportError(f"loss must be named with its module, such as rambo.losses.RecallLoss, got {name!r}")
    found = getattr(importlib.import_module(module), kind, None)
    if found is None:
        raise ImportError(f"there is no {kind} in {module}")
    return found  # type: ignore[no-any-return]


def check_settings(kind: Callable[..., nn.Module], settings: dict[str, Any]) -> list[str]:
    """The names that a class can be built with, those it hands on to its parents included.

    Raises:
        TypeError: If one of `settings` is not among them.
    """
    names: list[str] = []
    for ancestor in getattr(kind, "__mro__", [kind]):
        parameters = inspect.signature(ancestor.__init__).parameters.values()
        names += [
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"
        ]
        if ancestor is nn.Module or not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    wanted = list(dict.fromkeys(names))
    if unknown := [name for name in settings if name not in wanted]:
        full = f"{getattr(kind, '__module__', '?')}.{getattr(kind, '__qualname__', kind)}"
        raise TypeError(f"{full} takes no {unknown[0]}; it takes {', '.join(wanted)}")
    return wanted
