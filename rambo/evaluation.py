"""A data set as a retrieval model sees it, and the metrics of it that a run asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.train.answers import answers
from rambo.metrics import checked_recall_at, metric_names, retrieval_metrics


@dataclass(frozen=True)
class Embedded:
    """A data set as the model sees it.

    Attributes:
        embeddings: float32 (images, dimensions), on the model's device like the rest.
        labels: int64 (images,).
        indices: Position in the data set, int64 (images,).
        roles: int64 (images,); 0 = query and gallery, 1 = query only, 2 = gallery only.
    """

    embeddings: Tensor
    labels: Tensor
    indices: Tensor
    roles: Tensor


def embed(model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> Embedded:
    """Embeds all batches of `loader`; see `harness.train.answers`."""

    def keep(embeddings: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        labels = batch["label"].long()
        roles = batch.get("role", torch.zeros_like(labels))
        return embeddings.float(), labels, batch["index"].long(), roles.long()

    return Embedded(*map(torch.cat, zip(*answers(model, loader, keep), strict=True)))


class RetrievalMetrics:
    """Embeds a data set once and measures how the images of a class find each other.

    Args:
        recall_at: The k of `recall@k`.
        map: Whether to compute `map` too, which has to order the whole list of every query.

    Raises:
        ValueError: If a k is not a positive integer.
    """

    measures: ClassVar = {
        "queries_without_match": {"kind": "count"},
        "*": {"kind": "share", "higher_is_better": True},
    }

    def __init__(self, recall_at: Sequence[int] = (1, 2, 4, 8), map: bool = False) -> None:
        self.recall_at, self.map = checked_recall_at(recall_at), map

    def names(self) -> list[str]:
        """What a call gives."""
        return metric_names(self.recall_at, self.map)

    def __call__(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The numbers of `retrieval_metrics`. Who asks and who can be found is told by the images' roles.

        Raises:
            ValueError: As `retrieval_metrics`, or if there is no query or no gallery.
        """
        data = embed(model, loader)
        asking, found = (data.roles != 2).nonzero()[:, 0], (data.roles != 1).nonzero()[:, 0]
        if not len(asking) or not len(found):
            raise ValueError(
                f"evaluation needs queries (role 0 or 1) and a gallery (role 0 or 2), "
                f"got {len(asking)} and {len(found)} images"
            )
        options: dict[str, Any] = {"recall_at": self.recall_at, "map": self.map}
        if len(asking) == len(found) == len(data.roles):
            return retrieval_metrics(data.embeddings, data.labels, **options)
        place = torch.full_like(data.roles, -1)
        place[found] = torch.arange(len(found), device=place.device)
        queries, gallery = (data.embeddings[asking], data.labels[asking]), (data.embeddings[found], data.labels[found])
        return retrieval_metrics(*queries, *gallery, own_positions=place[asking], **options)
