"""YAML of strangers: read as values that are no larger than the text says."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def as_config(text: str) -> Any:
    """The values of a config, in which ${...} stays as it stands."""
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))


def from_yaml(text: str, load: Callable[[str], Any] = as_config) -> Any:
    """What `load` makes of a text.

    One that refers to another part of itself is refused: a few lines of that stand for more than fits any memory.

    Raises:
        ValueError: If it cannot be read; the reason alone, for the sentence of whoever asks.
    """
    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_PARSER)):
            raise ValueError("it refers to another part of itself by *; write that out")
        return load(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:  # the last of dates and numbers
        raise ValueError(" ".join(str(error).split())) from error
