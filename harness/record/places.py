"""Where runs and data are when nobody says so: `paths` of configs/train.yaml, for what composes no config."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from harness.record.composition import CONFIGS


def outputs() -> Path:
    """Of the runs."""
    return _named("outputs")


def data() -> Path:
    """Of the data sets."""
    return _named("data")


def _named(name: str) -> Path:
    return Path(OmegaConf.load(CONFIGS / "train.yaml").paths[name]).expanduser()
