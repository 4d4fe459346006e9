"""What users hand over, turned into tensors and checked in one way for all losses, weights, bins and metrics."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rambo.ranking import plain
from rambo.ranking.exact import positive, sent, waits, widest_float

WHOLE = {torch.float16: 2**11, torch.bfloat16: 2**8}
"""Up to which number half precision tells whole numbers apart."""


def as_numbers(name: str, values: Any, device: torch.device | None = None) -> Tensor:
    """A tensor as it is; an array or a list of numbers as one, on `device`; refuses (TypeError) what is neither."""
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
    """`as_numbers`, but refuses half precision in which different targets have become equal."""
    targets = as_numbers("targets", values, device)
    limit, seen = WHOLE.get(targets.dtype), constant(targets)
    if limit is not None and seen is not None and bool((seen.abs() > limit).any()):
        raise ValueError(
            f"targets in {str(targets.dtype).removeprefix('torch.')} are not told apart beyond {limit}, got "
            f"{seen.abs().max():g}: keep them in float32, whatever the precision of the model"
        )
    return targets


def as_weights(values: Any, batch: Tensor) -> Tensor:
    """The weight of each row of `batch`, (samples,), finite and at least 0."""
    weights = one_each("weights", as_numbers("weights", values), len(batch))
    check_finite("weights", weights)
    seen = constant(weights)
    if seen is not None and bool((seen < 0).any()):
        raise ValueError(f"weights must not be negative, got {seen.min().item():g}; see how they were made")
    return sent(weights, batch.device)


def one_each(name: str, values: Tensor, samples: int | None = None) -> Tensor:
    """Numbers of (samples,) or (samples, 1) as (samples,); refuses other shapes."""
    flat = column_as_row(values)
    if flat.ndim != 1 or (samples is not None and len(flat) != samples):
        count = "samples" if samples is None else samples
        raise ValueError(f"{name} must be one a sample, ({count},) or ({count}, 1), got {tuple(values.shape)}")
    return flat


def column_as_row(values: Tensor) -> Tensor:
    """(samples, 1) as (samples,), and other shapes as they are."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def constants(name: str, values: Any, batch: Tensor) -> Tensor:
    """One or several numbers for each row of `batch`, finite, without a graph, as (samples,) or (samples, k).

    They are in float32, or in float64 if that is what they are or whole numbers need it (on a device, if they might),
    and stay where they are.
    """
    numbers, samples = as_numbers(name, values), len(batch)
    if numbers.dim() not in (1, 2) or len(numbers) != samples or 0 in numbers.shape[1:]:
        raise ValueError(f"{name} must be one a sample, ({samples},) or ({samples}, k), got {tuple(numbers.shape)}")
    check_finite(name, numbers)
    numbers = column_as_row(plain(numbers))
    if numbers.dtype in (torch.float32, torch.float64):
        return numbers
    if numbers.dtype in WHOLE or not numbers.numel():
        return numbers.float()
    small = constant(numbers)
    large = small is None or bool((small.double().abs() > 2**24).any())
    return numbers.to(widest_float(numbers.device)) if large else numbers.float()


def features_and_targets(features: Tensor, targets: Any, finite: bool = True) -> tuple[Tensor, Tensor]:
    """Features as they are, and targets as `constants`, where they are.

    Raises:
        TypeError: If features are no floating-point tensor, or targets no numbers.
        ValueError: If shapes do not fit, a number is not finite, or targets in half precision are too large to be told
            apart.
        RuntimeError: If torch.func.vmap maps over the batch.
    """
    check_outputs("features", features, finite)
    targets = as_targets(targets)
    if features.dim() < 2:
        raise ValueError(f"features must have the shape (samples, ...), got {tuple(features.shape)}")
    plain(features)  # refuses vmap by a sentence
    return features, constants("targets", targets, features)


def check_outputs(name: str, values: Any, finite: bool = True) -> None:
    """Refuses what no network gives to be trained on: no tensor, no floating point, and if asked NaN or infinity."""
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
    """The numbers themselves, without a graph; None where nobody can look, as torch.func.vmap maps over them, or nobody
    should, as a device would have to be waited for.
    """
    try:
        return None if waits(values) else plain(values)
    except RuntimeError:
        return None


def check_finite(name: str, values: Tensor, way_out: str = "remove them") -> None:
    """Refuses NaN and infinities, saying how many and where the first one is; what `constant` does not see passes."""
    seen = constant(values)
    finite = None if seen is None else torch.isfinite(seen)
    if finite is not None and not bool(finite.all()):
        where = (~finite).nonzero()[0, 0].item() if values.dim() else 0
        count = int((~finite).sum())
        raise ValueError(f"{name} hold NaN or infinity: {count} of {values.numel()}, first at row {where}; {way_out}")


def not_negative(name: str, value: float) -> float:
    """The value as a float; refuses what is below 0 or not finite."""
    if not (value >= 0 and math.isfinite(value)):  # also refuses nan
        raise ValueError(f"{name} must be >= 0 and finite, got {value}")
    return float(value)


def register_scale(module: nn.Module, name: str, value: float | Sequence[float]) -> None:
    """Gives a module the attribute `name`: a positive number, or, of several, a buffer float32 (k,) that is not saved.

    A buffer follows the module to its device, so that no step has to wait for the numbers.
    """
    if isinstance(value, Sequence) and len(value) != 1:
        if not value:
            raise ValueError(f"{name} must be a number, or one for each target, got an empty list")
        numbers = torch.tensor([positive(name, one) for one in value])
        module.register_buffer(name, numbers, persistent=False)
    else:
        setattr(module, name, positive(name, value[0] if isinstance(value, Sequence) else value))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def optional(module: str, otherwise: str) -> Any:
    """A module of a package that not everybody has; where it is missing, ModuleNotFoundError with that sentence."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(otherwise) from error


class Fitted(nn.Module):
    """A module with buffers whose lengths the training data decide, or the checkpoint that it is restored from."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in list(self.named_buffers(recurse=False)):
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Shown(nn.Module):
    """A module that prints its settings."""

    def extra_repr(self) -> str:
        """The public attributes, for printing."""
        shown = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return ", ".join(f"{name}={value}" for name, value in shown.items() if name not in ("training", "health"))
