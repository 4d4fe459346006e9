"""The average-precision losses of RaMBO. Import them from `rambo.losses`."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from rambo.losses.memory import BatchMemory, stored_to
from rambo.losses.pairs import check_scores
from rambo.losses.ranking import OnEmpty, RankingLoss, RetrievalLoss
from rambo.losses.reductions import Reduction, query_weights, total
from rambo.ranking import needs_gradient, plain, with_gradient
from rambo.ranking.exact import Ties, one_of
from rambo.ranking.gradient_rules import GradientRule, Scale
from rambo.ranking.relevant import RelevantPlaces, rankable_where
from rambo.ranking.relevant_ranks import RelevantRanks

MarginNoise = Literal["half_normal", "none"]

PRESETS: dict[str, dict[str, Any]] = {
    "corrected": {"margin_noise": "none", "ap_eps": 0.0, "on_empty": "zero", "ties": "first_index_first"},
    "official": {"margin_noise": "half_normal", "ap_eps": 1e-5, "on_empty": "nan", "ties": "last_index_first"},
}


def average_precision_formula(
    ranked: RelevantRanks, relevant: RelevantPlaces, ap_eps: float, reduction: str = "macro"
) -> tuple[Tensor, Tensor]:
    """1 - mean over rows of the average precision, and its derivative by the rank of each relevant item.

    The rank among relevant items is a constant here, as in the official code. Rows without a relevant item are left
    out of the mean.

    Source: eq. 21 and 22.
    """
    rank = ranked.before + ranked.among
    weights, whole = query_weights(reduction, relevant.counts, relevant.classes)
    row_shares = (weights / ((relevant.counts.to(rank.dtype) + ap_eps) * whole)).to(rank.dtype)
    shares = row_shares.repeat_interleave(relevant.counts)
    # 1 - precision is before / rank, which is 0 for a perfect ranking and never below; ap_eps takes from every row
    taken = (ap_eps * row_shares).masked_fill(relevant.counts == 0, 0)
    value = total(ranked.before / rank * shares, reduction, relevant)
    return value + (taken if reduction == "none" else taken.sum()), ranked.among / rank * shares / rank


def _check_eps(ap_eps: float) -> float:
    if not (ap_eps >= 0 and math.isfinite(ap_eps)):
        raise ValueError(f"ap_eps must be >= 0 and finite, got {ap_eps}")
    return float(ap_eps)


class AveragePrecisionLoss(RetrievalLoss):
    """1 - average precision of every query, averaged over queries that have a relevant item.

    Args:
        interpolation: Smoothness of the gradient (the paper's lambda), > 0. On normalised ranks.
        margin: Taken from the scores of relevant items, as far as the order goes (the paper's alpha), >= 0.
        preset: "corrected" or "official"; decides what is None.
        memory: "none" or "gallery"; see `RetrievalLoss`. None is "none" if `memory_batches` is 0.
        memory_batches: Batches stored.
        reduction: "macro": the mean over queries, "micro", "class" or "none"; see `RetrievalLoss`.
        ap_eps: Added to the number of relevant items that a row's precisions are divided by: 0 (corrected) or 1e-5
            (official), which makes a perfect ranking cost a little.
        on_empty: What a batch without any relevant item gives: "zero" (corrected), "nan" (official) or "error".
        ties: "first_index_first" (corrected), "last_index_first" (official) or "pessimistic".
        exclude_self: Whether an item is left out of its own row.
        normalize: Whether embeddings are divided by their length, so that scores are cosines.
        scale: Which ranks lambda refers to; see `Blackbox`.
        rule: Another gradient rule in place of `Blackbox(interpolation, scale)`.

    Raises:
        ValueError: If a number is out of range, a name is unknown, or memory and its size contradict.

    Source: Rolinek et al. 2020, section 4.6, eq. 21 and 22, with queries for classes.
    """

    def __init__(
        self,
        interpolation: float,
        margin: float = 0.0,
        preset: Literal["corrected", "official"] = "corrected",
        memory: Literal["none", "gallery"] | None = None,
        memory_batches: int = 0,
        *,
        reduction: Reduction = "macro",
        ap_eps: float | None = None,
        on_empty: OnEmpty | None = None,
        ties: Ties | None = None,
        exclude_self: bool = True,
        normalize: bool = True,
        scale: Scale = "normalized",
        rule: GradientRule | None = None,
    ) -> None:
        one_of("preset", preset, tuple(PRESETS))
        chosen = PRESETS[preset]
        memory = memory or ("gallery" if memory_batches else "none")
        one_of("memory", memory, ("none", "gallery"))
        super().__init__(
            normalize=normalize,
            exclude_self=exclude_self,
            memory=memory,
            memory_batches=memory_batches,
            reduction=reduction,
            interpolation=interpolation,
            margin=margin,
            ties=ties or chosen["ties"],
            on_empty=on_empty or chosen["on_empty"],
            scale=scale,
            rule=rule,
        )
        self.ap_eps = _check_eps(chosen["ap_eps"] if ap_eps is None else ap_eps)
        self.settings |= {"preset": preset, "ap_eps": self.ap_eps}

    def _formula(self, ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor]:
        return average_precision_formula(ranked, relevant, self.ap_eps, self.reduction)


class MeanAveragePrecisionLoss(RankingLoss):
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
        scale: Which ranks lambda refers to; see `Blackbox`.
        rule: Another gradient rule in place of `Blackbox(interpolation, scale)`.

    Raises:
        ValueError: If a number is out of range or a name unknown.

    Source: Rolinek et al. 2020, section 4.6, eq. 21-23; memory: section 4.3.
    """

    def __init__(
        self,
        interpolation: float,
        margin: float = 0.0,
        interclass_weight: float = 1 / 3,
        preset: Literal["corrected", "official"] = "corrected",
        memory_batches: int = 0,
        *,
        interclass_memory: bool = False,
        margin_noise: MarginNoise | None = None,
        ap_eps: float | None = None,
        on_empty: OnEmpty | None = None,
        ties: Ties | None = None,
        scale: Scale = "normalized",
        rule: GradientRule | None = None,
    ) -> None:
        one_of("preset", preset, tuple(PRESETS))
        chosen = PRESETS[preset]
        super().__init__(interpolation, margin, ties or chosen["ties"], on_empty or chosen["on_empty"], scale, rule)
        if not 0 <= interclass_weight <= 1:
            raise ValueError(f"interclass_weight must be in 0..1, got {interclass_weight}")
        self.interclass_weight = float(interclass_weight)
        self.interclass_memory = interclass_memory
        self.margin_noise: str = margin_noise or chosen["margin_noise"]
        one_of("margin_noise", self.margin_noise, ("half_normal", "none"))
        self.ap_eps = _check_eps(chosen["ap_eps"] if ap_eps is None else ap_eps)
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
        stored = [stored_to(batch, values.device) for batch in self.memory.newest_first()]
        if stored and stored[0]["scores"].shape[1] != values.shape[1]:
            raise ValueError(
                f"the memory holds scores of {stored[0]['scores'].shape[1]} classes, this batch has "
                f"{values.shape[1]}; call reset_memory()"
            )
        differentiate = needs_gradient(scores)
        all_values = torch.cat([values, *(batch["scores"].to(values.dtype) for batch in stored)])
        all_relevant = torch.cat([mask, *(batch["relevance"] for batch in stored)])
        all_counted = None
        if counted is not None or any("counted" in batch for batch in stored):
            counted = torch.ones_like(mask) if counted is None else counted
            before = [batch.get("counted", torch.ones_like(batch["relevance"])) for batch in stored]
            all_counted = torch.cat([counted, *before])

        value, gradient = self._term(
            all_values.T,
            all_relevant.T,
            None if all_counted is None else all_counted.T,
            1 - self.interclass_weight,
            differentiate,
        )
        if gradient is not None:
            gradient = gradient.T[: len(values)].contiguous()
        if self.interclass_weight:
            class_wise = self.health
            among = slice(None if self.interclass_memory else len(values))
            ranked, relevant = all_values[among], all_relevant[among]
            between, push = self._term(
                ranked.reshape(1, -1),
                relevant.reshape(1, -1),
                None if all_counted is None else all_counted[among].reshape(1, -1),
                self.interclass_weight,
                differentiate,
            )
            self.health, value = class_wise, value + between
            if gradient is not None and push is not None:
                gradient += push.view(ranked.shape)[: len(values)]
        self.memory.push(scores=values, relevance=mask, **({} if counted is None else {"counted": counted}))
        return value if gradient is None else with_gradient(value, scores, gradient)

    def reset_memory(self) -> None:
        """Forgets the stored batches."""
        self.memory.reset()

    def _term(
        self, values: Tensor, mask: Tensor, counted: Tensor | None, weight: float, differentiate: bool
    ) -> tuple[Tensor, Tensor | None]:
        """One weighted term over rows to be ranked, and its gradient. The weight acts before lambda, as in autograd."""
        values, mask, margin = values.contiguous(), mask.contiguous(), self.margin
        if self.margin_noise == "half_normal":
            values = values - margin * self._draw_noise(values).abs() * (mask.to(values.dtype) - 0.5)
            margin = 0.0
        relevant = RelevantPlaces(mask, counted)
        if not len(relevant):
            fill = self._empty(values) * weight
            self._tell(values)
            return values.new_tensor(fill), torch.full_like(values, fill) if differentiate else None

        def formula(ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor]:
            value, upstream = average_precision_formula(ranked, relevant, self.ap_eps)
            return weight * value, weight * upstream

        return self._ranked(values, relevant, formula, margin, differentiate)

    def _draw_noise(self, values: Tensor) -> Tensor:
        return torch.randn_like(values)
