"""How well a retrieval model ranks: recall@k, R-precision, MAP@R and mAP; exact, and in bounded memory.

Everything is read off one count: the number of irrelevant items that stand before each relevant one. Ties are
pessimistic: an irrelevant item stands before a relevant one of equal score, so a model that maps all images to one
point finds nothing.

With R relevant items for a query, and the j-th of them at position p_j = j + (irrelevant items before it):

* `recall@k`: 1 if p_1 <= k, else 0; any hit among the first k.
* `r_precision`: the share of the first R items that are relevant, #{j : p_j <= R} / R.
* `map_at_r`: (1/R) sum of j / p_j over p_j <= R.  Musgrave et al. 2020, arXiv:2003.08505, section 3.2.
* `map`: (1/R) sum of j / p_j over all j; average precision over the whole list.

Each is averaged over the queries that have a relevant item, and lies between 0 and 1. `class_mean_<metric>` is the mean
over the classes of the mean over their queries, so that a class counts the same however many images it has (a query
with several labels counts in each of its classes), and `reranked_<metric>` what the metric is after re-ranking. Where
queries search a gallery, `recall@k` is the cumulative matching characteristic (CMC) at k; of persons, with cameras,
that of Market-1501.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rambo.blocks import Scores
from rambo.labels import as_labels, memberships, one_each
from rambo.neighbours import RelevantItems, irrelevant_before
from rambo.reranking import GivenScores, reranked
from rambo.search import nearest, search

__all__ = ["checked_recall_at", "nearest", "retrieval_metrics", "search"]


@torch.no_grad()
def retrieval_metrics(
    query_embeddings: Tensor,
    query_labels: Tensor,
    gallery_embeddings: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    *,
    own_positions: Tensor | None = None,
    query_cameras: Tensor | None = None,
    gallery_cameras: Tensor | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
    map: bool = False,
    engine: str = "exact",
    class_means: bool = False,
    rerank: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Ranks the gallery for every query by dot product (the cosine, for unit vectors), and scores the rankings.

    Never holds the scores of all pairs, unless it ranks anew; benchmarks/README.md has time and memory.

    Args:
        query_embeddings: (queries, dimensions); ranked in float32, or in float64 if given so.
        query_labels: int64 (queries,); or bool (queries, classes), where those who share a label are relevant.
        gallery_embeddings: (gallery, dimensions); if None every query seeks among the other queries (leave-one-out).
        gallery_labels: The same of the gallery.
        own_positions: Where each query stands in the gallery, or -1 if it does not, int64 (queries,). A query does not
            find itself; which item that is, is told by position, as another image may have an equal embedding.
        query_cameras: What took each query's picture, int64 (queries,): of its class, a query neither finds nor misses
            what its own camera took, as in person re-identification (Market-1501).
        gallery_cameras: int64 (gallery,); as `gallery_labels`.
        recall_at: The k of `recall@k`.
        map: Whether to compute average precision over the whole list.
        engine: `exact`, or `faiss`, which finds the same numbers; see `rambo.search.search`.
        class_means: Whether to give each metric as the mean over classes too.
        rerank: `k1`, `k2` and `weight` of `rambo.reranking.reranked`, to give each metric after re-ranking too, by the
            engine `exact`.
        device: Where to compare; None is where the queries are. Embeddings mapped from a file are brought there block
            by block.

    Returns:
        The metrics by name, and `queries_without_match`, how many queries were left out for want of a relevant item.

    Raises:
        ValueError: If shapes disagree, labels, cameras or positions are not integers, a position lies outside the
            gallery, an embedding is not finite, or no query has a relevant item.
    """
    recall_at = checked_recall_at(recall_at)
    device = torch.device(query_embeddings.device if device is None else device)
    query_labels = query_labels.to(device)
    if gallery_embeddings is None:
        gallery_embeddings, gallery_labels, gallery_cameras = query_embeddings, query_labels, query_cameras
        own_positions = torch.arange(len(query_labels), device=query_labels.device)
    if gallery_labels is None:
        raise ValueError("gallery_embeddings came without gallery_labels: give both, or neither for leave-one-out")
    gallery_labels = gallery_labels.to(device)
    _check("query", query_embeddings, query_labels)
    _check("gallery", gallery_embeddings, gallery_labels)
    own_positions = _checked_positions(own_positions, query_labels, len(gallery_labels))
    cameras = _checked_cameras((query_cameras, query_labels), (gallery_cameras, gallery_labels))
    relevant = RelevantItems(as_labels(query_labels), as_labels(gallery_labels), own_positions, *cameras)
    asking = _checked_queries(relevant, len(query_labels), cameras[0] is not None)
    scores = Scores(query_embeddings, gallery_embeddings, device)
    weights = _class_weights(query_labels, asking).cpu() if class_means else None
    means = _means(scores, relevant, recall_at, map, engine, weights)
    if rerank is not None:
        similarities = reranked(query_embeddings, gallery_embeddings, own_positions, **rerank, device=device)
        means += _means(GivenScores(similarities), relevant, recall_at, map, "exact", weights)
    names = metric_names(recall_at, map, class_means, rerank is not None)
    return dict(zip(names, [*means, float(len(query_labels) - len(asking))], strict=True))


def _checked_queries(relevant: RelevantItems, queries: int, by_cameras: bool) -> Tensor:
    """The queries with a relevant item."""
    if not len(relevant.queries_with_match):
        what = "labels and the cameras" if by_cameras else "labels"
        raise ValueError(f"none of the {queries} queries has a relevant item in the gallery: check the {what}")
    return relevant.queries_with_match


def metric_names(recall_at: Sequence[int], map: bool, class_means: bool = False, rerank: bool = False) -> list[str]:
    """What `retrieval_metrics` gives."""
    names = [*(f"recall@{k}" for k in recall_at), "r_precision", "map_at_r", *(["map"] if map else [])]
    names += [f"class_mean_{name}" for name in names] if class_means else []
    names += [f"reranked_{name}" for name in names] if rerank else []
    return [*names, "queries_without_match"]


def _means(
    scores: Scores, relevant: RelevantItems, recall_at: Sequence[int], map: bool, engine: str, weights: Tensor | None
) -> list[float]:
    """Each metric averaged over the queries that have a relevant item, and then as summed with weights, if any."""
    totals = torch.zeros(1 if weights is None else 2, len(recall_at) + 3, dtype=torch.float64)
    for queries, before in irrelevant_before(scores, relevant, max(recall_at), map, engine):
        shares = _shares(before.cpu(), relevant.counts[queries].cpu(), recall_at)
        totals[0] += torch.stack([share.sum() for share in shares])
        if weights is not None:
            totals[1] += torch.stack([(share * weights[queries.cpu(), None]).sum() for share in shares])
    totals[0] /= len(relevant.queries_with_match)
    return [value for row in totals.tolist() for value in (row if map else row[:-1])]  # the last needs `map`


def _class_weights(query_labels: Tensor, asking: Tensor) -> Tensor:
    """What each of the queries that ask counts in a mean over classes, float64 (queries,); their sum is 1."""
    queries, labels = memberships(query_labels[asking])
    _, kind, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    weights = torch.zeros(len(query_labels), dtype=torch.float64, device=query_labels.device)
    return weights.index_add_(0, asking[queries], 1 / (counts[kind].double() * len(counts)))


def _shares(before: Tensor, counts: Tensor, recall_at: Sequence[int]) -> list[Tensor]:
    """What each relevant item adds to each metric of its query: the recalls, R-precision, MAP@R and mAP.

    Args:
        before: Irrelevant items before each relevant one, int64 (queries, widest class).
        counts: Relevant items of each query (R), int64 (queries,).
        recall_at: The k of `recall@k`.

    Returns:
        float64 (queries, 1) for the recalls, (queries, widest class) for the others.
    """
    number = torch.arange(1, before.shape[1] + 1)
    position = before + number
    real = number <= counts[:, None]
    among_first = real & (position <= counts[:, None])
    precision = number.double() / position
    recalls = [(position[:, :1] <= k).double() for k in recall_at]
    shares = [among_first.double(), precision * among_first, precision * real]
    return [*recalls, *(share / counts[:, None] for share in shares)]


def checked_recall_at(recall_at: Sequence[int]) -> tuple[int, ...]:
    """The k of `recall@k`, refused if one is not a positive integer."""
    try:
        ks = tuple(operator.index(k) for k in recall_at if not isinstance(k, bool))
    except TypeError:
        ks = ()
    if not ks or len(ks) < len(recall_at) or min(ks) < 1:
        raise ValueError(f"recall_at must list positive integers, such as [1, 2, 4, 8], got {recall_at}")
    return ks


def _checked_positions(own: Tensor | None, query_labels: Tensor, gallery: int) -> Tensor | None:
    """Positions as int64, where the labels are."""
    if own is None:
        return None
    if own.shape != query_labels.shape[:1] or own.is_floating_point() or own.is_complex() or own.dtype == torch.bool:
        raise ValueError(
            f"own_positions must be one integer for each of the {len(query_labels)} queries, "
            f"got {own.dtype} {tuple(own.shape)}"
        )
    own = own.long().to(query_labels.device)
    if len(own) and not (int(own.min()) >= -1 and int(own.max()) < gallery):
        raise ValueError(
            f"own_positions must lie between 0 and {gallery - 1}, or be -1 for a query that the gallery does not hold, "
            f"got {int(own.min())} to {int(own.max())}"
        )
    return own


def _checked_cameras(*sides: tuple[Tensor | None, Tensor]) -> list[Tensor | None]:
    """Cameras of queries and of the gallery as int64, where their labels are; both None, or both given."""
    for cameras, labels in sides:
        if cameras is not None and (cameras.shape != labels.shape[:1] or cameras.is_floating_point()):
            raise ValueError(
                f"cameras must be one integer for each of the {len(labels)} labels, got {cameras.dtype}"
                f" {tuple(cameras.shape)}"
            )
    if len({cameras is None for cameras, _ in sides}) > 1:
        raise ValueError("cameras came of queries or of the gallery alone: give both, or neither")
    return [None if cameras is None else cameras.long().to(labels.device) for cameras, labels in sides]


def _check(name: str, embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.ndim != 2 or not one_each(labels, len(embeddings)):
        raise ValueError(
            f"{name} embeddings must be (items, dimensions) with one label each, or bool (items, classes), "
            f"got embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} labels must be integers, as large ones would collide in {labels.dtype}: got floats")
