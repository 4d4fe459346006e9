"""Ranking a gallery again by who is near whom: k-reciprocal encoding (Zhong et al. 2017, arXiv:1701.08398)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rambo.blocks import Scores
from rambo.neighbours import runs
from rambo.ranking.unit_vectors import unit_vectors
from rambo.search import nearest

MOST = 25_000  # vectors; 12 bytes for each pair of them are held, 7 GiB
_ROWS = 256  # handled at a time


@torch.no_grad()
def reranked(
    queries: Tensor,
    gallery: Tensor,
    own_positions: Tensor | None = None,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    device: torch.device | str | None = None,
) -> Tensor:
    """Similarities after re-ranking, float32 (queries, gallery): less (1 - w) Jaccard distance and w first distance.

    The first distance of p and q is that of their unit vectors, squared, over the largest of p's. R(p, k) are the
    vectors that are among p's k nearest and have p among theirs, and p itself. R(q, k1 / 2) of a q in R(p, k1) joins
    R(p, k1) if more than two thirds of it are there. Over this set p is written as exp(-distance), of sum 1, then as
    the mean over the k2 nearest, p among them; the Jaccard distance of two such rows is 1 - sum of minima / sum of
    maxima. All is as in the released code; the paper has "two thirds or more", and neither largest distance nor sum.

    Args:
        queries: (queries, dimensions).
        gallery: (gallery, dimensions).
        own_positions: Where each query stands in the gallery, or -1 if it does not, int64 (queries,).
        k1: Nearest that are asked whether they agree; at most all there are.
        k2: Nearest whose mean is taken; 1 takes none.
        weight: Of the first distance, 0 to 1.
        device: Where to compare; None is where the queries are.

    Raises:
        ValueError: If a number is out of range, or there are more than `MOST` vectors.
    """
    checked_reranking({"k1": k1, "k2": k2, "weight": weight})
    device = torch.device(queries.device if device is None else device)
    own = torch.full((len(queries),), -1) if own_positions is None else own_positions.cpu()
    apart = own < 0
    count = len(gallery) + int(apart.sum())
    if count > MOST:
        raise ValueError(
            f"re-ranking holds all pairs of vectors, and there are {count:,} where {MOST:,} can be: set"
            " metrics.rerank=null, or evaluate on fewer images"
        )
    where = torch.where(apart, len(gallery) - 1 + apart.cumsum(0), own).to(device)
    parts = (gallery, queries[apart.to(queries.device)])
    vectors = unit_vectors(torch.cat([part.to(device, torch.float32) for part in parts]))
    everyone = torch.arange(count, device=device)
    near = torch.cat([everyone[:, None], nearest(vectors, vectors, min(k1, count - 1), everyone)], dim=1)
    rows = _encoded(vectors, near, k1)
    if k2 > 1:
        means = torch.empty_like(rows)
        for some in torch.split(everyone, _ROWS):
            means[some] = rows[near[some, :k2]].mean(1)
        rows = means
    similarities = torch.empty(len(queries), len(gallery), device=device)
    common = _Common(rows)
    for some in torch.split(torch.arange(len(queries), device=device), 64):
        least = common(rows[where[some]])[:, : len(gallery)]
        first = _distances(vectors, where[some])[:, : len(gallery)]
        similarities[some] = (weight - 1) * (1 - least / (2 - least)) - weight * first
    return similarities


def checked_reranking(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """k1, k2 and weight, refused if one is not there or out of range."""
    k1, k2, weight = (settings.get(key, -1) for key in ("k1", "k2", "weight"))
    whole = type(k1) is int and type(k2) is int and 1 <= k2 <= k1 + 1 and k1 > 0
    if not whole or type(weight) not in (int, float) or not 0 <= weight <= 1 or len(settings) > 3:
        raise ValueError(
            f"re-ranking needs k1 and k2, whole numbers from 1, k2 at most k1 + 1, and a weight of 0 to 1, such as"
            f" {{k1: 20, k2: 6, weight: 0.3}}, got {dict(settings)}"
        )
    return settings


def _distances(vectors: Tensor, some: Tensor) -> Tensor:
    """Of each of the vectors `some` to all vectors, the squared distance over the largest."""
    with torch.autocast(vectors.device.type, enabled=False):
        squared = (2 - 2 * (vectors[some] @ vectors.T)).clamp(min=0)
    return squared / squared.amax(1, keepdim=True).clamp(min=torch.finfo(squared.dtype).tiny)


def _encoded(vectors: Tensor, near: Tensor, k1: int) -> Tensor:
    """Each vector as exp(-distance) over its expanded reciprocal neighbours, of sum 1, (vectors, vectors)."""
    half = round(k1 / 2) + 1
    chunks = torch.split(near[:, 0], _ROWS)
    mutual, mutual_half = (
        torch.cat([(near[near[p, :k], :k] == p[:, None, None]).any(2) for p in chunks]) for k in (near.shape[1], half)
    )
    encoded = torch.empty(len(near), len(near), device=near.device)
    for some in chunks:
        row = torch.arange(len(some), device=near.device)[:, None]
        chosen = torch.zeros(len(some), len(near), dtype=torch.bool, device=near.device)
        chosen[row.expand_as(near[some])[mutual[some]], near[some][mutual[some]]] = True
        theirs, there = near[near[some], :half], mutual_half[near[some]]  # (some, k1 + 1, half)
        common = (chosen[row[:, :, None], theirs] & there).sum(2)
        added = there & (mutual[some] & (3 * common > 2 * there.sum(2)))[:, :, None]
        chosen[row[:, :, None].expand_as(theirs)[added], theirs[added]] = True
        weights = torch.exp(-_distances(vectors, some)) * chosen
        encoded[some] = weights / weights.sum(1, keepdim=True)
    return encoded


class _Common:
    """Sums of minima of rows that are mostly zero, (rows, columns); only what is not zero is looked at."""

    def __init__(self, rows: Tensor) -> None:
        column, self.row = rows.T.nonzero().T
        self.value = rows[self.row, column]
        self.sizes = column.bincount(minlength=rows.shape[1])
        self.starts = self.sizes.cumsum(0) - self.sizes

    def __call__(self, some: Tensor) -> Tensor:
        """Of each of some rows, (some, columns), with every row: (some, rows)."""
        here, column = some.nonzero().T
        entry, other = runs(self.starts[column], self.sizes[column])
        least = torch.minimum(some[here, column][entry], self.value[other])
        sums = torch.zeros(some.numel(), device=some.device)
        return sums.index_add_(0, here[entry] * some.shape[1] + self.row[other], least).view_as(some)


class GivenScores(Scores):
    """Scores that are there already, (queries, gallery)."""

    def __init__(self, scores: Tensor) -> None:
        self.queries, self.gallery = scores, scores.T
        self.kind, self.device = scores.dtype, scores.device

    def chunks(self, which: Tensor) -> Iterator[Tensor]:
        """As of `Scores`, like the rest."""
        yield from torch.split(which, _ROWS) if len(which) else ()

    def asking(self, rows: Tensor) -> Tensor:
        """A copy of the scores of some queries."""
        return self.queries[rows]

    def blocks(self, asking: Tensor, begin: int = 0) -> Iterator[tuple[int, Tensor]]:
        """One block."""
        yield begin, asking[:, begin:]

    def of(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores of each query with items of its own."""
        return self.queries[rows[:, None], columns]
