"""Which parameters are trained, how fast, and one step of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def build_optimizer(partial: Callable[..., torch.optim.Optimizer], *modules: nn.Module) -> torch.optim.Optimizer:
    """Completes a partial optimizer with the parameters of model and loss.

    Args:
        partial: An optimizer lacking its parameters, with `lr` among its keywords.
        modules: Each gives `parameter_groups()`, dicts with `params` and possibly `name` and `learning_rate_factor`
            (times `lr`), or, lacking that, all its parameters as one group.

    Raises:
        ValueError: If no parameter is trainable.
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


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate of every group, for the log."""
    return {f"learning_rate/{g.get('name', i)}": float(g["lr"]) for i, g in enumerate(optimizer.param_groups)}


def update(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, scale: float, clip_norm: float | None
) -> dict[str, float]:
    """One step along the gradients times `scale`, which are zero afterwards; returns their norm if it is clipped.

    Args:
        optimizer: Of the parameters.
        scaler: What the loss was scaled with.
        scale: 1 leaves the gradients as they are.
        clip_norm: Largest gradient norm, or None.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not parameters:  # no batch had anything to learn from; a scaler that has scaled nothing could not go on
        return {}
    numbers = {}
    scaler.unscale_(optimizer)
    if scale != 1:
        for parameter in parameters:
            parameter.grad.mul_(scale)
    if clip_norm is not None:
        norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
        if math.isfinite(norm):  # else fp16 overflowed and the scaler skips the step
            numbers["gradient_norm"] = norm
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return numbers
