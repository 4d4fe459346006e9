"""How well a retrieval model ranks: recall@k, R-precision, MAP@R and mAP; exact, and in bounded memory.

Everything is read off one count: the number of irrelevant items that stand before each relevant one. Ties are
pessimistic: an irrelevant item stands before a relevant one of equal score, so a model that maps all images to one
point finds nothing.

With R relevant items for a query, and the j-th of them at position p_j = j + (irrelevant items before it):

* `recall@k`: 1 if p_1 <= k, else 0; any hit among the first k.
* `r_precision`: the share of the first R items that are relevant, #{j : p_j <= R} / R.
* `map_at_r`: (1/R) sum of j / p_j over p_j <= R.  Musgrave et al. 2020, arXiv:2003.08505, section 3.2.
* `map`: (1/R) sum of j / p_j over all j; average precision over the whole list.

Each is averaged over the queries that have a relevant item, and lies between 0 and 1.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from rambo.blocks import Scores
from rambo.neighbours import RelevantItems, irrelevant_before
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
    recall_at: Sequence[int] = (1, 2, 4, 8),
    map: bool = False,
    engine: str = "exact",
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Ranks the gallery for every query by dot product (the cosine, for unit vectors), and scores the rankings.

    Never holds the scores of all pairs: 0.22 GiB beyond the embeddings were measured at 60,502 x 512 on a CPU.

    Args:
        query_embeddings: (queries, dimensions); ranked in float32, or in float64 if given so.
        query_labels: int64 (queries,).
        gallery_embeddings: (gallery, dimensions); if None every query seeks among the other queries (leave-one-out).
        gallery_labels: int64 (gallery,).
        own_positions: Where each query stands in the gallery, or -1 if it does not, int64 (queries,). A query does not
            find itself; which item that is, is told by position, as another image may have an equal embedding.
        recall_at: The k of `recall@k`.
        map: Whether to compute average precision over the whole list.
        engine: `exact`, or `faiss`, which finds the same numbers; see `rambo.search.search`.
        device: Where to compare; None is where the queries are. Embeddings mapped from a file are brought there block
            by block.

    Returns:
        The metrics by name, and `queries_without_match`, how many queries were left out for want of a relevant item.

    Raises:
        ValueError: If shapes disagree, labels or positions are not integers, a position lies outside the gallery, an
            embedding is not finite, or no query has a relevant item.
    """
    recall_at = checked_recall_at(recall_at)
    device = torch.device(query_embeddings.device if device is None else device)
    query_labels = query_labels.to(device)
    if gallery_embeddings is None:
        gallery_embeddings, gallery_labels = query_embeddings, query_labels
        own_positions = torch.arange(len(query_labels), device=query_labels.device)
    if gallery_labels is None:
        raise ValueError("gallery_embeddings came without gallery_labels: give both, or neither for leave-one-out")
    gallery_labels = gallery_labels.to(device)
    _check("query", query_embeddings, query_labels)
    _check("gallery", gallery_embeddings, gallery_labels)
    own_positions = _checked_positions(own_positions, query_labels, len(gallery_labels))
    relevant = RelevantItems(query_labels.long(), gallery_labels.long(), own_positions)
    asking = relevant.queries_with_match
    if not len(asking):
        raise ValueError(
            f"none of the {len(query_labels)} queries has a relevant item in the gallery: check the labels"
        )
    scores = Scores(query_embeddings, gallery_embeddings, device)
    totals = torch.zeros(len(recall_at) + 3, dtype=torch.float64)
    for queries, before in irrelevant_before(scores, relevant, max(recall_at), map, engine):
        totals += _sums(before.cpu(), relevant.counts[queries].cpu(), recall_at)
    means = (totals / len(asking)).tolist()  # the last is not to be trusted without `map`
    means = [*(means if map else means[:-1]), float(len(query_labels) - len(asking))]
    return dict(zip(metric_names(recall_at, map), means, strict=True))


def metric_names(recall_at: Sequence[int], map: bool) -> list[str]:
    """What `retrieval_metrics` gives."""
    more = ["map"] if map else []
    return [*(f"recall@{k}" for k in recall_at), "r_precision", "map_at_r", *more, "queries_without_match"]


def _sums(before: Tensor, counts: Tensor, recall_at: Sequence[int]) -> Tensor:
    """Each metric summed over the queries, float64: the recalls, R-precision, MAP@R and mAP.

    Args:
        before: Irrelevant items before each relevant one, int64 (queries, widest class).
        counts: Relevant items of each query (R), int64 (queries,).
        recall_at: The k of `recall@k`.
    """
    number = torch.arange(1, before.shape[1] + 1)
    position = before + number
    real = number <= counts[:, None]
    among_first = real & (position <= counts[:, None])
    precision = number.double() / position
    recalls = [(position[:, 0] <= k).sum().double() for k in recall_at]
    shares = [among_first.double(), precision * among_first, precision * real]
    return torch.stack([*recalls, *((share / counts[:, None]).sum() for share in shares)])


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
    if own.shape != query_labels.shape or own.is_floating_point() or own.is_complex() or own.dtype == torch.bool:
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


def _check(name: str, embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{name} embeddings must be (items, dimensions) with one label each, "
            f"got embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} labels must be integers, as large ones would collide in {labels.dtype}: got floats")
