"""Ranks, exact and differentiable: the one ranker of the whole project.

Rank 1 is the largest score. `ranks` gives exact integer ranks; `rank` gives the same numbers with a gradient, whose
rule is interchangeable: `Blackbox` (the method of the paper), `Identity` (a straight-through control) or `SoftRank`
(the gradient of a sigmoid relaxation). `with_gradient` attaches a gradient worked out in the forward pass.
`unit_vectors` makes scores of embeddings comparable: it divides them by their length, the zero vector excepted.

Conventions:
    Ties: `first_index_first` (default), `last_index_first`, or `pessimistic` (irrelevant items before relevant ones,
        and by position within each kind). Each gives the same answer on every device.
    Precision: half precision is ranked in float32, float64 stays float64.
    NaN: refused, because a sort would place it somewhere without a word. The check reads the scores once and, on a
        GPU, waits for the result; `check_nan=False` skips it. The losses do not wait there: theirs is NaN then.

Source: Rolinek et al. 2020, arXiv:1912.03500, section 4 and algorithm 1.
"""

from rambo.ranking.differentiable import needs_gradient, rank, rank_dtype, with_gradient
from rambo.ranking.exact import TIES, Ties, descending_order, plain, rankable, ranks
from rambo.ranking.gradient_rules import Blackbox, GradientRule, Identity, Projection, Scale, SoftRank
from rambo.ranking.unit_vectors import directions_and_lengths, unit_vectors

__all__ = [
    "TIES",
    "Blackbox",
    "GradientRule",
    "Identity",
    "Projection",
    "Scale",
    "SoftRank",
    "Ties",
    "descending_order",
    "directions_and_lengths",
    "needs_gradient",
    "plain",
    "rank",
    "rank_dtype",
    "rankable",
    "ranks",
    "unit_vectors",
    "with_gradient",
]
