"""Back from a run folder: the data, the model with what it learned, the metrics; and the numbers it recorded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from harness import checkpoint, seeds
from harness.data import pretrained
from harness.device import choose_device
from harness.files import from_json
from harness.record import allowed, runs
from harness.record.config import differences, shaping

UNTRAINED = "untrained"
BUILT = ("data", "model", "metrics", "loss")  # of a run's config, what is built of it


@dataclass(frozen=True)
class Restored:
    """A run, ready to be looked at: data and metrics are built from its resolved config."""

    folder: Path
    data: Any
    model: nn.Module  # with the weights of the checkpoint, in evaluation mode
    metrics: Any
    config: dict[str, Any]

    def loss(self) -> nn.Module:
        """The loss as the run began with it, without what it may have learned or remembered."""
        loss: nn.Module = instantiate(self.config["loss"], _convert_="all")
        if prepare := getattr(loss, "prepare", None):
            prepare(self.data)
        return loss


def restored(
    folder: Path,
    weights: str = "last",
    device: str = "cpu",
    data_root: str | Path | None = None,
    allow: Sequence[str] = (),
) -> Restored:
    """Builds what the run in `folder` was made of and loads what it learned. The run need not be finished.

    Args:
        weights: A checkpoint of the run (`last`, `best_on_test`, `last_average`, ...), or `untrained`: those that it
            began with, drawn anew from its seed.
        device: Where the model goes; `auto` takes a GPU when there is one.
        data_root: Where the data are now, if they are not where they were.
        allow: Packages of the user's own that the config may name; see `harness.record.allowed`.

    Raises:
        FileNotFoundError: If there is no run, or no such checkpoint; those there are are named.
        CheckpointError: If the checkpoint is truncated or of another model, or the data are not those of the run.
        ValueError: If the device cannot be used, or the config, which somebody else may have written, names what it
            may not.
    """
    config = runs.read_config(folder)
    allowed.check({noun: config.get(noun) for noun in BUILT}, folder / "config.yaml", allow)
    path = folder / "checkpoints" / f"{weights}.pt"
    if weights != UNTRAINED and not path.is_file():
        there = ", ".join([*checkpoint.names(path.parent), UNTRAINED])
        raise FileNotFoundError(f"{folder} has no checkpoint {weights}; there are {there}")
    where = choose_device(device)
    state = {} if weights == UNTRAINED else checkpoint.load(path)
    if data_root is not None:
        config["data"]["root"] = str(data_root)
    with draws_kept():
        seeds.seed_everything(config["seed"], "initial weights")  # and then in the order of train.py
        model_config, start = pretrained.own_start(config["model"])
        data, model = instantiate(config["data"], _convert_="all"), instantiate(model_config, _convert_="all")
        before, now = state.get("fingerprint") or runs.data_of(folder), data.describe().get("fingerprint")
        checkpoint.check_data(before, now, folder)
        if hasattr(model, "prepare"):
            model.prepare(data)
        if start is not None and not state:
            pretrained.start_from(model, start)
    if state:
        checkpoint.restore(model, state["model"], path, "model")
    metrics = instantiate(config["metrics"], _convert_="all")
    return Restored(folder, data, model.to(where).eval(), metrics, config)


def recorded(folder: Path, name: str) -> dict[int, float]:
    """What a run recorded under `name` in metrics.jsonl, by optimizer step; a line that was cut off is left out.

    Raises:
        FileNotFoundError: If the run has no metrics.jsonl.
        ValueError: If a line of it is not JSON, or it is not what the run wrote.
    """
    file = folder / runs.METRICS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} recorded nothing: {runs.METRICS} is missing")
    content = runs.read_metrics(folder)
    try:
        lines = [from_json(line) for line in content.decode().split("\n")[:-1]]
    except ValueError as error:
        raise ValueError(f"{file} is not JSON line by line ({error}); repeat the run") from error
    try:
        return {int(line["step"]): float(line[name]) for line in lines if line.get(name) is not None}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file} is not what a run writes; repeat the run") from error


def names_of(configs: list[dict[str, Any]]) -> list[str]:
    """Short names for runs: the values in which their configs differ, such as `margin=0.02`; else their numbers."""
    keys = differences(*map(shaping, configs))
    if not 1 <= len(keys) <= 3:
        return [f"run {number}" for number in range(1, len(configs) + 1)]
    named = [[f"{key.rpartition('.')[2]}={value}" for value in values] for key, values in keys.items()]
    return [", ".join(parts) for parts in zip(*named, strict=True)]


@contextmanager
def draws_kept() -> Iterator[None]:
    """Whatever is seeded and drawn inside, the processor's global generators go on as if nothing had been."""
    before = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(before)
