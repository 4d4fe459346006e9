"""A data set as a retrieval model sees it, and the metrics of it that a run asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness import distributed
from harness.data.loading import EvaluationShare
from harness.train.answers import answers
from harness.train.rows import Rows, bytes_of, gathered_by_main
from rambo.labels import as_labels
from rambo.metrics import checked_recall_at, metric_names, retrieval_metrics
from rambo.reranking import checked_reranking
from rambo.search import checked_engine


@dataclass(frozen=True)
class Embedded:
    """A data set as the model sees it.

    Attributes:
        embeddings: float32 (images, dimensions), on the model's device like the rest, or mapped from a file. Of several
            processes the main one alone has them.
        labels: int64 (images,), or bool (images, classes); see `rambo.labels`.
        indices: Position in the data set, int64 (images,).
        roles: int64 (images,); 0 = query and gallery, 1 = query only, 2 = gallery only.
        cameras: int64 (images,), where the data tell them.
    """

    embeddings: Tensor
    labels: Tensor
    indices: Tensor
    roles: Tensor
    cameras: Tensor | None = None


def embed(model: nn.Module, loader: Iterable[Mapping[str, Any]], memory: int | float | str | None = None) -> Embedded:
    """Embeds all batches of `loader`; see `harness.train.answers`, and `harness.train.rows` for `memory`."""
    limit = bytes_of(memory)
    shared = isinstance(getattr(loader, "sampler", None), EvaluationShare) and distributed.world() > 1
    rows = Rows(limit // distributed.world() if shared else limit)

    def keep(embeddings: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        labels, indices = as_labels(batch["label"]), batch["index"].long()
        roles = batch.get("role", torch.zeros_like(indices))
        rows.add(embeddings.float())
        cameras = (batch["camera"].long(),) if "camera" in batch else ()
        return labels, indices, roles.long(), *cameras

    columns = [torch.cat(column) for column in zip(*answers(model, loader, keep), strict=True)]
    embeddings = rows.tensor()
    if shared:
        embeddings = gathered_by_main(embeddings, limit)
    return Embedded(embeddings, *columns)


class RetrievalMetrics:
    """Embeds a data set once and measures how the images of a class find each other.

    Args:
        recall_at: The k of `recall@k`.
        map: Whether to compute `map` too, which has to order the whole list of every query.
        memory: How much of embeddings to keep in memory, as bytes or such as "2 GiB"; with more they go to a temporary
            file, with the same numbers. Null is a quarter of the machine's memory.
        engine: What finds the neighbours: `exact`, or `faiss`, on the CPU, with the same numbers; not with `map`.
        class_means: Whether to compute each metric as the mean over classes too, `class_mean_<metric>`.
        rerank: `k1`, `k2` and `weight` of k-reciprocal re-ranking (Zhong et al. 2017), to compute each metric after it
            too, `reranked_<metric>`; for at most 25,000 images, as it holds all pairs. Null: not.

    Raises:
        ValueError: If a k is not a positive integer, or `memory`, `engine` or `rerank` cannot be.
        ImportError: If faiss is asked for and not installed.
    """

    measures: ClassVar = {
        "queries_without_match": {"kind": "count"},
        "*": {"kind": "share", "higher_is_better": True},
    }

    def __init__(
        self,
        recall_at: Sequence[int] = (1, 2, 4, 8),
        map: bool = False,
        memory: int | float | str | None = None,
        engine: str = "exact",
        class_means: bool = False,
        rerank: Mapping[str, Any] | None = None,
    ) -> None:
        self.recall_at, self.map = checked_recall_at(recall_at), map
        self.memory, self.engine = bytes_of(memory), checked_engine(engine)
        self.class_means, self.rerank = class_means, None if rerank is None else checked_reranking(rerank)
        if map and engine == "faiss":
            raise ValueError("metrics.map orders the whole list, of which faiss finds the first: use engine=exact")

    def names(self) -> list[str]:
        """What a call gives."""
        return metric_names(self.recall_at, self.map, self.class_means, self.rerank is not None)

    def __call__(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The numbers of `retrieval_metrics`. Who asks and who can be found is told by the images' roles and cameras.

        Raises:
            ValueError: As `retrieval_metrics`, or if there is no query or no gallery.
        """
        data = embed(model, loader, self.memory)
        if isinstance(getattr(loader, "sampler", None), EvaluationShare):
            return distributed.of_main(lambda: self._measured(data))
        return self._measured(data)

    def _measured(self, data: Embedded) -> dict[str, float]:
        asking, found = (data.roles != 2).nonzero()[:, 0], (data.roles != 1).nonzero()[:, 0]
        if not len(asking) or not len(found):
            raise ValueError(
                f"evaluation needs queries (role 0 or 1) and a gallery (role 0 or 2), "
                f"got {len(asking)} and {len(found)} images"
            )
        options: dict[str, Any] = {"recall_at": self.recall_at, "map": self.map, "engine": self.engine}
        options |= {"class_means": self.class_means, "rerank": self.rerank, "device": data.labels.device}
        if len(asking) == len(found) == len(data.roles):
            return retrieval_metrics(data.embeddings, data.labels, query_cameras=data.cameras, **options)
        if data.cameras is not None:
            options |= {"query_cameras": data.cameras[asking], "gallery_cameras": data.cameras[found]}
        place = torch.full_like(data.roles, -1)
        place[found] = torch.arange(len(found), device=place.device)
        queries, gallery = (
            (_some(data.embeddings, which, self.memory), data.labels[which]) for which in (asking, found)
        )
        return retrieval_metrics(*queries, *gallery, own_positions=place[asking], **options)


def _some(embeddings: Tensor, which: Tensor, memory: int) -> Tensor:
    """The embeddings at `which`, ascending: a view if they stand together, else a copy, kept as `memory` says."""
    first, last = int(which[0]), int(which[-1])
    if last - first + 1 == len(which):
        return embeddings[first : last + 1]
    rows = Rows(memory)
    for part in torch.split(which, 2**16):
        rows.add(embeddings[part.to(embeddings.device)])
    return rows.tensor()
