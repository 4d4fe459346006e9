"""The average-precision losses of RaMBO. Import them from `rambo.losses`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rambo.losses.gallery_memory import BatchMemory, StoredBatch
from rambo.losses.pairs import check_scores
from rambo.losses.ranking import BlackboxLoss, OnEmpty, with_preset
from rambo.losses.retrieval import RankedRetrievalLoss, query_weights, total
from rambo.ranking import needs_gradient, plain, with_gradient
from rambo.ranking.exact import Ties, not_negative, one_of
from rambo.ranking.relevant import RelevantPlaces, RelevantRanks, rankable_where

MarginNoise = Literal["half_normal", "none"]
Preset = Literal["corrected", "official"]

PRESETS: dict[str, dict[str, Any]] = {
    "corrected": {"ap_eps": 0.0, "on_empty": "zero", "ties": "first_index_first"},
    "official": {"ap_eps": 1e-5, "on_empty": "nan", "ties": "last_index_first"},
}


def average_precision_formula(
    ranked: RelevantRanks, relevant: RelevantPlaces, ap_eps: float, reduction: str = "macro"
) -> tuple[Tensor, Tensor] | None:
    """1 - mean over rows of the average precision, and its derivative by the rank of each relevant item.

    The rank among relevant items is a constant here, as in the official code. Rows without a relevant item are left
    out of the mean.

    Source: eq. 21 and 22.
    """
    if not len(relevant):
        return None
    rank = ranked.before + ranked.among
    weights, whole = query_weights(reduction, relevant.counts, relevant.classes)
    row_shares = (weights / ((relevant.counts.to(rank.dtype) + ap_eps) * whole)).to(rank.dtype)
    shares = row_shares.repeat_interleave(relevant.counts, output_size=len(relevant))
    # 1 - precision is before / rank, which is 0 for a perfect ranking and never below; ap_eps takes from every row
    taken = (ap_eps * row_shares).masked_fill(relevant.counts == 0, 0)
    value = total(ranked.before / rank * shares, reduction, relevant)
    return value + (taken if reduction == "none" else taken.sum()), ranked.among / rank * shares / rank


class AveragePrecisionLoss(RankedRetrievalLoss):
    """1 - average precision of every query, averaged over queries that have a relevant item.

    Args:
        interpolation: Smoothness of the gradient (the paper's lambda), > 0. On normalised ranks.
        margin: Taken from the scores of relevant items, as far as the order goes (the paper's alpha), >= 0.
        preset: "corrected" or "official"; decides what is None.
        memory: "none" or "gallery"; see `RetrievalLoss`. None is "none" if `memory_batches` is 0.
        memory_batches: Batches stored.
        ap_eps: Added to the number of relevant items that a row's precisions are divided by: 0 (corrected) or 1e-5
            (official), which makes a perfect ranking cost a little.
        on_empty: What a batch without any relevant item gives: "zero" (corrected), "nan" (official) or "error".
        ties: "first_index_first" (corrected), "last_index_first" (official) or "pessimistic".
        options: `reduction`, `normalize`, `exclude_self`: see `RetrievalLoss`; `scale`, `rule`: see `BlackboxLoss`.

    Raises:
        ValueError: If a number is out of range, a name is unknown, or memory and its size contradict.

    Source: Rolinek et al. 2020, section 4.6, eq. 21 and 22, with queries for classes.
    """

    def __init__(
        self,
        interpolation: float,
        margin: float = 0.0,
        preset: Preset = "corrected",
        memory: Literal["none", "gallery"] | None = None,
        memory_batches: int = 0,
        *,
        ap_eps: float | None = None,
        on_empty: OnEmpty | None = None,
        ties: Ties | None = None,
        **options: Any,
    ) -> None:
        options |= with_preset(PRESETS, preset, ap_eps=ap_eps, on_empty=on_empty, ties=ties)
        ap_eps = not_negative("ap_eps", options.pop("ap_eps"))
        options |= {"memory": memory, "memory_batches": memory_batches}
        super().__init__(interpolation=interpolation, margin=margin, **options)
        self.ap_eps = ap_eps
        self.settings |= {"preset": preset, "ap_eps": self.ap_eps}

    def _formula(self, ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor] | None:
        return average_precision_formula(ranked, relevant, self.ap_eps, self.reduction)


class MeanAveragePrecisionLoss(BlackboxLoss):
    """1 - mean average precision over classes, with a second term that compares scores across classes.

    The class-wise term ranks the samples by each class's score. The inter-class term ranks all (sample, class) scores
    in one sequence, which makes scores of different classes comparable and gives rare classes a denser gradient.

    Args:
        interpolation: Smoothness of the gradient (the paper's lambda), > 0. On normalised ranks.
        margin: The paper's alpha, >= 0.
        interclass_weight: Weight of the inter-class term, 0..1; the class-wise term gets the rest. 1/3 is the 2 : 1 of
            the paper.
        preset: "corrected" or "official"; decides what is None.
        memory_batches: Earlier batches whose samples are ranked along in the class-wise term; 7 in the paper's
            detection experiments. In training alone; saved in `state_dict`.
        interclass_memory: Whether they are ranked along in the inter-class term as well, as the paper reads; the
            published code ranks the scores of the current batch alone there.
        margin_noise: "none": the margin of the paper (corrected). "half_normal": every score moves by its own draw of
            |z| * alpha / 2, z standard normal, drawn at every call from torch's generator (official; not in the
            paper).
        ap_eps: As for `AveragePrecisionLoss`.
        on_empty: What a term gives in which nothing is relevant: "zero" (corrected), "nan" (official) or "error".
        ties: "first_index_first" (corrected), "last_index_first" (official) or "pessimistic".
        options: `scale`, `rule`: see `BlackboxLoss`.

    Raises:
        ValueError: If a number is out of range or a name unknown.

    Source: Rolinek et al. 2020, section 4.6, eq. 21-23; memory: section 4.3.
    """

    def __init__(
        self,
        interpolation: float,
        margin: float = 0.0,
        interclass_weight: float = 1 / 3,
        preset: Preset = "corrected",
        memory_batches: int = 0,
        *,
        interclass_memory: bool = False,
        margin_noise: MarginNoise | None = None,
        ap_eps: float | None = None,
        on_empty: OnEmpty | None = None,
        ties: Ties | None = None,
        **options: Any,
    ) -> None:
        options |= with_preset(PRESETS, preset, ap_eps=ap_eps, on_empty=on_empty, ties=ties)
        eps = not_negative("ap_eps", options.pop("ap_eps"))
        super().__init__(interpolation, margin, **options)
        if not 0 <= interclass_weight <= 1:
            raise ValueError(f"interclass_weight must be in 0..1, got {interclass_weight}")
        self.margin_noise = margin_noise or ("half_normal" if preset == "official" else "none")
        one_of("margin_noise", self.margin_noise, ("half_normal", "none"))
        self.interclass_weight, self.interclass_memory, self.ap_eps = float(interclass_weight), interclass_memory, eps
        self.memory = BatchMemory(memory_batches)
        self.settings |= {
            "preset": preset,
            "interclass_weight": self.interclass_weight,
            "interclass_memory": self.interclass_memory,
            "margin_noise": self.margin_noise,
            "ap_eps": self.ap_eps,
            "memory_batches": self.memory.size,
        }

    def forward(self, scores: Tensor, relevance: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            scores: Floating point (samples, classes).
            relevance: Non-zero where the sample belongs to the class; bool, integer or floating point, same shape.
            ignored: Non-zero where it is neither relevant nor irrelevant, as if it were not there; same shape.

        Returns:
            A single number.

        Raises:
            TypeError: If scores are not floating point.
            ValueError: If shapes differ or differ from the memory's, there is NaN, or nothing is relevant and
                `on_empty` is "error".
        """
        counted = check_scores(scores, relevance, ignored)
        values, mask = rankable_where(scores, counted), plain(relevance) != 0
        current = {"scores": values, "relevance": mask} | ({} if counted is None else {"counted": counted})
        batches = [current, *self.memory.newest_first(values.device, relevance=mask.device, counted=mask.device)]
        if (classes := batches[-1]["scores"].shape[1]) != values.shape[1]:
            raise ValueError(
                f"the memory holds scores of {classes} classes, this batch has {values.shape[1]}; call reset_memory()"
            )
        differentiate = needs_gradient(scores)
        everything, relevance, counted = _stacked(batches)
        relevant = RelevantPlaces(relevance.T, None if counted is None else counted.T, device=values.device)
        value, gradient = self._term(everything.T, relevant, 1 - self.interclass_weight, differentiate)
        if gradient is not None:
            gradient = gradient.T[: len(values)].contiguous()
        if self.interclass_weight:
            health = self.health
            among = slice(None if self.interclass_memory else len(values))
            row = everything[among].reshape(1, -1)
            counted = None if counted is None else counted[among].reshape(1, -1)
            relevant = RelevantPlaces(relevance[among].reshape(1, -1), counted, device=values.device)
            between, push = self._term(row, relevant, self.interclass_weight, differentiate)
            self.health, value = health, value + between
            if gradient is not None and push is not None:
                gradient += push.view(-1, values.shape[1])[: len(values)]
        self.memory.push(**current)
        return value if gradient is None else with_gradient(value, scores, gradient)

    def reset_memory(self) -> None:
        """Forgets the stored batches."""
        self.memory.reset()

    def _term(
        self, values: Tensor, relevant: RelevantPlaces, weight: float, differentiate: bool
    ) -> tuple[Tensor, Tensor | None]:
        """One weighted term over rows to be ranked, and its gradient. The weight acts before lambda, as in autograd."""
        values, margin = values.contiguous(), self.margin
        if self.margin_noise == "half_normal":
            values = values - margin * self._draw_noise(values).abs() * (relevant.mask.to(values.dtype) - 0.5)
            margin = 0.0

        def formula(ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor] | None:
            found = average_precision_formula(ranked, relevant, self.ap_eps)
            return found and (weight * found[0], weight * found[1])

        return self._ranked(values, relevant, formula, margin, differentiate)

    def _draw_noise(self, values: Tensor) -> Tensor:
        return torch.randn_like(values)


def _stacked(batches: list[StoredBatch]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores, relevance and what counts of all batches, (samples, classes); None: everything counts."""
    counted = None
    if any("counted" in batch for batch in batches):
        counted = torch.cat([batch.get("counted", torch.ones_like(batch["relevance"])) for batch in batches])
    scores = torch.cat([batch["scores"].to(batches[0]["scores"].dtype) for batch in batches])
    return scores, torch.cat([batch["relevance"] for batch in batches]), counted
