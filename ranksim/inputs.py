"""What users hand over, turned into tensors and checked in one way for all losses, weights, bins and metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rambo.ranking import plain

WHOLE = {torch.float16: 2**11, torch.bfloat16: 2**8}
"""Up to which number half precision tells whole numbers apart."""


def as_numbers(name: str, values: Any, device: torch.device | None = None) -> Tensor:
    """A tensor as it is; an array or a list of numbers as a tensor on `device`.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(values, Tensor):
        return values
    try:
        return torch.tensor(values.__array__() if hasattr(values, "__array__") else values, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name} must be a tensor, an array or a list of numbers, got {type(values).__name__}; convert them with "
            "torch.tensor"
        ) from None


def as_targets(values: Any, device: torch.device | None = None) -> Tensor:
    """Targets or labels as `as_numbers` gives them.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are in half precision and so large that different ones have become equal.
    """
    targets = as_numbers("targets", values, device)
    limit, seen = WHOLE.get(targets.dtype), constant(targets)
    if limit is not None and seen is not None and bool((seen.abs() > limit).any()):
        raise ValueError(
            f"targets in {str(targets.dtype).removeprefix('torch.')} are not told apart beyond {limit}, got "
            f"{seen.abs().max():g}: keep them in float32, whatever the precision of the model"
        )
    return targets


def exact(targets: Tensor) -> Tensor:
    """Targets in float32, or in float64 if that is what they are or whole numbers need it."""
    if targets.dtype in (torch.float32, torch.float64):
        return targets
    small = targets.dtype in WHOLE or not targets.numel() or bool((targets.double().abs() <= 2**24).all())
    return targets.float() if small else targets.double()


def check_outputs(name: str, values: Any, finite: bool = True) -> None:
    """Refuses what no network gives to be trained on: no tensor, no floating point, and if asked NaN or infinity.

    Raises:
        TypeError: If it is no tensor or not floating point.
        ValueError: If a number is not finite.
    """
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor, as the gradient goes through them, got {type(values).__name__}; convert "
            "them with torch.as_tensor"
        )
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {values.dtype}; convert them with .float()")
    if finite:
        check_finite(name, values)


def constant(values: Tensor) -> Tensor | None:
    """The numbers themselves, without a graph; None where torch.func.vmap maps over them, so that nobody can look."""
    try:
        return plain(values)
    except RuntimeError:
        return None


def check_finite(name: str, values: Tensor) -> None:
    """Refuses NaN and infinities, saying how many and where the first one is; values that vmap maps over pass.

    Raises:
        ValueError: If there are any.
    """
    seen = constant(values)
    finite = None if seen is None else torch.isfinite(seen)
    if finite is not None and not bool(finite.all()):
        where = (~finite).nonzero()[0, 0].item() if values.dim() else 0
        count = int((~finite).sum())
        raise ValueError(f"{name} hold NaN or infinity: {count} of {values.numel()}, first at row {where}; remove them")
