"""The nearest of many vectors: exact, by blocks of queries and gallery, so that memory does not grow with either."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rambo.blocks import Highest, Scores

ENGINES = ("exact", "faiss")


@torch.no_grad()
def search(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    own_positions: Tensor | None = None,
    engine: str = "exact",
    index: Any = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` gallery items of highest dot product with each query, best first; of equal ones the first in the gallery.

    Beside queries, gallery and answer it holds one block of scores, and 32 bytes for each gallery item.

    Args:
        queries: (queries, dimensions), in memory or mapped from a file, as by `torch.load(path, mmap=True)` or
            `torch.from_numpy(numpy.load(path, mmap_mode="c"))`.
        gallery: (gallery, dimensions), likewise.
        k: How many to find.
        own_positions: Where each query stands in the gallery, so that it does not find itself, or -1 if it does not;
            int64 (queries,).
        engine: `exact`, or `faiss` for its flat index on the CPU, which finds the same: queries with scores that are
            too close for float32 to order are searched again.
        index: Of faiss, over the gallery in its order and by inner products, to use with `faiss` instead of a flat one;
            one that finds too few is helped out by exact search, and one that finds others is believed.
        device: Where to search; None is where the queries are.

    Returns:
        Similarities, float32 (queries, k), or float64 for float64 queries, and positions, int64 (queries, k).

    Raises:
        ValueError: If shapes disagree, a vector is not finite, the gallery holds fewer than `k` other items, there is
            no such engine, or faiss is to search in float64.
        ImportError: If faiss is asked for and not installed.
    """
    k = operator.index(k)
    available = len(gallery) - (own_positions is not None)
    if not 1 <= k <= available:
        raise ValueError(f"k must lie between 1 and the {available} items that can be found, got {k}")
    scores = Scores(queries, gallery, device)
    own = torch.full((len(queries),), -1) if own_positions is None else own_positions
    if len(own) != len(queries):
        raise ValueError(f"got {len(queries)} queries but {len(own)} own_positions; give one each")
    own = own.to(scores.device)
    similarities = torch.empty(len(queries), k, dtype=scores.kind, device=scores.device)
    indices = torch.empty(len(queries), k, dtype=torch.int64, device=scores.device)
    left = torch.arange(len(queries), device=scores.device)
    if checked_engine(engine) == "faiss":
        again = []
        for rows, found, places in by_faiss(scores, left, min(k + 2, len(gallery)), index):
            found, order = found.masked_fill(places == own[rows, None], -torch.inf).sort(descending=True, stable=True)
            similarities[rows], indices[rows] = found[:, :k], places.gather(1, order)[:, :k]
            close = found[:, :-1] - found[:, 1:] <= scores.rounding(rows)
            again.append(rows[close[:, :k].any(dim=1) | (places < 0).any(dim=1)])
        left = torch.cat([left[:0], *again])
    for rows in scores.chunks(left):
        highest = Highest(len(rows), k, scores.kind, scores.device)
        for start, block in scores.blocks(scores.asking(rows)):
            place = own[rows] - start
            here = ((place >= 0) & (place < block.shape[1])).nonzero()[:, 0]
            block[here, place[here]] = -torch.inf
            highest.update(block, start)
        similarities[rows], indices[rows] = highest.result()
    for factor in scores.factors:
        similarities /= factor
    return similarities, indices


def nearest(queries: Tensor, gallery: Tensor, count: int, own_positions: Tensor | None = None) -> Tensor:
    """Positions of the `count` gallery items of highest score with each query, as `search` finds them."""
    return search(queries, gallery, count, own_positions=own_positions)[1]


def checked_engine(engine: str) -> str:
    """The engine, refused if it is not known or not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "faiss":
        imported_faiss()
    return engine


def imported_faiss() -> Any:
    """The package; an ImportError says how to get it."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError("engine=faiss needs faiss; run: pip install faiss-cpu, or use engine=exact") from error
    return faiss


def by_faiss(scores: Scores, which: Tensor, k: int, index: Any = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some of the queries `which`, their `k` highest scores, and where these stand, as faiss' flat index finds them.

    Equal to those of `Scores` to `Scores.rounding`, and equal ones in any order. A gallery that is not float32 in the
    memory of the CPU is copied there. Another index may find others, or too few, which then stand at -1.
    """
    if scores.kind != torch.float32:
        raise ValueError("faiss searches in float32, and the queries are float64: use engine=exact")
    gallery = scores.gallery
    if index is None and (gallery.dtype != torch.float32 or gallery.device.type != "cpu" or scores.factors[1] != 1):
        gallery = scores.items(slice(None)).cpu()
    faiss, there = imported_faiss(), gallery.contiguous().numpy() if index is None else None
    for rows in torch.split(which, 4096):
        asking = scores.asking(rows).cpu().numpy()
        if index is None:
            found, places = faiss.knn(asking, there, k, metric=faiss.METRIC_INNER_PRODUCT)
        else:
            found, places = index.search(asking, k)
        yield rows, torch.from_numpy(found).to(scores.device), torch.from_numpy(places).to(scores.device)
