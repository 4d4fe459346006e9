"""What the losses on ranks share: options, checks, the gradient, the two entry points and the memories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rambo.losses.gallery_memory import recall, remember
from rambo.losses.memory import BatchMemory
from rambo.losses.metric_learning import admit
from rambo.losses.pairs import Labels, check_scores, similarities, whole_numbers
from rambo.losses.reductions import REDUCTIONS, empty_value
from rambo.ranking import needs_gradient, with_gradient
from rambo.ranking.exact import TIES, Ties, one_of
from rambo.ranking.gradient_rules import Blackbox, GradientRule, Scale
from rambo.ranking.relevant import RelevantPlaces, rankable_where
from rambo.ranking.relevant_ranks import RelevantRanks, relevant_ranks, score_gradient

OnEmpty = Literal["nan", "zero", "error"]
ON_EMPTY = ("nan", "zero", "error")

Formula = Callable[[RelevantRanks, RelevantPlaces], tuple[Tensor, Tensor]]
"""From ranks to a loss and its derivative by the rank among all items, (relevant,)."""

_TIE_SAMPLE = 64  # the tie rate is estimated on so many rows and columns at most


class RankingLoss(nn.Module):
    """A loss that is a formula of ranks; see its children.

    Args:
        interpolation: Smoothness of the gradient (the paper's lambda), > 0.
        margin: By how much a relevant item must lead (the paper's alpha), >= 0.
        ties: Which of two equal scores ranks first.
        on_empty: What a batch without any relevant item gives: nan, zero or an error.
        scale: Which ranks lambda refers to; see `Blackbox`.
        rule: Replaces `Blackbox(interpolation, scale)`.

    Attributes:
        settings: The resolved options, for the record of a run.
        health: Numbers of the last call, as tensors without a graph: `gradient_share` (of scores with a gradient that
            is not zero; only where a gradient was asked for), `negatives_before` (mean number of irrelevant items
            before a relevant one) and `tie_rate` (how often two neighbouring columns of a row are exactly equal, among
            the first 64 rows and columns: near 1 after a collapse, above 0 in half precision, otherwise 0). After a
            batch without a relevant item the tie rate alone. Copies and pickles of the loss hold none.

    Raises:
        ValueError: If a number is out of range or a name unknown.
    """

    def __init__(
        self,
        interpolation: float,
        margin: float,
        ties: Ties,
        on_empty: OnEmpty,
        scale: Scale,
        rule: GradientRule | None,
    ) -> None:
        super().__init__()
        if not (margin >= 0 and math.isfinite(margin)):
            raise ValueError(f"margin must be >= 0 and finite, got {margin}")
        one_of("ties", ties, TIES)
        one_of("on_empty", on_empty, ON_EMPTY)
        blackbox = Blackbox(interpolation, scale)
        self.rule: GradientRule = blackbox if rule is None else rule
        self.margin, self.ties, self.on_empty = float(margin), ties, on_empty
        self.health: dict[str, Tensor] = {}
        self.settings: dict[str, Any] = {
            "rule": repr(self.rule),
            "margin": self.margin,
            "ties": ties,
            "on_empty": on_empty,
        }

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())

    def _ranked(
        self, values: Tensor, relevant: RelevantPlaces, formula: Formula, margin: float, differentiate: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The formula's value and, if needed, its gradient with respect to the values (rows, items).

        Both are worked out here, in the forward pass, from an upstream gradient that nothing has scaled yet.
        """
        ranked = relevant_ranks(values, relevant, self.ties, margin)
        value, upstream = formula(ranked, relevant)
        gradient = None
        if differentiate:
            gradient = score_gradient(self.rule, ranked, upstream)
        self._tell(values, ranked.before, gradient)
        return value, gradient

    def _empty(self, values: Tensor) -> float:
        """The loss of rows in which nothing is relevant."""
        if self.on_empty == "error":
            raise ValueError(
                f"nothing is relevant in any of the {values.shape[0]} rows of this batch; let the sampler put two or "
                "more images of a class into a batch, or set on_empty to zero"
            )
        return math.nan if self.on_empty == "nan" else 0.0

    def _tell(self, values: Tensor, before: Tensor | None = None, gradient: Tensor | None = None) -> None:
        """Works out the `health` of this call, without waiting for the device."""
        sample = values[:_TIE_SAMPLE, :_TIE_SAMPLE]
        equal = (sample[:, :-1] == sample[:, 1:]) & sample[:, 1:].isfinite()  # ignored ones stand at -inf
        self.health = {"tie_rate": equal.sum() / max(1, equal.numel())}
        if before is not None:
            self.health["negatives_before"] = before.mean()
        if gradient is not None:
            self.health["gradient_share"] = gradient.count_nonzero() / max(1, gradient.numel())

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: nothing of the last call."""
        return {**self.__dict__, "health": {}}


class RetrievalLoss(RankingLoss):
    """A ranking loss in which every item of a batch is a query against the others.

    Args (beyond those of `RankingLoss`):
        normalize: Whether embeddings are divided by their length, so that scores are cosines.
        exclude_self: Whether an item is left out of its own row; kept, it counts as relevant.
        memory: "none"; "rows", which lets the queries of earlier batches, against their own batch, count in the loss
            (the official code); or "gallery", which also ranks the stored items of earlier batches for the current
            queries (the paper's description, on embeddings). Stored things carry no gradient.
        memory_batches: How many batches are stored.
        reduction: "macro": the mean over queries; "micro": over relevant items; "class": over classes, of the mean
            over their queries; "none": no mean, one value per query. Queries without a relevant item are left out of a
            mean; with "none" they are 0 where `on_empty` is "zero", else nan, and have no gradient.

    Memory acts in training mode alone, is filled where gradients are enabled, saved in `state_dict`, and emptied by
    `reset_memory`. "gallery" is the same as `GalleryMemory(loss, memory_batches)`.

    With `reduction="none"`, lambda acts on each query's own gradient, which no mean has divided: the mean of n such
    values has the gradient of the "macro" loss with n times the lambda, n being the queries with a relevant item.
    """

    def __init__(
        self, normalize: bool, exclude_self: bool, memory: str, memory_batches: int, reduction: str, **options: Any
    ) -> None:
        super().__init__(**options)
        one_of("reduction", reduction, REDUCTIONS)
        if memory == "rows" and reduction in ("class", "none"):
            raise ValueError(
                f"memory='rows' lets former queries count in one mean, which reduction={reduction!r} has no place for; "
                "use micro or macro, or another memory"
            )
        self.reduction = reduction
        admit()
        if (memory == "none") != (memory_batches == 0):
            raise ValueError(
                f"memory={memory!r} with memory_batches={memory_batches} contradict each other; "
                "give a kind and a number of batches, or neither"
            )
        self.normalize, self.exclude_self, self.memory_kind = bool(normalize), bool(exclude_self), memory
        self.memory = BatchMemory(memory_batches) if memory != "none" else None
        self.settings |= {
            "normalize": self.normalize,
            "exclude_self": self.exclude_self,
            "memory": memory,
            "memory_batches": memory_batches,
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
        """Loss of a batch.

        Lambda refers to the other items of the batch, whatever else is ranked along or ignored.

        Args:
            embeddings: (items, dimensions); half precision is scored in float32.
            labels: One class number per item, (items,).
            indices_tuple: A miner's (anchors, positives, negatives) or (anchors, positives, anchors, negatives): for
                each query only the items of its pairs count, as relevant and irrelevant ones.
            ref_emb: What is ranked instead of the batch itself, (references, dimensions).
            ref_labels: One class number per reference. If they are the very object `labels`, or `ref_emb` the object
                `embeddings`, then each query is the reference in its place, as in pytorch-metric-learning.
            ids: A whole number per item that says which item it is. The same item is never its own relevant or
                irrelevant item, unless `exclude_self` is off; without ids an item is itself in its own place alone.
            ref_ids: The same for the references.
            ignored: Non-zero where an item is neither relevant nor irrelevant to a query, (items, items ranked).

        Returns:
            A single number; one per query, (items,), if the reduction is "none".

        Raises:
            TypeError: If embeddings are not floating point, or labels no numbers.
            ValueError: If shapes do not fit, labels are not exact, there is NaN, or nothing is relevant and `on_empty`
                is "error".
        """
        gallery = self.memory if self.memory_kind == "gallery" else None
        references: tuple[Any, ...] = (indices_tuple, ref_emb, ref_labels)
        chosen: dict[str, Any] = {"ids": ids, "ref_ids": ref_ids, "ignored": ignored}
        if gallery is not None:
            if ref_emb is not None or ref_labels is not None or ref_ids is not None:
                raise ValueError(
                    "a gallery memory brings its own references; leave out ref_emb, ref_labels and ref_ids"
                )
            references = recall(gallery, embeddings, labels, indices_tuple, ids, ignored, self.exclude_self)
            chosen = {}
        pairs = similarities(
            embeddings, labels, *references, **chosen, exclude_self=self.exclude_self, normalize=self.normalize
        )
        loss = self._loss(pairs.scores, RelevantPlaces(*pairs[1:]))
        if gallery is not None:
            remember(gallery, embeddings, labels, ids)
        return loss

    def from_scores(
        self,
        scores: Tensor,
        relevance: Tensor,
        ignored: Tensor | None = None,
        *,
        items: int | None = None,
        classes: Labels | None = None,
    ) -> Tensor:
        """Loss of given scores, one row per query, without anything being left out that is not `ignored`.

        Args:
            scores: Floating point (queries, items); a query and itself should not be among them.
            relevance: Non-zero where the item is relevant to the query; bool, integer or floating point, same shape.
            ignored: Non-zero where the item is neither relevant nor irrelevant, as if it were not there; same shape.
            items: How many items lambda refers to. None: those of the row that count. Where some of the columns come
                from a memory, the number of the others keeps lambda what it is without one.
            classes: The class of each query, (queries,); needed by `reduction="class"` alone.

        Returns:
            A single number; one per query if the reduction is "none".

        Raises:
            TypeError: If scores are not floating point.
            ValueError: If shapes differ, there is NaN, nothing is relevant and `on_empty` is "error", or the memory
                needs embeddings.
        """
        if self.memory_kind == "gallery":
            raise ValueError("a gallery memory stores embeddings; call the loss with (embeddings, labels) instead")
        counted = check_scores(scores, relevance, ignored)
        numbers = None if classes is None else whole_numbers(classes, "classes", scores.device)
        return self._loss(scores, RelevantPlaces(relevance, counted, items, numbers))

    def reset_memory(self) -> None:
        """Forgets the stored batches."""
        if self.memory is not None:
            self.memory.reset()

    @property
    def wants_ids(self) -> bool:
        """Whether it remembers items that could be seen again; see `RetrievalObjective`."""
        return self.memory_kind == "gallery"

    def _loss(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        values = rankable_where(scores, relevant.counted)
        if not len(relevant) and not self._remembers_relevant():
            self._store_rows(values.new_empty(0), relevant.counts)
            fill = self._empty(values)
            self._tell(values)
            value = values.new_full((len(values),) if self.reduction == "none" else (), fill)
            return with_gradient(value, scores, torch.full_like(values, fill))
        value, gradient = self._ranked(values, relevant, self._formula, self.margin, needs_gradient(scores))
        if self.reduction == "none":
            value = value.where(relevant.counts > 0, empty_value(self.on_empty))
        return value if gradient is None else with_gradient(value, scores, gradient)

    def _remembers_relevant(self) -> bool:
        """Whether the formula has something to say although nothing is relevant now."""
        return False

    def _store_rows(self, before: Tensor, counts: Tensor) -> None:
        """Remembers the rows of a batch, where that is the memory; one without a relevant item has rows too."""

    def _formula(self, ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor]:
        raise NotImplementedError
