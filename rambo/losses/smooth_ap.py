"""SmoothAP, for comparison. Import it from `rambo.losses`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rambo.losses.ranking import OnEmpty
from rambo.losses.retrieval import Reduction, RetrievalLoss
from rambo.ranking.exact import positive
from rambo.ranking.relevant import RelevantPlaces


def above_relevant(scores: Tensor, relevant: RelevantPlaces) -> tuple[Tensor, Tensor]:
    """How far each item stands above each relevant one of its row, from which relaxed ranks are made.

    Returns:
        Differences of scores, (queries, most relevant of a query, items), with a graph; and 1 where there is such a
        relevant item, 0 where a query has fewer, (queries, most).
    """
    columns = relevant.padded(relevant.columns, 0).T
    present = relevant.padded(torch.ones_like(relevant.columns, dtype=scores.dtype), 0).T
    own = scores.gather(1, columns)
    return scores[:, None, :] - own[:, :, None], present


class SmoothAPLoss(RetrievalLoss):
    """1 - average precision with relaxed ranks: 1 + sum of sigmoid((other - own) / temperature).

    Ranks are worked out for relevant items alone, so memory is (items, relevant of a query, items) and not items cubed.
    Classes may differ in size and labels come in any order.

    Args:
        temperature: Width of the sigmoid (the paper's tau), > 0.
        exclude_self: Whether an item is left out of its own row. The authors' code keeps it, as a relevant item that
            is always first, which adds a constant precision of about 1 to every query.
        options: `on_empty`, `normalize`, `reduction`, `memory`, `memory_batches`: see `RetrievalLoss`.

    Raises:
        ValueError: If the temperature is not positive and finite, a name is unknown, or memory and its size contradict.

    Source: Brown et al. 2020, arXiv:2007.12163, eq. 6-8.
    """

    def __init__(
        self,
        temperature: float = 0.01,
        on_empty: OnEmpty = "zero",
        exclude_self: bool = True,
        normalize: bool = True,
        reduction: Reduction = "macro",
        **options: Any,
    ) -> None:
        options |= {"normalize": normalize, "exclude_self": exclude_self, "reduction": reduction, "on_empty": on_empty}
        super().__init__(**options)
        self.temperature = positive("temperature", temperature)
        self.settings |= {"temperature": self.temperature}

    def _values(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        above, present = above_relevant(scores, relevant)
        ahead = torch.sigmoid(above / self.temperature)  # the item itself adds 1/2
        among = 0.5 + (ahead * relevant.mask[:, None, :]).sum(dim=2)
        before = (ahead * relevant.irrelevant[:, None, :]).sum(dim=2)
        # 1 - precision is before / rank, which is never below 0
        return (before / (before + among) * present).sum(dim=1) / relevant.counts.clamp(min=1)
