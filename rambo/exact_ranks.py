"""Exact ranks, with a tie rule that is the same on every device. Import them from `rambo.ranking`."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Ties = Literal["first_index_first", "last_index_first", "pessimistic"]

TIES = ("first_index_first", "last_index_first", "pessimistic")


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


def rankable(scores: Tensor, check_nan: bool = True) -> Tensor:
    """The scores without their graph, in float32 or float64.

    Raises:
        TypeError: If the scores are not floating point.
        ValueError: If they have no dimension or hold NaN.
    """
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating point to be ranked, got {scores.dtype}; convert them with .float()")
    if scores.dim() == 0:
        raise ValueError("scores must have at least one dimension, the ranked one; got a single number")
    scores = scores.detach()
    if scores.dtype not in (torch.float32, torch.float64):
        scores = scores.float()
    # a maximum carries NaN along and, unlike isnan, needs no second array
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
    scores = _quickly_sorted(scores)
    if ties == "first_index_first":
        return scores.argsort(dim=-1, descending=True, stable=True)
    if ties == "last_index_first":
        return scores.shape[-1] - 1 - scores.flip(-1).argsort(dim=-1, descending=True, stable=True)
    if relevance is None or relevance.shape != scores.shape:
        got = "none" if relevance is None else f"shape {tuple(relevance.shape)}"
        raise ValueError(f"pessimistic ties need a relevance of the scores' shape {tuple(scores.shape)}, got {got}")
    irrelevant_first = (relevance != 0).to(torch.uint8).argsort(dim=-1, stable=True)
    by_score = scores.gather(-1, irrelevant_first).argsort(dim=-1, descending=True, stable=True)
    return irrelevant_first.gather(-1, by_score)


def _quickly_sorted(scores: Tensor) -> Tensor:
    """Something of the same order: on a processor, long rows of integers are sorted 1.4 times as fast as of float32."""
    if scores.dtype != torch.float32 or scores.device.type != "cpu" or scores.shape[-1] < 256:
        return scores
    bits = (scores + 0.0).view(torch.int32)  # the sum turns -0 into 0, which it equals
    # the bits of positive numbers are in order as they stand, those of negative ones the other way round
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))


def ranks(
    scores: Tensor, ties: Ties = "first_index_first", relevance: Tensor | None = None, check_nan: bool = True
) -> Tensor:
    """Exact ranks along the last dimension: 1 for the largest score.

    Args:
        scores: Any leading dimensions, items last.
        ties: Which of two equal scores gets the smaller rank.
        relevance: Same shape as the scores; needed by the pessimistic rule alone.
        check_nan: Whether scores are searched for NaN first.

    Returns:
        int64 ranks 1..items, same shape, a permutation in each row.

    Raises:
        TypeError: If the scores are not floating point.
        ValueError: If they hold NaN, or the tie rule lacks something.

    Source: eq. 2.
    """
    order = descending_order(rankable(scores, check_nan), ties, relevance)
    counted = torch.arange(1, order.shape[-1] + 1, device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, counted)  # the inverse permutation needs no second sort
