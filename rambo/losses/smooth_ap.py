"""SmoothAP, for comparison. Import it from `rambo.losses`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rambo.losses.metric_learning import admit
from rambo.losses.pairs import Labels, check_scores, similarities, whole_numbers
from rambo.losses.ranking import ON_EMPTY, OnEmpty
from rambo.losses.reductions import REDUCTIONS, Reduction, empty_value, query_weights
from rambo.ranking.exact import one_of, positive
from rambo.ranking.relevant import RelevantPlaces, rankable_where


class SmoothAPLoss(nn.Module):
    """1 - average precision with relaxed ranks: 1 + sum of sigmoid((other - own) / temperature).

    Ranks are worked out for relevant items alone, so memory is (items, relevant of a query, items) and not items cubed.
    Classes may differ in size and labels come in any order.

    Args:
        temperature: Width of the sigmoid (the paper's tau), > 0.
        on_empty: What a batch without any relevant item gives: "zero", "nan" or "error".
        reduction: "macro": the mean over queries, "micro", "class" or "none"; see `RetrievalLoss`.
        exclude_self: Whether an item is left out of its own row. The authors' code keeps it, as a relevant item that
            is always first, which adds a constant precision of about 1 to every query.
        normalize: Whether embeddings are divided by their length, so that scores are cosines.

    Raises:
        ValueError: If the temperature is not positive and finite, or a name is unknown.

    Source: Brown et al. 2020, arXiv:2007.12163, eq. 6-8.
    """

    def __init__(
        self,
        temperature: float = 0.01,
        on_empty: OnEmpty = "zero",
        exclude_self: bool = True,
        normalize: bool = True,
        reduction: Reduction = "macro",
    ) -> None:
        super().__init__()
        one_of("on_empty", on_empty, ON_EMPTY)
        one_of("reduction", reduction, REDUCTIONS)
        self.temperature, self.on_empty = positive("temperature", temperature), on_empty
        self.exclude_self, self.normalize, self.reduction = bool(exclude_self), bool(normalize), reduction
        admit()
        self.settings: dict[str, Any] = {
            "temperature": self.temperature,
            "on_empty": on_empty,
            "exclude_self": self.exclude_self,
            "normalize": self.normalize,
            "reduction": reduction,
        }

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
        *,
        ids: Labels | None = None,
        ref_ids: Labels | None = None,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Loss of embeddings (items, dimensions) and one class number each, (items,); see `RetrievalLoss.forward`.

        Raises:
            TypeError: If embeddings are not floating point, or labels no numbers.
            ValueError: If shapes do not fit, labels are not exact, there is NaN, or nothing is relevant and `on_empty`
                is "error".
        """
        pairs = similarities(
            embeddings, labels, indices_tuple, ref_emb, ref_labels, ids, ref_ids, ignored,
            exclude_self=self.exclude_self, normalize=self.normalize,
        )  # fmt: skip
        return self._loss(pairs.scores, RelevantPlaces(*pairs[1:]))

    def from_scores(
        self, scores: Tensor, relevance: Tensor, ignored: Tensor | None = None, *, classes: Labels | None = None
    ) -> Tensor:
        """Loss of scores and relevance (non-zero where relevant), both (queries, items).

        Args:
            ignored: Non-zero where an item is neither relevant nor irrelevant, as if it were not there; same shape.
            classes: The class of each query, (queries,); needed by `reduction="class"` alone.

        Raises:
            TypeError: If scores are not floating point.
            ValueError: If shapes differ, there is NaN, or nothing is relevant and `on_empty` is "error".
        """
        counted = check_scores(scores, relevance, ignored)
        numbers = None if classes is None else whole_numbers(classes, "classes", scores.device)
        return self._loss(scores, RelevantPlaces(relevance, counted, None, numbers))

    def _loss(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        scores = scores.to(rankable_where(scores, relevant.counted).dtype)
        if relevant.counted is not None:
            scores = scores.masked_fill(~relevant.counted, 0.0)
        if not len(relevant):
            if self.on_empty == "error":
                raise ValueError(
                    f"nothing is relevant to any of the {len(scores)} queries; put two or more of a class into a batch"
                )
            empty = scores.sum(dim=1) if self.reduction == "none" else scores.sum()
            return empty * (math.nan if self.on_empty == "nan" else 0.0)
        columns = relevant.padded(relevant.columns, 0).T
        present = relevant.padded(torch.ones_like(relevant.columns, dtype=scores.dtype), 0).T
        own = scores.gather(1, columns)
        # (queries, most, items): how far each item stands before the relevant one; the item itself adds 1/2
        ahead = torch.sigmoid((scores[:, None, :] - own[:, :, None]) / self.temperature)
        if relevant.counted is not None:
            ahead = ahead * relevant.counted[:, None, :]
        among = 0.5 + (ahead * relevant.mask[:, None, :]).sum(dim=2)
        before = (ahead * ~relevant.mask[:, None, :]).sum(dim=2)
        # 1 - precision is before / rank, which is never below 0
        values = (before / (before + among) * present).sum(dim=1) / relevant.counts.clamp(min=1)
        if self.reduction == "none":
            return values.where(relevant.counts > 0, empty_value(self.on_empty))
        weights, whole = query_weights(self.reduction, relevant.counts, relevant.classes)
        return ((values * weights).sum() / whole).to(scores.dtype)
