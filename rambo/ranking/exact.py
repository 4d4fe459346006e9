"""Exact ranks, with a tie rule that is the same on every device. Import them from `rambo.ranking`."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Ties = Literal["first_index_first", "last_index_first", "pessimistic"]

TIES = ("first_index_first", "last_index_first", "pessimistic")

NO_VMAP = (
    "ranks and the losses on them cannot be mapped over by vmap (nor can the gradient of rank, as jacrev does), for "
    "their steps depend on the numbers; loop over the samples, or give ranks more leading dimensions"
)
_NUMPY = importlib.util.find_spec("numpy") is not None
_WORTH_PACKING = 1200  # scores from which NumPy's sort wins in spite of the packing, which takes some ten operations
_TORCH_SHARE = 2**15  # scores that torch gives each thread to sort, at the least
_SHORT = 1024  # items of a row up to which NumPy wins against two threads of torch; else against one


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value outside the choices, naming both.

    Raises:
        ValueError: If `value` is not among `choices`.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def positive(name: str, value: float) -> float:
    """Returns the value as a float if it is finite and above zero.

    Raises:
        ValueError: If it is not.
    """
    if not (value > 0 and math.isfinite(value)):  # also refuses nan
        raise ValueError(f"{name} must be > 0 and finite, got {value}")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """Returns the value as a float if it is finite and not below zero.

    Raises:
        ValueError: If it is not.
    """
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be >= 0 and finite, got {value}")
    return float(value)


def waits(tensor: Tensor) -> bool:
    """Whether a look at its numbers makes the CPU wait for a device; the losses then do not look."""
    return tensor.device.type != "cpu"


def widest_float(device: torch.device) -> torch.dtype:
    """float64, where the device knows it."""
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs know no float64


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, which nobody waits for unless the CPU is to read it."""
    return tensor if tensor.device == device else tensor.to(device, non_blocking=device.type != "cpu")


def spoiled(*results: Tensor, by: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The results, NaN everywhere if one of the tensors `by` holds NaN.

    For numbers on a device, where nobody has looked (`waits`): ranks and comparisons would make finite ones of NaN. On
    the CPU it has been refused, and the results are returned as they are.
    """
    for tensor in by:
        if waits(tensor) and tensor.numel():
            holds_nan = tensor.detach().max().isnan()  # a maximum carries NaN along and needs no second array
            results = tuple(result.masked_fill(holds_nan, math.nan) for result in results)
    return results


def plain(tensor: Tensor) -> Tensor:
    """The tensor as a constant: without its graph, its tangent, and the wrappers of torch.func.

    Raises:
        RuntimeError: If it is mapped over by vmap.
    """
    if torch.compiler.is_compiling():
        return tensor.detach()
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor) and not functorch.is_batchedtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    if functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor):
        raise RuntimeError(NO_VMAP)
    return tensor.detach()


def rankable(scores: Tensor, check_nan: bool = True) -> Tensor:
    """The scores as constants, in float32 or float64. Without the check they can be recorded and mapped over.

    Raises:
        TypeError: If the scores are not floating point.
        ValueError: If they have no dimension or hold NaN.
        RuntimeError: If they are mapped over by vmap, and searched for NaN.
    """
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating point to be ranked, got {scores.dtype}; convert them with .float()")
    if scores.dim() == 0:
        raise ValueError("scores must have at least one dimension, the ranked one; got a single number")
    scores = plain(scores) if check_nan else scores.detach()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if check_nan and scores.numel() and math.isnan(scores.max().item()):
        raise ValueError("scores hold NaN and cannot be ranked; look for the step that produced it")
    return scores


def descending_order(scores: Tensor, ties: Ties = "first_index_first", relevance: Tensor | None = None) -> Tensor:
    """Positions of the items from the largest score to the smallest, along the last dimension.

    Args:
        scores: Any leading dimensions, items last.
        ties: Which of two equal scores comes first.
        relevance: Same shape as the scores; needed by the pessimistic rule alone.

    Returns:
        int64 positions, same shape.

    Raises:
        ValueError: If the tie rule is unknown, or pessimistic without a relevance of the same shape.
    """
    one_of("ties", ties, TIES)
    if ties == "pessimistic" and (relevance is None or relevance.shape != scores.shape):
        got = "none" if relevance is None else f"shape {tuple(relevance.shape)}"
        raise ValueError(f"pessimistic ties need a relevance of the scores' shape {tuple(scores.shape)}, got {got}")
    if _worth_packing(scores):
        return _packed_order(scores.detach(), ties, relevance)
    if ties == "first_index_first":
        return scores.argsort(dim=-1, descending=True, stable=True)
    if ties == "last_index_first":
        return scores.shape[-1] - 1 - scores.flip(-1).argsort(dim=-1, descending=True, stable=True)
    assert relevance is not None
    irrelevant_first = (relevance != 0).to(torch.uint8).argsort(dim=-1, stable=True)
    by_score = scores.gather(-1, irrelevant_first).argsort(dim=-1, descending=True, stable=True)
    return irrelevant_first.gather(-1, by_score)


def _worth_packing(scores: Tensor) -> bool:
    """Whether `_packed_order` can be had and is faster: against several threads of torch, on short rows only."""
    recorded = (  # or changed on the way, so that NumPy's operations would be missing
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )
    if not _NUMPY or recorded or type(scores) is not Tensor:
        return False
    if scores.dtype != torch.float32 or scores.device.type != "cpu" or scores.numel() < _WORTH_PACKING:
        return False
    items = scores.shape[-1]
    threads = min(torch.get_num_threads(), scores.numel() // max(items, _TORCH_SHARE))
    return 16 <= items < 2**31 and threads <= (2 if items <= _SHORT else 1)


def _packed_order(scores: Tensor, ties: Ties, relevance: Tensor | None) -> Tensor:
    """The order by NumPy, which sorts plain integers of a short row up to ten times as fast as torch moves positions.

    Score, tie rule and position are packed into one integer. No two are equal, so any sort gives the same order.
    """
    bits = (0.0 - scores).view(torch.int32)  # the difference turns the order round and -0 into 0, which it equals
    # those of positive numbers are in order as they stand, those of negative ones the other way round
    bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    keys = bits.to(torch.int64, memory_format=torch.contiguous_format).bitwise_left_shift_(32)
    items, last = scores.shape[-1], 0xFFFFFFFF
    if ties == "last_index_first":  # positions with their bits turned over
        positions = torch.arange(last, last - items, -1, device=scores.device)
    else:
        positions = torch.arange(items, device=scores.device)
    if ties == "pessimistic" and relevance is not None:
        keys.bitwise_or_((relevance != 0).long().bitwise_left_shift_(31))
    keys.bitwise_or_(positions).numpy().sort(axis=-1)
    if ties == "last_index_first":
        keys.bitwise_not_()
    return keys.bitwise_and_(0x7FFFFFFF)


def ranks(
    scores: Tensor,
    ties: Ties = "first_index_first",
    relevance: Tensor | None = None,
    check_nan: bool = True,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """Exact ranks along the last dimension: 1 for the largest score.

    Args:
        scores: Any leading dimensions, items last.
        ties: Which of two equal scores gets the smaller rank.
        relevance: Same shape as the scores; needed by the pessimistic rule alone.
        check_nan: Whether scores are searched for NaN first.
        dtype: Of the ranks. float32 counts to 2^24; see `rambo.ranking.rank_dtype`.

    Returns:
        Ranks 1..items, same shape, a permutation in each row; int64 unless asked otherwise.

    Raises:
        TypeError: If the scores are not floating point.
        ValueError: If they hold NaN, or the tie rule lacks something.

    Source: eq. 2.
    """
    order = descending_order(rankable(scores, check_nan), ties, relevance)
    counted = torch.arange(1, order.shape[-1] + 1, dtype=dtype, device=order.device).expand_as(order)
    # the inverse permutation needs no second sort
    return torch.empty_like(order, dtype=dtype).scatter_(-1, order, counted)
