"""SupAP of ROADMAP, recall of SupRank, calibration, and a sum, for comparison. Import them from `rambo.losses`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rambo.losses.pairs import Labels
from rambo.losses.retrieval import RetrievalLoss
from rambo.losses.smooth_ap import above_relevant
from rambo.losses.smooth_recall import cut_offs
from rambo.ranking.exact import not_negative, positive
from rambo.ranking.relevant import RelevantPlaces


class SupAPLoss(RetrievalLoss):
    """1 - average precision with ranks that bound the exact ones from above.

    Only the irrelevant items ahead of a relevant one have a gradient, and never a small one: an irrelevant item that
    stands t above it adds to its rank sigmoid(t / temperature) up to 0, `start` more up to `delta`, and
    `offset + slope (t - delta)` beyond: from there its gradient does not fade, however far it is ahead. Relevant items
    are counted exactly, ties against the item.

    Args:
        temperature: Width of the sigmoid (the paper's tau), > 0.
        slope: What a score that is more than `delta` ahead adds to the rank per unit (rho), >= 0.
        delta: In scores, >= 0.
        start: What any score ahead adds beside the sigmoid, >= 0.
        offset: What a score that is `delta` ahead adds. The authors' 1.44 lets it begin 0.05 below the end of the one
            before; None: where that ends.
        exclude_self: Whether an item is left out of its own row. The authors' code keeps it, as a relevant item that
            is always first; then an item alone in its class costs about 0, and counts in the mean.
        options: `on_empty`, `normalize`, `reduction`, `memory`, `memory_batches`: see `RetrievalLoss`.

    Raises:
        ValueError: If a number is outside its range.

    Source: Ramzi et al. 2021, Robust and Decomposable Average Precision for Image Retrieval (NeurIPS), as in its code.
    """

    def __init__(
        self,
        temperature: float = 0.01,
        slope: float = 100.0,
        delta: float = 0.05,
        start: float = 0.5,
        offset: float | None = 1.44,
        exclude_self: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(exclude_self=exclude_self, **options)
        self.temperature = positive("temperature", temperature)
        self.slope, self.delta = not_negative("slope", slope), not_negative("delta", delta)
        self.start = not_negative("start", start)
        ends = start + float(torch.sigmoid(torch.tensor(delta / temperature, dtype=torch.float64)))
        self.offset = ends if offset is None else not_negative("offset", offset)
        names = ("temperature", "slope", "delta", "start", "offset")
        self.settings |= {name: getattr(self, name) for name in names}

    def _ranks(self, scores: Tensor, relevant: RelevantPlaces) -> tuple[Tensor, Tensor, Tensor]:
        """Rank among the relevant items, without a graph, and among all, each (queries, most); and which are there."""
        above, present = above_relevant(scores, relevant)
        among = ((above.detach() >= 0) & relevant.mask[:, None, :]).sum(dim=2).to(scores.dtype)  # the item among them
        step = torch.sigmoid(above / self.temperature) + self.start * (above > 0)
        step = torch.where(above > self.delta, self.offset + self.slope * (above - self.delta), step)
        return among, among + (step * relevant.irrelevant[:, None, :]).sum(dim=2), present

    def _values(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        among, ranks, present = self._ranks(scores, relevant)
        missing = (ranks - among) / ranks.clamp(min=1)  # 1 - precision
        return (missing * present).sum(dim=1) / relevant.counts.clamp(min=1)


class SupRecallLoss(SupAPLoss):
    """1 - recall at k, the mean over several k, with the ranks of `SupAPLoss`.

    A query finds `sum of sigmoid((k - rank) / rank_temperature)` of its p relevant items, itself among them, out of
    min(k, p). It does not go to 0: a perfect ranking of classes of four costs 0.099.

    Args:
        at: The cut-offs k.
        rank_temperature: Width of the sigmoid over ranks, > 0.
        options: As of `SupAPLoss`.

    Raises:
        ValueError: If a number is outside its range, or a cut-off no whole number from 1.

    Source: Ramzi et al. 2025, SupRank (TPAMI), as in its code.
    """

    def __init__(self, at: Sequence[int] = (1, 2, 4, 8, 16), rank_temperature: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.at = cut_offs(at)
        self.rank_temperature = positive("rank_temperature", rank_temperature)
        self.settings |= {"at": list(self.at), "rank_temperature": self.rank_temperature}

    def _values(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        _, ranks, present = self._ranks(scores, relevant)
        recalls = []
        for k in self.at:
            hits = (torch.sigmoid((k - ranks) / self.rank_temperature) * present).sum(dim=1)
            recalls.append(hits / relevant.counts.clamp(min=1, max=k))
        return (1 - torch.stack(recalls).mean(dim=0)) * (relevant.counts > 0)


class CalibrationLoss(RetrievalLoss):
    """Relevant items nearer than one margin, irrelevant ones farther than another.

    Each part is the mean over the pairs that violate it, as in the authors' code; the paper, as remembered, takes all.

    Args:
        relevant_margin: The cosine that relevant pairs should reach.
        irrelevant_margin: The cosine that irrelevant pairs should stay below.
        options: `memory`, `memory_batches`: see `RetrievalLoss`.

    Raises:
        ValueError: If a mean over queries is asked for, or an `on_empty`: it has a value where nothing is relevant.

    Source: Ramzi et al. 2021 (NeurIPS), the calibration loss, as in its code.
    """

    def __init__(self, relevant_margin: float = 0.9, irrelevant_margin: float = 0.6, **options: Any) -> None:
        super().__init__(**options)
        if self.reduction != "macro":
            raise ValueError("calibration is a mean over pairs, not over queries; leave out reduction")
        if self.on_empty != "zero":
            raise ValueError("calibration has a value where nothing is relevant, too; leave out on_empty")
        self.relevant_margin, self.irrelevant_margin = float(relevant_margin), float(irrelevant_margin)
        self.settings |= {"relevant_margin": self.relevant_margin, "irrelevant_margin": self.irrelevant_margin}

    def _loss(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        scores = self._rankable(scores, relevant)
        parts = (self.relevant_margin - scores, relevant.mask), (scores - self.irrelevant_margin, relevant.irrelevant)
        losses = []
        for violation, there in parts:
            violation = (violation * there).relu()
            losses.append(violation.sum() / (violation > 0).sum().clamp(min=1).to(scores.dtype))
        return losses[0] + losses[1]


class RoadmapLoss(SupAPLoss):
    """SupAP and calibration, added up.

    Args:
        ap_weight: Of SupAP.
        calibration_weight: Of the calibration. ROADMAP's code: 1 and 1, SupRank's: 0.9 and 0.1; ROADMAP's paper, as
            remembered, has halves.
        relevant_margin: The cosine that relevant pairs should reach.
        irrelevant_margin: The cosine that irrelevant pairs should stay below.
        options: As of `SupAPLoss`, without memory.

    Raises:
        ValueError: If a number is outside its range, or a memory is asked for.

    Source: Ramzi et al. 2021 (NeurIPS), as in its code.
    """

    memories = ("none",)

    def __init__(
        self,
        ap_weight: float = 1.0,
        calibration_weight: float = 1.0,
        relevant_margin: float = 0.9,
        irrelevant_margin: float = 0.6,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.ap_weight = not_negative("ap_weight", ap_weight)
        self.calibration_weight = not_negative("calibration_weight", calibration_weight)
        self.calibration = CalibrationLoss(relevant_margin, irrelevant_margin)
        self.settings |= {"ap_weight": self.ap_weight, "calibration_weight": self.calibration_weight}
        self.settings |= {name: self.calibration.settings[name] for name in ("relevant_margin", "irrelevant_margin")}

    def forward(self, embeddings: Tensor, labels: Labels, *references: Any, **known: Any) -> Tensor:
        """Loss of a batch; arguments as of `RetrievalLoss`."""
        ap = super().forward(embeddings, labels, *references, **known)
        return self._sum(ap, self.calibration(embeddings, labels, *references, **known))

    def from_scores(self, scores: Tensor, relevance: Tensor, *given: Any, **known: Any) -> Tensor:
        """Loss of given scores, which should be cosines; arguments as of `RetrievalLoss`."""
        ap = super().from_scores(scores, relevance, *given, **known)
        return self._sum(ap, self.calibration.from_scores(scores, relevance, *given, **known))

    def _sum(self, ap: Tensor, calibration: Tensor) -> Tensor:
        # with a dimension, as torch gives a multiple of a number without one a float64 tangent
        return (self.ap_weight * ap[None] + self.calibration_weight * calibration[None])[0]
