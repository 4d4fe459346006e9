"""Classes named in a config, and what they can be built with."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn


def look_up(name: str) -> Any:
    """What a dotted name stands for, found as Hydra finds a `_target_`: by attribute, else by importing.

    Raises:
        ImportError: If there is none.
    """
    first, *rest = name.split(".")
    if not all(part.isidentifier() for part in (first, *rest)):
        raise ImportError(f"{name!r} is no dotted name, such as rambo.losses.RecallLoss")
    found: Any = importlib.import_module(first)
    for place, part in enumerate(rest):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        whole = ".".join((first, *rest[:place]))
        if not inspect.ismodule(found):
            raise ImportError(f"there is no {part} in {whole}")
        try:
            found = importlib.import_module(f"{whole}.{part}")
        except ModuleNotFoundError as error:
            if error.name != f"{whole}.{part}":  # it is there, and needs something that is not
                raise
            raise ImportError(f"there is no {part} in {whole}") from error
    return found


def class_named(name: str) -> Callable[..., nn.Module]:
    """The class of modules with this dotted name.

    Raises:
        ImportError: If there is none.
        TypeError: If it is something else.
    """
    if "." not in name:
        raise ImportError(f"loss must be named with its module, such as rambo.losses.RecallLoss, got {name!r}")
    found = look_up(name)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise TypeError(f"{name} is no torch.nn.Module class; name one, such as rambo.losses.RecallLoss")
    return found


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
