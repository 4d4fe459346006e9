"""From embeddings and labels to scores and relevance."""

from __future__ import annotations

import torch
from torch import Tensor

from rambo.batch_memory import BatchMemory, stored_to
from rambo.unit_vectors import unit_vectors


def check_embeddings(embeddings: Tensor, labels: Tensor) -> None:
    """Refuses what a retrieval loss cannot mean.

    Raises:
        TypeError: If embeddings are not floating point.
        ValueError: If they are not (items, dimensions), or labels not one number per item.
    """
    if embeddings.dim() != 2:
        raise ValueError(f"embeddings must have shape (items, dimensions), got {tuple(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise TypeError(f"embeddings must be floating point, got {embeddings.dtype}")
    if labels.dim() == 2:
        raise ValueError(
            f"labels must be one class number per item, got {labels.shape[1]} label columns, shape "
            f"{tuple(labels.shape)}; choose one column, or build the relevance yourself and call from_scores"
        )
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(f"got {len(embeddings)} embeddings but labels of shape {tuple(labels.shape)}; give one each")


def check_scores(scores: Tensor, relevance: Tensor) -> None:
    """Refuses anything but two equally shaped matrices.

    Raises:
        ValueError: If they are not.
    """
    if scores.dim() != 2 or relevance.shape != scores.shape:
        raise ValueError(
            "scores and relevance must have the same shape of two dimensions, "
            f"got {tuple(scores.shape)} and {tuple(relevance.shape)}"
        )


def without_diagonal(square: Tensor) -> Tensor:
    """Drops the diagonal of an (items, items) matrix and closes the gap: (items, items - 1)."""
    items = len(square)
    if items < 2:
        return square[:, :0]
    return square.flatten()[1:].view(items - 1, items + 1)[:, :-1].reshape(items, items - 1)


def unit_length(embeddings: Tensor, normalize: bool) -> Tensor:
    """The embeddings in float32 or more, divided by their length if asked."""
    if embeddings.dtype not in (torch.float32, torch.float64):
        embeddings = embeddings.float()
    return unit_vectors(embeddings) if normalize else embeddings


def similarities(
    embeddings: Tensor, labels: Tensor, exclude_self: bool, gallery: BatchMemory | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of every item as a query against all others and the stored ones, and which of them are relevant.

    Args:
        embeddings: (items, dimensions), with a graph.
        labels: Class numbers, (items,).
        exclude_self: Whether an item is left out of its own row.
        gallery: Stored batches of `embeddings` and `labels`, without a graph; their columns follow, newest first.

    Returns:
        Scores and bool relevance, (items, others + stored).

    Raises:
        ValueError: If stored embeddings have another number of dimensions.
    """
    stored = [stored_to(batch, embeddings.device) for batch in gallery.newest_first()] if gallery else []
    for batch in stored:
        if batch["embeddings"].shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"the memory holds embeddings of {batch['embeddings'].shape[1]} dimensions, this batch has "
                f"{embeddings.shape[1]}; call reset_memory()"
            )
    # autocast would multiply in half precision, where many scores are equal
    with torch.autocast(embeddings.device.type, enabled=False):
        scores = [embeddings @ embeddings.T]
        scores += [embeddings @ batch["embeddings"].to(embeddings.dtype).T for batch in stored]
    relevance = [labels[:, None] == labels] + [labels[:, None] == batch["labels"] for batch in stored]
    if exclude_self:
        scores[0], relevance[0] = without_diagonal(scores[0]), without_diagonal(relevance[0])
    if not stored:
        return scores[0], relevance[0]
    return torch.cat(scores, dim=1), torch.cat(relevance, dim=1)
