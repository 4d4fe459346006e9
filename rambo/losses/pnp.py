"""PNP, which penalises the negatives before positives, for comparison. Import it from `rambo.losses`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rambo.losses.retrieval import RetrievalLoss
from rambo.losses.smooth_ap import above_relevant
from rambo.ranking.exact import one_of, positive
from rambo.ranking.relevant import RelevantPlaces

Variant = Literal["O", "I_u", "I_b", "D_s", "D_q"]
VARIANTS = ("O", "I_u", "I_b", "D_s", "D_q")

_SERIES_BELOW = 0.02  # below, x - log(1 + x) is found by its series, where the difference would lose its digits


class PNPLoss(RetrievalLoss):
    """A function of how many irrelevant items, softly counted, stand before each relevant one: R.

    Args:
        variant: "O": R; "I_u": (1 + R) log(1 + R); "I_b": (bR - log(1 + bR)) / b^2; "D_s": log(1 + R); "D_q":
            1 - (1 + R)^-alpha. The gradient of the first three grows with R or stays, that of the last two falls.
        temperature: Width of the sigmoid, > 0.
        b: Of I_b, > 0.
        alpha: Of D_q, > 0. The authors' best run on Stanford Online Products takes 4.
        exclude_self: Whether an item is left out of its own row. The authors' code counts it as a relevant item, which
            only divides the loss by more.
        lone: Whether a query that is alone in its class counts in the mean, with a loss of about 0 ("count", as in the
            authors' code), or not ("skip", as in pytorch-metric-learning).
        options: `on_empty`, `normalize`, `reduction`, `memory`, `memory_batches`: see `RetrievalLoss`.

    O and I_u grow with the batch, and want a learning rate of their own.

    Raises:
        ValueError: If a number is not positive and finite, or a name unknown.

    Source: Li et al. 2022, Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before
    Positive Ones is Enough (AAAI), as in its code; equations 5, 7, 9, 12, 13 by the numbers of pytorch-metric-learning.
    """

    def __init__(
        self,
        variant: Variant = "O",
        temperature: float = 0.01,
        b: float = 2.0,
        alpha: float = 1.0,
        exclude_self: bool = False,
        lone: Literal["skip", "count"] = "skip",
        **options: Any,
    ) -> None:
        super().__init__(exclude_self=exclude_self, **options)
        one_of("variant", variant, VARIANTS)
        one_of("lone", lone, ("skip", "count"))
        self.variant, self.lone = variant, lone
        self.temperature = positive("temperature", temperature)
        self.b, self.alpha = positive("b", b), positive("alpha", alpha)
        self.settings |= {"variant": variant, "temperature": self.temperature, "b": b, "alpha": alpha, "lone": lone}

    def _found(self, relevance: Tensor, itself: Tensor) -> Tensor:
        if self.lone == "count":
            return relevance
        return relevance & (relevance & ~itself).any(dim=1, keepdim=True)

    def _values(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        above, present = above_relevant(scores, relevant)
        before = (torch.sigmoid(above / self.temperature) * relevant.irrelevant[:, None, :]).sum(dim=2)
        return (self._penalty(before) * present).sum(dim=1) / relevant.counts.clamp(min=1)

    def _penalty(self, before: Tensor) -> Tensor:
        if self.variant == "O":
            return before
        if self.variant == "I_u":
            return (1 + before) * before.log1p()
        if self.variant == "D_s":
            return before.log1p()
        if self.variant == "D_q":
            return -torch.expm1(-self.alpha * before.log1p())
        x = self.b * before
        small = x.clamp(max=_SERIES_BELOW)
        series = torch.zeros_like(x)
        for power in range(9, 1, -1):  # x^2/2 - x^3/3 + ...
            series = (-1) ** power / power + small * series
        return torch.where(x < _SERIES_BELOW, series * small.square(), x - x.log1p()) / self.b**2
