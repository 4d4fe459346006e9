"""Which parameters are trained, and how fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


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
