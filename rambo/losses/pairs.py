"""From embeddings and labels to scores, and which of them count as relevant, as irrelevant or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rambo.labels import alike, as_labels, one_each, several
from rambo.ranking.exact import plain, sent, waits
from rambo.ranking.relevant import RelevantPlaces
from rambo.ranking.unit_vectors import unit_vectors

Labels = Any
"""Whole numbers, one per item, or bool (items, classes) where an item may have several labels: a tensor, array or list.

A tensor on a device has to be waited for, unless its attribute `on_host` holds the same numbers on the CPU, as that of
a tensor that the trainer has moved there does.
"""


def meeting_place(device: torch.device, *given: Any) -> torch.device:
    """Where numbers are compared: on the CPU if all that are given are there, for nobody has to wait then."""
    if device.type == "cpu":
        return device
    seen = (getattr(each, "on_host", each) for each in given)
    return device if any(isinstance(each, Tensor) and waits(each) for each in seen) else torch.device("cpu")


def whole_numbers(values: Labels, name: str = "labels", device: torch.device | None = None) -> Tensor:
    """The numbers as int64, or several labels as they are, on the device if one is named.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are floating point and not whole, or so large for their type that neighbours are one number.
    """
    try:
        numbers = torch.as_tensor(getattr(values, "on_host", values))
    except (TypeError, ValueError, RuntimeError):
        numbers = None
    if numbers is None or numbers.is_complex():
        kind = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"{name} must be whole numbers in a tensor, an array or a list, got {kind}; number the classes")
    numbers = plain(numbers)
    if numbers.is_floating_point():
        exact = (numbers == numbers.round()) & (numbers.abs() < 2 / torch.finfo(numbers.dtype).eps)
        if not exact.all():
            raise ValueError(
                f"{name} of {numbers.dtype} hold {numbers[~exact].flatten()[0].item():g}, which is not whole or too "
                "large for that type to be told from its neighbours, so that classes would be merged; give integers"
            )
    numbers = as_labels(numbers)
    return numbers if device is None else sent(numbers, device)


def check_embeddings(
    embeddings: Tensor,
    labels: Labels,
    names: tuple[str, str] = ("embeddings", "labels"),
    place: torch.device | None = None,
    one: bool = False,
) -> Tensor:
    """Refuses what a retrieval loss cannot mean; returns the labels, on `place` or where the embeddings are.

    Args:
        embeddings: (items, dimensions).
        labels: See `Labels`.
        names: What the two are called.
        place: Where the labels are wanted.
        one: Whether each item has to have one number.

    Raises:
        TypeError: If embeddings are not floating point, or labels no numbers.
        ValueError: If they are not (items, dimensions), or labels not one exact number, or row of bool, per item.
    """
    if embeddings.dim() != 2:
        raise ValueError(f"{names[0]} must have shape (items, dimensions), got {tuple(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise TypeError(f"{names[0]} must be floating point, got {embeddings.dtype}")
    numbers = whole_numbers(labels, names[1], embeddings.device if place is None else place)
    if numbers.dim() == 2 and (one or not several(numbers)):
        others = "" if one else ", or give bool (items, classes) where an item may have several labels"
        raise ValueError(
            f"{names[1]} must be one number per item, got {numbers.shape[1]} label columns of {numbers.dtype}, shape "
            f"{tuple(numbers.shape)}; choose one column{others}"
        )
    if not one_each(numbers, len(embeddings)):
        raise ValueError(
            f"got {len(embeddings)} {names[0]} but {names[1]} of shape {tuple(numbers.shape)}; give one each"
        )
    return numbers


def check_scores(scores: Tensor, relevance: Tensor, ignored: Tensor | None = None) -> Tensor | None:
    """Refuses anything but equally shaped matrices; returns which items count, where the relevance is; None: all.

    Raises:
        ValueError: If they are not.
    """
    if scores.dim() != 2 or relevance.shape != scores.shape:
        raise ValueError(
            "scores and relevance must have the same shape of two dimensions, "
            f"got {tuple(scores.shape)} and {tuple(relevance.shape)}"
        )
    if ignored is None:
        return None
    if ignored.shape != scores.shape:
        raise ValueError(f"ignored must have the shape {tuple(scores.shape)}, got {tuple(ignored.shape)}")
    return sent(plain(ignored), relevance.device) == 0


def without_diagonal(square: Tensor) -> Tensor:
    """Drops the diagonal of an (items, items) matrix and closes the gap: (items, items - 1)."""
    items = len(square)
    if items < 2:
        return square[:, :0]
    return square.flatten()[1:].view(items - 1, items + 1)[:, :-1].reshape(items, items - 1)


def same_items(numbers: Tensor, ids: Tensor | None, ref_ids: Tensor | None, themselves: bool) -> Tensor | None:
    """Which reference is the query itself, bool (queries, references); None if nothing tells.

    Args:
        numbers: The labels of the queries.
        ids: Which item each query is, or None.
        ref_ids: Which item each reference is, or None.
        themselves: Whether the references are the queries, in the same order.
    """
    same = None if ids is None or ref_ids is None else ids[:, None] == ref_ids
    if not themselves:
        return same
    place = torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)
    return place if same is None else same | place


class Pairs(NamedTuple):
    """Pairs that count, each bool (queries, items): an `indices_tuple` as masks, whose shape is known."""

    relevant: Tensor
    irrelevant: Tensor

    def indices(self, device: torch.device) -> tuple[Tensor, ...]:
        """(anchors, positives, anchors, negatives), on a device."""
        found = (*self.relevant.nonzero(as_tuple=True), *self.irrelevant.nonzero(as_tuple=True))
        return tuple(sent(indices, device) for indices in found)


def chosen_pairs(indices_tuple: Sequence[Tensor] | Pairs, like: Tensor) -> Pairs:
    """The relevant and the irrelevant pairs that a miner chose, each bool of the shape and device of `like`.

    Args:
        indices_tuple: (anchors, positives, negatives), (anchors, positives, anchors, negatives), or `Pairs`.
        like: (queries, items).

    Raises:
        ValueError: If there are neither three nor four index tensors, or an index is out of range.
    """
    if isinstance(indices_tuple, Pairs):
        return indices_tuple
    if len(indices_tuple) not in (3, 4):
        raise ValueError(
            "indices_tuple must be (anchors, positives, negatives) or (anchors, positives, anchors, negatives), "
            f"got {len(indices_tuple)} of them"
        )
    anchors, positives, *rest = (whole_numbers(indices, "indices_tuple", like.device) for indices in indices_tuple)
    other_anchors, negatives = rest if len(rest) == 2 else (anchors, *rest)
    relevant, irrelevant = torch.zeros_like(like, dtype=torch.bool), torch.zeros_like(like, dtype=torch.bool)
    try:
        relevant[anchors, positives] = True
        irrelevant[other_anchors, negatives] = True
    except IndexError as error:
        raise ValueError(
            f"indices_tuple does not fit {like.shape[0]} queries and {like.shape[1]} items: {error}"
        ) from None
    return Pairs(relevant, irrelevant)


def judged(
    same_class: Tensor, itself: Tensor | None, indices_tuple: Sequence[Tensor] | Pairs | None, ignored: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Which items are relevant to each query, and which count at all; None: all do.

    Args:
        same_class: bool (queries, items).
        itself: Where an item is the query itself and does not count, bool (queries, items); None: nowhere.
        indices_tuple: The pairs that a miner chose, if one did.
        ignored: Non-zero where an item does not count, (queries, items).
    """
    counted = check_scores(same_class, same_class, ignored)
    if itself is not None:
        counted = ~itself if counted is None else counted & ~itself
    if indices_tuple is None:
        return same_class, counted
    relevant, irrelevant = chosen_pairs(indices_tuple, same_class)
    named = relevant | irrelevant
    return relevant, named if counted is None else counted & named


def similarities(
    embeddings: Tensor,
    labels: Labels,
    indices_tuple: Sequence[Tensor] | Pairs | None = None,
    ref_emb: Tensor | None = None,
    ref_labels: Labels | None = None,
    ids: Labels | None = None,
    ref_ids: Labels | None = None,
    ignored: Tensor | None = None,
    *,
    exclude_self: bool,
    normalize: bool,
    found: Callable[[Tensor, Tensor], Tensor] = lambda relevance, itself: relevance,
) -> tuple[Tensor, RelevantPlaces]:
    """Scores of every item as a query against the references, or all others of the batch; see `RetrievalLoss.forward`.

    Args (beyond those of `RetrievalLoss` and its forward):
        found: Called where `exclude_self` is off, with what is relevant and where the query itself is, both bool
            (queries, items); returns what is to be found.

    Returns:
        The scores (queries, items), with a graph, and what is asked of them.

    Raises:
        TypeError: If embeddings are not floating point, or labels no numbers.
        ValueError: If shapes do not fit, or only one half of a pair of arguments is given.
    """
    place = meeting_place(embeddings.device, labels, ids, ref_labels, ref_ids, ignored, *(indices_tuple or ()))
    numbers = check_embeddings(embeddings, labels, place=place)
    ids = None if ids is None else check_embeddings(embeddings, ids, ("embeddings", "ids"), place, one=True)
    queries = references = _vectors(embeddings, normalize)
    ref_numbers, themselves = numbers, True
    if ref_emb is None:
        if ref_labels is not None or ref_ids is not None:
            raise ValueError("ref_labels and ref_ids describe ref_emb, which is missing; give ref_emb too")
        ref_ids = ids
    else:
        if ref_labels is None or (ids is None) != (ref_ids is None):
            raise ValueError("ref_emb needs ref_labels, and ids and ref_ids need each other; give both or neither")
        themselves = (ref_emb is embeddings or ref_labels is labels) and len(ref_emb) == len(embeddings)
        ref_emb = sent(ref_emb, embeddings.device)
        ref_numbers = check_embeddings(ref_emb, ref_labels, ("ref_emb", "ref_labels"), place)
        ref_ids = (
            None if ref_ids is None else check_embeddings(ref_emb, ref_ids, ("ref_emb", "ref_ids"), place, one=True)
        )
        if ref_emb.shape[1] != embeddings.shape[1]:
            raise ValueError(f"ref_emb has {ref_emb.shape[1]} dimensions, embeddings {embeddings.shape[1]}")
        references = _vectors(ref_emb, normalize).to(queries.dtype)
    # autocast would multiply in half precision, where many scores are equal
    with torch.autocast(embeddings.device.type, enabled=False):
        scores = queries @ references.T
    same_class = alike(numbers, ref_numbers)
    if exclude_self and ref_emb is None and ids is None and indices_tuple is None and ignored is None:
        scores, same_class = without_diagonal(scores), without_diagonal(same_class)
        return scores, RelevantPlaces(same_class, classes=numbers, device=scores.device)
    itself = same_items(numbers, ids, ref_ids, themselves)
    relevance, counted = judged(same_class, itself if exclude_self else None, indices_tuple, ignored)
    if itself is not None and not exclude_self:
        relevance = found(relevance, itself)
    items = (len(queries) - exclude_self) or None
    return scores, RelevantPlaces(relevance, counted, items, numbers, scores.device)


def _vectors(embeddings: Tensor, normalize: bool) -> Tensor:
    """In float32 or float64, divided by their length if asked."""
    if normalize:
        return unit_vectors(embeddings)
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()
