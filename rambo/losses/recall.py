"""The recall loss of RaMBO. Import it from `rambo.losses`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rambo.losses.ranking import OnEmpty, with_preset
from rambo.losses.retrieval import RankedRetrievalLoss, Reduction, query_weights, total
from rambo.losses.weights import Slope, Weight, WeightFunction
from rambo.ranking.exact import Ties, one_of
from rambo.ranking.relevant import RelevantPlaces, RelevantRanks

PRESETS: dict[str, dict[str, Any]] = {
    "corrected": {
        "denormalize": "counts",
        "reduction": "macro",
        "on_empty": "zero",
        "ties": "first_index_first",
        "memory": "gallery",
    },
    "official": {
        "denormalize": "rows",
        "reduction": "micro",
        "on_empty": "nan",
        "ties": "last_index_first",
        "memory": "rows",
    },
}


class RecallLoss(RankedRetrievalLoss):
    """Pushes relevant items ahead of the irrelevant ones that stand before them.

    A relevant item with r irrelevant ones before it costs w(r); the loss is the mean. `preset` names a set of choices
    where the official code departs from the paper; any single choice can be overridden, and None takes the preset's.

    Args:
        interpolation: Smoothness of the gradient (the paper's lambda), > 0. On normalised ranks, as officially.
        margin: Taken from the scores of relevant items, as far as the order goes (the paper's alpha), >= 0.
        weight: w: "log" (log(1 + r)), "loglog" (log(1 + log(1 + r))), "recall@k" (1 - recall@k itself, such as
            "recall@4"), or any function of a tensor that is 0 at 0 and never falls.
        preset: "corrected" or "official".
        memory: "none", "rows" or "gallery"; see `RetrievalLoss`. None is "none" if `memory_batches` is 0.
        memory_batches: Batches stored; 3 in the paper's retrieval experiments.
        slope: What stands for the derivative of w: "derivative", or "difference", w(r) - w(r - 1), which steps have as
            well. None is the difference for "recall@k", else the derivative.
        denormalize: What stands for r. "counts": the number of irrelevant items before (corrected); "rows": that
            number times rows / columns, as the official code scales ranks back by the number of rows, memory
            included; "columns": the same as counts.
        reduction: "macro": mean for each query, then over queries that have a relevant item, as in the paper
            (corrected); "micro": one mean over all relevant items, so that large classes weigh more (official); "class"
            and "none": see `RetrievalLoss`.
        on_empty: What a batch without any relevant item gives: "zero" (corrected), "nan" (official) or "error".
        ties: "first_index_first" (corrected); "last_index_first", what the official code does on short rows on a CPU
            (official); or "pessimistic", irrelevant items first.
        options: `normalize`, `exclude_self` (which the official code leaves to its caller): see `RetrievalLoss`;
            `scale`, `rule`: see `BlackboxLoss`.

    Raises:
        ValueError: If a number is out of range, a name is unknown, w(0) is not 0, or memory and its size contradict.

    Source: Rolinek et al. 2020, section 4.5, eq. 14-20.
    """

    memories = ("none", "rows", "gallery")

    def __init__(
        self,
        interpolation: float,
        margin: float = 0.0,
        weight: str | WeightFunction = "loglog",
        preset: Literal["corrected", "official"] = "corrected",
        memory: Literal["none", "rows", "gallery"] | None = None,
        memory_batches: int = 0,
        *,
        slope: Slope | None = None,
        denormalize: Literal["rows", "columns", "counts"] | None = None,
        reduction: Reduction | None = None,
        on_empty: OnEmpty | None = None,
        ties: Ties | None = None,
        **options: Any,
    ) -> None:
        if not memory_batches:
            memory = memory or "none"
        options |= with_preset(
            PRESETS, preset, denormalize=denormalize, reduction=reduction, on_empty=on_empty, ties=ties, memory=memory
        )
        denormalize = options.pop("denormalize")
        super().__init__(interpolation=interpolation, margin=margin, memory_batches=memory_batches, **options)
        one_of("denormalize", denormalize, ("rows", "columns", "counts"))
        self.denormalize = denormalize
        if self.memory_kind == "rows" and self.reduction in ("class", "none"):
            raise ValueError(
                "memory='rows' lets former queries count in one mean, which "
                f"reduction={self.reduction!r} has no place for; use micro or macro, or another memory"
            )
        self.weight = Weight(weight, slope)
        self.settings |= {
            "preset": preset,
            "weight": self.weight.name,
            "slope": self.weight.slope,
            "denormalize": denormalize,
        }

    def _formula(self, ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor] | None:
        before, counts, length = ranked.before, relevant.counts, relevant.length
        by_rows = self.denormalize == "rows"
        if by_rows:
            length = length if isinstance(length, int) else length.to(before.dtype)[relevant.rows]
            before = before / length
        stored = []
        if self.memory is not None and self.memory_kind == "rows":
            stored = self.memory.newest_first(before.device)
            # stored rows never lengthen a ranked sequence, so these counts are all of them that can matter later
            self.memory.push(before=before, counts=counts)
            before = torch.cat([before, *(batch["before"].to(before.dtype) for batch in stored)])
            counts = torch.cat([counts, *(batch["counts"] for batch in stored)])
        if not len(before):
            return None

        if by_rows:
            before = before * len(counts)
        terms, slopes = self.weight(before)
        current = len(relevant)
        # for even rows both means are one
        if self.reduction == "micro" or (self.reduction == "macro" and relevant.even and not stored):
            value, upstream = terms.mean(), slopes[:current] / len(terms)
        else:
            weights, whole = query_weights(self.reduction, counts, relevant.classes)
            shares = (weights / (counts * whole).to(terms.dtype)).repeat_interleave(counts, output_size=len(terms))
            shares = shares.to(terms.dtype)
            value, upstream = total(terms * shares, self.reduction, relevant), slopes[:current] * shares[:current]
        return value, upstream * (len(counts) / length) if by_rows else upstream
