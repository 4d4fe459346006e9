"""From the values of queries to a loss."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rambo.ranking.relevant import RelevantPlaces

Reduction = Literal["macro", "micro", "class", "none"]
REDUCTIONS = ("macro", "micro", "class", "none")


def query_weights(reduction: str, counts: Tensor, classes: Tensor | None) -> tuple[int | Tensor, int | Tensor]:
    """What each query weighs in the mean, and the sum of the weights.

    Args:
        reduction: "macro": queries alike; "micro": relevant items alike; "class": classes alike, and queries alike
            within a class; "none": no mean is taken. Queries without a relevant item are left out of every mean.
        counts: How many relevant items each query has, int64 (queries,).
        classes: The class of each query, (queries,); needed by "class" alone.

    Raises:
        ValueError: If the classes are missing.
    """
    if reduction == "none":
        return 1, 1
    if reduction == "macro":
        return 1, counts.count_nonzero()
    if reduction == "micro":
        return counts, counts.sum()
    if classes is None:
        raise ValueError('reduction="class" needs the class of each query; call from_scores with classes=')
    if classes.shape != counts.shape:
        raise ValueError(f"got {len(counts)} queries but classes of shape {tuple(classes.shape)}; give one each")
    there, (_, numbers) = counts > 0, torch.unique(classes, return_inverse=True)
    sizes = torch.zeros_like(counts).index_add_(0, numbers, there.long())
    return there / sizes[numbers].clamp(min=1).double(), sizes.count_nonzero()


def total(terms: Tensor, reduction: str, relevant: RelevantPlaces) -> Tensor:
    """The sum of the terms (relevant,): over all, or, for reduction "none", of each query (queries,)."""
    if reduction != "none":
        return terms.sum()
    return terms.new_zeros(len(relevant.counts)).index_add_(0, relevant.rows, terms)


def empty_value(on_empty: str) -> float:
    """What stands for a query without a relevant item where every query has a value."""
    return 0.0 if on_empty == "zero" else math.nan
