"""Which parameters are trained, and how fast."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sized
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR, LRScheduler, SequentialLR


def build_optimizer(partial: Callable[..., torch.optim.Optimizer], *modules: nn.Module) -> torch.optim.Optimizer:
    """Completes a partial optimizer, with `lr` among its keywords, by the `parameter_groups` of model and loss.

    A group may have a `learning_rate_factor`, times `lr`; what needs no gradient is left out.
    """
    rate = getattr(partial, "keywords", {}).get("lr")
    groups: list[dict[str, Any]] = []
    for module in modules:
        for given in parameter_groups(module):
            group = {**given, "params": [p for p in given["params"] if p.requires_grad]}
            factor = group.pop("learning_rate_factor", 1.0)
            if rate is not None:
                group["lr"] = rate * factor
            if group["params"]:
                groups.append(group)
    if not groups:
        raise ValueError("nothing to train: model and loss have no trainable parameter")
    return partial(groups)


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """What `module.parameter_groups()` says, or all its parameters as one group where it has no such method."""
    own: Callable[[], list[dict[str, Any]]] | None = getattr(module, "parameter_groups", None)
    return own() if own is not None else [{"params": list(module.parameters()), "name": type(module).__name__}]


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of each group by its name, or its number where it has none, as the record calls it."""
    groups = enumerate(optimizer.param_groups)
    return {f"learning_rate/{group.get('name', number)}": float(group["lr"]) for number, group in groups}


class Schedule(SequentialLR):
    """A scheduler of torch, perhaps after a warm-up, whose lengths may follow the run, by steps or by epochs.

    Args:
        optimizer: Whose learning rates change.
        scheduler: What follows the warm-up: a scheduler of torch, `_partial_`. Its own lengths are in intervals.
            A `max_lr` that it needs and is not given is the learning rate of each group.
        interval: `step` or `epoch`, after which the rate changes. A step is one of the optimizer.
        warmup_epochs: Epochs in which the rate rises in a straight line; parts of one are allowed by `step`.
        warmup_steps: The same in steps, instead.
        warmup_start: What the rate begins with, as a factor.
        epochs: Of the run, as far as `length` asks for it.
        length: The argument of `scheduler` that is told how many intervals are left after the warm-up, or None.
        steps_per_epoch: Told by train.py.

    Raises:
        ValueError: If a value is outside its range, or the warm-up longer than the run.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: Callable[..., LRScheduler],
        interval: Literal["step", "epoch"] = "step",
        warmup_epochs: float = 0.0,
        warmup_steps: int | None = None,
        warmup_start: float = 0.01,
        epochs: int | None = None,
        length: str | None = None,
        steps_per_epoch: int = 1,
    ) -> None:
        if interval not in ("step", "epoch"):
            raise ValueError(f"scheduler.interval must be step or epoch, got {interval!r}")
        if not 0 < warmup_start <= 1:
            raise ValueError(f"scheduler.warmup_start must lie in (0, 1], got {warmup_start}")
        if warmup_steps is not None and (warmup_epochs or interval == "epoch"):
            raise ValueError("scheduler.warmup_steps needs scheduler.interval=step and scheduler.warmup_epochs=0")
        if interval == "epoch" and warmup_epochs != int(warmup_epochs):
            raise ValueError(f"scheduler.warmup_epochs={warmup_epochs} is not whole: set scheduler.interval=step")
        of_epoch = steps_per_epoch if interval == "step" else 1
        warmup = round(warmup_epochs * of_epoch) if warmup_steps is None else warmup_steps
        if warmup < 0:
            raise ValueError(f"scheduler.warmup_epochs and warmup_steps must be at least 0, got {warmup}")
        told: dict[str, Any] = {}
        if length is not None:
            if epochs is None:
                raise ValueError(f"scheduler.length={length} needs scheduler.epochs, such as ${{trainer.epochs}}")
            if warmup > epochs * of_epoch > 0:
                raise ValueError(f"a warm-up of {warmup} {interval}s is longer than the run, {epochs * of_epoch}")
            told[length] = max(epochs * of_epoch - warmup, 1)
        if "max_lr" in inspect.signature(scheduler).parameters and "max_lr" not in getattr(scheduler, "keywords", {}):
            if warmup:
                raise ValueError("a cycle warms up by itself (scheduler.scheduler.pct_start): set no other warm-up")
            told["max_lr"] = [group["lr"] for group in optimizer.param_groups]
        first = [LinearLR(optimizer, warmup_start, total_iters=warmup)] if warmup else []
        super().__init__(optimizer, [*first, scheduler(optimizer, **told)], [warmup] if warmup else [])
        self.interval = interval


def build_scheduler(
    partial: Callable[..., LRScheduler], optimizer: torch.optim.Optimizer, batches: Iterable[Any], accumulate: int
) -> LRScheduler:
    """Completes a partial scheduler; a `Schedule` is told how many steps of `accumulate` batches an epoch has.

    Raises:
        ValueError: If it counts steps, and the `batches` of an epoch cannot be counted.
    """
    if getattr(partial, "func", None) is not Schedule:
        return partial(optimizer)
    if getattr(partial, "keywords", {}).get("interval") == "epoch":
        return partial(optimizer)
    if not isinstance(batches, Sized):
        raise ValueError(f"{type(batches).__name__} does not tell its length, which scheduler.interval=step needs")
    return partial(optimizer, steps_per_epoch=-(-len(batches) // accumulate))
