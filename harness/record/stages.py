"""Two-stage experiments: the second stage takes over a trained model and trains part of it anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf
from torch import nn

from harness import checkpoint

FOLDER = "first_stage"


def first_stage(config: DictConfig, folder: Path) -> DictConfig:
    """The config of the first stage: that of the whole run with `first_stage.changes` on it.

    A `folder` that holds a checkpoint of it is gone on in.
    """
    first = cast(DictConfig, OmegaConf.merge(config, config.first_stage.changes or {}))
    first.first_stage = None
    first.resume = str(folder) if checkpoint.is_there(folder / "checkpoints") else None
    return first


def check(model: nn.Module, config: DictConfig, splits: Iterable[str]) -> None:
    """Refuses what the second stage could not do, before the first is trained and evaluated on `splits`.

    Raises:
        ValueError: If a name in `first_stage.retrain` is no module of the model, or `first_stage.checkpoint` none that
            a run leaves.
    """
    for name in config.first_stage.retrain:
        if not isinstance(getattr(model, name, None), nn.Module):
            parts = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"first_stage.retrain: the model has no part {name}; it has {parts}")
    left = ["last", *(f"best_on_{split}" for split in splits)]
    if OmegaConf.select(first_stage(config, Path()), "trainer.average") is not None:
        left += [f"{name}_average" for name in left]
    if config.first_stage.checkpoint not in left:
        raise ValueError(f"first_stage.checkpoint={config.first_stage.checkpoint}: there are {', '.join(left)}")


def take_over(model: nn.Module, path: Path, retrain: Sequence[str]) -> None:
    """Loads the model of a checkpoint except for the modules to `retrain`, and freezes what was loaded.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointError: If it is truncated, or lacks a parameter that is not to be trained anew.
    """
    trained = {k: v for k, v in checkpoint.load(path)["model"].items() if k.partition(".")[0] not in retrain}
    for name, parameter in model.named_parameters():
        if name.partition(".")[0] in retrain:
            continue
        if name not in trained or trained[name].shape != parameter.shape:
            raise checkpoint.CheckpointError(f"{path} was saved by another model: {name} is missing or differs")
        parameter.requires_grad_(False)
    own = model.state_dict()
    model.load_state_dict({name: trained.get(name, value) for name, value in own.items()})
