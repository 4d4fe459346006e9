"""Which gallery items stand near a query: exact and chunk by chunk, so that the scores of all pairs are never held.

A score is a dot product, which is the cosine for vectors of unit length.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator

import torch
from torch import Tensor

SCORE_BYTES = 128 * 2**20  # of scores held at a time; more makes the matrix product no faster


@torch.no_grad()
def nearest(queries: Tensor, gallery: Tensor, count: int, own_positions: Tensor | None = None) -> Tensor:
    """Positions of the `count` gallery items of highest score with each query, best first, int64 (queries, count).

    Args:
        queries: (queries, dimensions).
        gallery: (gallery, dimensions).
        count: How many to find. Of equal ones the first in the gallery comes first.
        own_positions: Where each query stands in the gallery, so that it does not find itself, or -1 if it does not;
            int64 (queries,).

    Raises:
        ValueError: If the gallery holds fewer than `count` other items.
    """
    count = operator.index(count)
    available = len(gallery) - (own_positions is not None)
    if not 1 <= count <= available:
        raise ValueError(f"count must lie between 1 and the {available} items that can be found, got {count}")
    found = torch.empty(len(queries), count, dtype=torch.int64, device=queries.device)
    for rows, scores in score_chunks(queries, torch.arange(len(queries), device=queries.device), gallery):
        if own_positions is not None:
            own = own_positions[rows].to(scores.device)
            scores[(own >= 0).nonzero()[:, 0], own[own >= 0]] = -torch.inf
        found[rows] = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return found


def score_chunks(
    queries: Tensor, which: Tensor, gallery: Tensor, extra_columns: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the queries and their scores, (some, gallery), until all of `which` have had their turn.

    Scores are float32, or float64 for float64 queries, each times a power of two that is the same for all of them, so
    that none is too large or too small for its type. The caller may overwrite them, as the next chunk does.

    Args:
        queries: (queries, dimensions).
        which: The queries to go through, and their order, int64.
        gallery: (gallery, dimensions).
        extra_columns: Memory that the caller needs for each query, in columns of scores.
    """
    kind = torch.float64 if queries.dtype == torch.float64 else torch.float32
    queries, gallery = _moderate(queries, kind), _moderate(gallery, kind)
    distinct, equal_to = _without_repeats(gallery)
    rows = max(1, SCORE_BYTES // ((len(gallery) + extra_columns) * distinct.element_size()))
    buffer = distinct.new_empty(min(rows, len(which)), len(distinct))
    with torch.autocast(queries.device.type, enabled=False):  # half precision would invent ties
        for start in range(0, len(which), rows):
            some = which[start : start + rows]
            scores = torch.mm(queries[some], distinct.T, out=buffer[: len(some)])
            yield some, scores if equal_to is None else scores[:, equal_to]


def _moderate(vectors: Tensor, kind: torch.dtype) -> Tensor:
    """The vectors times a power of two, if their products might leave the range of the type; no order changes by it."""
    vectors = vectors.to(kind)
    largest = float(vectors.abs().max()) if vectors.numel() else 0.0
    power = math.frexp(largest)[1]
    widest = math.frexp(torch.finfo(kind).max)[1] // 4
    if not largest or abs(power) < widest:
        return vectors
    half = power // 2  # in two steps, as one factor may itself be out of range
    return vectors * 2.0**-half * 2.0 ** (half - power)


def _without_repeats(gallery: Tensor) -> tuple[Tensor, Tensor | None]:
    """The distinct rows, and for every row which of them it equals (None if all are distinct).

    A matrix product may round one dot product differently in different columns. Computing it once for equal rows makes
    their ties exact.
    """
    distinct, equal_to = torch.unique(gallery, dim=0, return_inverse=True)
    return (gallery, None) if len(distinct) == len(gallery) else (distinct, equal_to)


class RelevantItems:
    """For each query, the gallery items of its class: where they are, and which of them is the query itself.

    Args:
        query_labels: int64 (queries,).
        gallery_labels: int64 (gallery,).
        own_positions: Where each query stands in the gallery, or -1 if it does not, int64 (queries,).
    """

    def __init__(self, query_labels: Tensor, gallery_labels: Tensor, own_positions: Tensor | None) -> None:
        ordered = gallery_labels.sort(stable=True)
        self.by_class = ordered.indices
        self.start = torch.searchsorted(ordered.values, query_labels)
        self.in_class = torch.searchsorted(ordered.values, query_labels, right=True) - self.start
        self.own = torch.full_like(query_labels, -1) if own_positions is None else own_positions
        # the gallery may hold the query under another label
        alike = (self.own >= 0) & (gallery_labels[self.own.clamp(min=0)] == query_labels)
        self.counts = self.in_class - alike.long()
        # Queries with alike numbers of relevant items share a chunk, so that few of its places are empty.
        order = self.counts.sort(stable=True)
        self.queries_with_match = order.indices[order.values > 0]

    def places(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Gallery positions of the items of each query's class, itself included, and which of them are relevant.

        Both have the shape (queries, widest class); where a class is narrower, its last position is repeated.
        """
        sizes = self.in_class[queries, None]
        number = torch.arange(int(sizes.max()), device=queries.device)
        columns = self.by_class[self.start[queries, None] + torch.minimum(number, sizes - 1)]
        return columns, (number < sizes) & (columns != self.own[queries, None])


def irrelevant_before(scores: Tensor, columns: Tensor, is_relevant: Tensor, depth: int, first_depth: int) -> Tensor:
    """How many irrelevant items stand before each relevant one, best first, int64 (queries, widest class).

    An irrelevant item stands before a relevant one of equal score. Counting is cheaper when it may stop: numbers below
    `depth` are exact and others are at least `depth`. Places at the end without a relevant item have no meaning.

    Args:
        scores: (queries, gallery); overwritten.
        columns: Positions of the items of each query's class, (queries, widest class).
        is_relevant: Which of them are relevant, bool (queries, widest class).
        depth: How far to count.
        first_depth: How far to count before the best relevant item.
    """
    relevant = scores.gather(1, columns).masked_fill_(~is_relevant, -torch.inf).sort(dim=1, descending=True).values
    irrelevant = scores.scatter_(1, columns, -torch.inf)
    before = torch.searchsorted(-_highest(irrelevant, depth), -relevant, right=True)  # highest ones >= the relevant one
    if first_depth > depth:
        before[:, 0] = _count_at_least(irrelevant, relevant[:, :1])
    return before


def _count_at_least(scores: Tensor, threshold: Tensor) -> Tensor:
    """Scores of each row that reach its threshold, (queries, 1), as int64 (queries,)."""
    pairs = zip(
        torch.split(scores, 16), torch.split(threshold, 16), strict=True
    )  # so few rows at a time stay in the cache
    return torch.cat([(some >= least).sum(1, dtype=torch.int32) for some, least in pairs]).long()


def _highest(scores: Tensor, count: int) -> Tensor:
    """The `count` highest scores of each row in falling order."""
    if 4 * count < scores.shape[1]:
        return scores.topk(count, dim=1).values
    if scores.device.type == "cpu":  # NumPy sorts plain numbers several times as fast as torch
        scores.numpy().sort(axis=1)
        return scores.flip(1)[:, :count]
    return scores.sort(dim=1, descending=True).values[:, :count]
