"""Two-stage experiments: the second stage takes over a trained model and trains part of it anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from harness import checkpoint

FOLDER = "first_stage"


def first_stage(config: DictConfig, folder: Path) -> DictConfig:
    """The config of the first stage: that of the second with `first_stage.changes` on it.

    Args:
        config: Of the whole run; its `first_stage` says what differs.
        folder: Of the first stage; one that holds a checkpoint is gone on in.
    """
    first = OmegaConf.merge(config, config.first_stage.changes or {})
    assert isinstance(first, DictConfig)
    first.first_stage = None
    first.resume = str(folder) if (folder / "checkpoints" / "last.pt").is_file() else None
    return first


def check(model: nn.Module, config: DictConfig, splits: Iterable[str]) -> None:
    """Refuses what the second stage could not do, before the first is trained.

    Args:
        model: Newly built.
        config: Of the whole run.
        splits: Those that are evaluated.

    Raises:
        ValueError: If a name in `first_stage.retrain` is no module of the model, or `first_stage.checkpoint` none that
            a run leaves.
    """
    for name in config.first_stage.retrain:
        if not isinstance(getattr(model, name, None), nn.Module):
            parts = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"first_stage.retrain: the model has no part {name}; it has {parts}")
    left = ["last", *(f"best_on_{split}" for split in splits)]
    if config.first_stage.checkpoint not in left:
        raise ValueError(f"first_stage.checkpoint={config.first_stage.checkpoint}: there are {', '.join(left)}")


def take_over(model: nn.Module, path: Path, retrain: Sequence[str]) -> None:
    """Loads a trained model except for the modules to train anew, and freezes what was loaded.

    Args:
        model: Newly built.
        path: A checkpoint with the state of a model.
        retrain: Names of the modules that keep their new weights and go on learning.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointError: If it is truncated, or lacks a parameter that is not to be trained anew.
    """
    trained: Mapping[str, Any] = checkpoint.load(path)["model"]
    own = model.state_dict()

    def anew(name: str) -> bool:
        return name.split(".")[0] in retrain

    for name, parameter in model.named_parameters():
        if anew(name):
            continue
        if name not in trained or trained[name].shape != parameter.shape:
            raise checkpoint.CheckpointError(f"{path} was saved by another model: {name} is missing or differs")
        parameter.requires_grad_(False)
    model.load_state_dict({name: own[name] if anew(name) else trained.get(name, own[name]) for name in own})
