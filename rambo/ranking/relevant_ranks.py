"""Ranks of the relevant items by the fastest way for the shape, and the score gradient that follows from them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rambo.ranking.exact import Ties
from rambo.ranking.gradient_rules import Blackbox, GradientRule
from rambo.ranking.relevant import Relevant, RelevantRanks
from rambo.ranking.strategies import CountedRanks, MergedRanks, SortedRanks

Strategy = Literal["auto", "sorted", "counting", "merging"]
STRATEGIES = ("auto", "sorted", "counting", "merging")


def relevant_ranks(
    scores: Tensor, relevant: Relevant, ties: Ties, margin: float = 0.0, strategy: Strategy = "auto"
) -> RelevantRanks:
    """Ranks of the relevant items by the way that suits the shape.

    Args:
        scores: float32 or float64 without NaN, (rows, items).
        relevant: Which of them are relevant.
        ties: The tie rule.
        margin: By how much relevant scores are lowered before ranking; ranks as if alpha/2 were taken from them and
            added to the others, as in eq. 14.
        strategy: "auto", or one of the three by name.
    """
    if strategy == "auto" or not len(relevant):
        rows, items = scores.shape
        strategy = fastest(rows, items, relevant.most, len(relevant), torch.get_num_threads())
    if strategy == "counting":
        return CountedRanks(scores, relevant, ties, margin)
    if strategy == "merging":
        return MergedRanks(scores, relevant, ties, margin)
    return SortedRanks(scores, relevant, ties, margin)


def fastest(rows: int, items: int, most: int, relevant: int, threads: int = 1) -> Strategy:
    """The strategy that is fastest for so many rows and items, with so many relevant items at most and in all.

    The costs are nanoseconds per item, measured on a server processor; only their ratios matter. Threads share the
    rows of a sort; counting and bisection gain less from them.
    """
    if not relevant:
        return "sorted"
    bits = math.log2(items + 1)
    sort = (3.6 if items < 256 else 5.0) * bits / min(rows, threads)
    costs: dict[Strategy, float] = {
        "counting": 1.8 * most,
        "merging": sort + 140 * bits * relevant / (rows * items),
        "sorted": 2 * sort,
    }
    return min(costs, key=lambda strategy: costs[strategy])


def score_gradient(
    rule: GradientRule,
    ranked: RelevantRanks,
    scores: Tensor,
    relevant: Relevant,
    upstream: Tensor,
    ties: Ties,
    margin: float = 0.0,
) -> Tensor:
    """Gradient with respect to the scores from one with respect to the ranks of the relevant items.

    Args:
        rule: The gradient rule; `Blackbox` goes the short way, through `RelevantRanks.rank_changes`.
        ranked: The ranks of these scores.
        scores: What was ranked, before the margin, (rows, items).
        relevant: Which items the upstream gradient belongs to.
        upstream: Gradient with respect to the ranks among all items, (relevant,).
        ties: The tie rule.
        margin: By how much relevant scores were lowered.

    Returns:
        (rows, items).
    """
    if isinstance(rule, Blackbox) and rule.projection == "none":
        length = relevant.length
        strength = rule.strength(length) if isinstance(length, int) else rule.strength(length.to(scores.dtype))
        # the product is rounded before it is added, as in Blackbox.score_gradient
        if isinstance(strength, Tensor):
            return ranked.rank_changes(upstream * strength[relevant.rows]).mul_(1.0 / strength[:, None])
        return ranked.rank_changes(upstream * strength).mul_(1.0 / strength)
    dense = scores.new_zeros(scores.numel()).index_copy(0, relevant.flat, upstream)
    lowered = scores.flatten().index_add(0, relevant.flat, scores.new_full((len(relevant),), -margin))
    dense, lowered = dense.view(scores.shape), lowered.view(scores.shape)
    other_length = {} if relevant.items in (None, scores.shape[1]) else {"items": relevant.items}
    if relevant.counted is None:
        return rule.score_gradient(lowered, dense, ties, relevant.mask, **other_length)
    gradient, counts = torch.zeros_like(scores), relevant.counted.sum(dim=1)
    for count in sorted(set(counts.tolist())):  # rows of equal length at once, without what is ignored in them
        rows = (counts == count).nonzero().squeeze(1)
        columns = relevant.counted[rows].nonzero()[:, 1].view(len(rows), count)
        there = (rows[:, None], columns)
        gradient[there] = rule.score_gradient(lowered[there], dense[there], ties, relevant.mask[there], **other_length)
    return gradient
