"""SmoothAP, for comparison. Import it from `rambo.losses`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rambo.embedding_pairs import check_embeddings, check_scores, similarities, unit_length
from rambo.exact_ranks import one_of, positive, rankable
from rambo.ranking_loss import ON_EMPTY, OnEmpty
from rambo.relevant import Relevant


class SmoothAPLoss(nn.Module):
    """1 - average precision with relaxed ranks: 1 + sum of sigmoid((other - own) / temperature).

    Ranks are worked out for relevant items alone, so memory is (items, relevant of a query, items) and not items cubed.
    Classes may differ in size and labels come in any order.

    Args:
        temperature: Width of the sigmoid (the paper's tau), > 0.
        on_empty: What a batch without any relevant item gives: "zero", "nan" or "error".
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
    ) -> None:
        super().__init__()
        one_of("on_empty", on_empty, ON_EMPTY)
        self.temperature, self.on_empty = positive("temperature", temperature), on_empty
        self.exclude_self, self.normalize = bool(exclude_self), bool(normalize)
        self.settings: dict[str, Any] = {
            "temperature": self.temperature,
            "on_empty": on_empty,
            "exclude_self": self.exclude_self,
            "normalize": self.normalize,
        }

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of embeddings (items, dimensions) and one class number each, (items,).

        Raises:
            TypeError: If embeddings are not floating point.
            ValueError: If shapes do not fit, there is NaN, or nothing is relevant and `on_empty` is "error".
        """
        check_embeddings(embeddings, labels)
        scores, relevance = similarities(unit_length(embeddings, self.normalize), labels, self.exclude_self)
        return self.from_scores(scores, relevance)

    def from_scores(self, scores: Tensor, relevance: Tensor) -> Tensor:
        """Loss of scores and relevance (non-zero where relevant), both (queries, items).

        Raises:
            TypeError: If scores are not floating point.
            ValueError: If shapes differ, there is NaN, or nothing is relevant and `on_empty` is "error".
        """
        check_scores(scores, relevance)
        scores = scores.to(rankable(scores).dtype)
        relevant = Relevant(relevance)
        if not len(relevant):
            if self.on_empty == "error":
                raise ValueError(
                    f"nothing is relevant to any of the {len(scores)} queries; put two or more of a class into a batch"
                )
            return scores.sum() * (math.nan if self.on_empty == "nan" else 0.0)
        columns = relevant.padded(relevant.columns, 0).T
        present = relevant.padded(torch.ones_like(relevant.columns, dtype=scores.dtype), 0).T
        own = scores.gather(1, columns)
        # (queries, most, items): how far each item stands before the relevant one; the item itself adds 1/2
        ahead = torch.sigmoid((scores[:, None, :] - own[:, :, None]) / self.temperature)
        ranks = 0.5 + ahead.sum(dim=2)
        among = 0.5 + (ahead * relevant.mask[:, None, :]).sum(dim=2)
        mean_precision = (among / ranks * present).sum(dim=1) / relevant.counts.clamp(min=1)
        return 1 - mean_precision.sum() / relevant.counts.count_nonzero()
