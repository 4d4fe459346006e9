"""The two entry points of a retrieval loss, (embeddings, labels) and (scores, relevance), its memory and its means."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rambo.labels import one_each, several
from rambo.losses.gallery_memory import BatchMemory, recall, remember
from rambo.losses.metric_learning import admit
from rambo.losses.pairs import Labels, check_scores, similarities, whole_numbers
from rambo.losses.ranking import BlackboxLoss, RankingLoss
from rambo.ranking import needs_gradient, with_gradient
from rambo.ranking.exact import one_of, widest_float
from rambo.ranking.relevant import RelevantPlaces, RelevantRanks, rankable_where

Reduction = Literal["macro", "micro", "class", "none"]
REDUCTIONS = ("macro", "micro", "class", "none")


def query_weights(reduction: str, counts: Tensor, classes: Tensor | None) -> tuple[int | Tensor, int | Tensor]:
    """What each query weighs in the mean, and the sum of the weights.

    Args:
        reduction: "macro": queries alike; "micro": relevant items alike; "class": classes alike, and queries alike
            within a class; "none": no mean is taken. Queries without a relevant item are left out of every mean.
        counts: How many relevant items each query has, int64 (queries,).
        classes: The class of each query, (queries,), or its several labels, bool (queries, classes), with each of
            which it counts; needed by "class" alone.

    Raises:
        ValueError: If the classes are missing.
    """
    if reduction == "none":
        return 1, 1
    if reduction == "macro":
        return 1, counts.count_nonzero()
    if reduction == "micro":
        return counts, counts.sum()
    if classes is None:
        raise ValueError('reduction="class" needs the class of each query; call from_scores with classes=')
    if not one_each(classes, len(counts)):
        raise ValueError(f"got {len(counts)} queries but classes of shape {tuple(classes.shape)}; give one each")
    there = counts > 0
    if several(classes):
        asking = classes & there[:, None]
        sizes = asking.sum(dim=0)
        return (asking / sizes.clamp(min=1).to(widest_float(sizes.device))).sum(dim=1), sizes.count_nonzero()
    # a number that the queries of a class share, found without asking how many classes there are
    numbers = torch.searchsorted(classes.sort().values, classes.contiguous())
    sizes = torch.zeros_like(counts).index_add_(0, numbers, there.long())
    return there / sizes[numbers].clamp(min=1).to(widest_float(sizes.device)), sizes.count_nonzero()


def total(terms: Tensor, reduction: str, relevant: RelevantPlaces) -> Tensor:
    """The sum of the terms (relevant,): over all, or, for reduction "none", of each query (queries,)."""
    if reduction != "none":
        return terms.sum()
    return terms.new_zeros(len(relevant.counts)).index_add_(0, relevant.rows, terms)


class RetrievalLoss(RankingLoss):
    """A loss in which every item of a batch is a query against the others.

    A child says by `_values` what each query costs, and autograd does the rest; see `SmoothAPLoss`.

    Args (beyond those of `RankingLoss`):
        normalize: Whether embeddings are divided by their length, so that scores are cosines.
        exclude_self: Whether an item is left out of its own row; kept, it counts as relevant.
        memory: "none"; "gallery", which also ranks the stored items of earlier batches for the current queries (the
            paper's description, on embeddings); or, for `RecallLoss`, "rows", which lets the queries of earlier
            batches, against their own batch, count in the loss (the official code). Stored things carry no gradient.
            None is "none" if `memory_batches` is 0.
        memory_batches: How many batches are stored.
        reduction: "macro": the mean over queries; "micro": over relevant items; "class": over classes, of the mean
            over their queries, of which one with several labels counts in each; "none": no mean, one value per query.
            Queries without a relevant item are left out of a mean; with "none" they are 0 where `on_empty` is "zero",
            else nan, and have no gradient.

    Memory acts in training mode alone, is filled where gradients are enabled, saved in `state_dict`, and emptied by
    `reset_memory`. "gallery" is the same as `GalleryMemory(loss, memory_batches)`, which always leaves an item out of
    its own row.

    With `reduction="none"`, lambda acts on each query's own gradient, which no mean has divided: the mean of n such
    values has the gradient of the "macro" loss with n times the lambda, n being the queries with a relevant item.

    Raises:
        ValueError: If a name is unknown, or memory and its size contradict.
    """

    memories: ClassVar[tuple[str, ...]] = ("none", "gallery")
    several_labels: ClassVar[bool] = True
    """Whether an item may have several labels; see `RetrievalObjective`."""

    def __init__(
        self,
        normalize: bool = True,
        exclude_self: bool = True,
        memory: str | None = None,
        memory_batches: int = 0,
        reduction: Reduction = "macro",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        memory = memory or ("gallery" if memory_batches else "none")
        one_of("memory", memory, self.memories)
        one_of("reduction", reduction, REDUCTIONS)
        if (memory == "none") != (memory_batches == 0):
            raise ValueError(
                f"memory={memory!r} with memory_batches={memory_batches} contradict each other; "
                "give a kind and a number of batches, or neither"
            )
        self.normalize, self.exclude_self, self.memory_kind = bool(normalize), bool(exclude_self), memory
        self.memory = BatchMemory(memory_batches) if memory != "none" else None
        self.reduction = reduction
        self.settings |= {
            "normalize": self.normalize,
            "exclude_self": self.exclude_self,
            "memory": memory,
            "memory_batches": memory_batches,
            "reduction": reduction,
        }
        admit(type(self).__name__)

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
            labels: One class number per item, (items,); or several labels, bool (items, classes), of which one shared
                makes two items relevant to each other. Left on the CPU, or with a copy there (`Labels`), they spare a
                GPU being waited for once a call.
            indices_tuple: A miner's (anchors, positives, negatives) or (anchors, positives, anchors, negatives): for
                each query only the items of its pairs count, as relevant and irrelevant ones.
            ref_emb: What is ranked instead of the batch itself, (references, dimensions).
            ref_labels: Those of the references. If they are the very object `labels`, or `ref_emb` the object
                `embeddings`, then each query is the reference in its place, as in pytorch-metric-learning.
            ids: A whole number per item that says which item it is. The same item is never its own relevant or
                irrelevant item, unless `exclude_self` is off; without ids an item is itself in its own place alone.
            ref_ids: The same for the references.
            ignored: Non-zero where an item is neither relevant nor irrelevant to a query, (items, items ranked).

        Returns:
            A single number; one per query, (items,), if the reduction is "none".

        Raises:
            TypeError: If embeddings are not floating point, or labels no numbers.
            ValueError: If shapes do not fit, labels are not exact, there is NaN (on a device, the loss is NaN instead),
                or nothing is relevant and `on_empty` is "error".
        """
        asked = indices_tuple, ref_emb, ref_labels, ids, ref_ids, ignored
        similar = partial(
            similarities,
            embeddings,
            labels,
            exclude_self=self.exclude_self,
            normalize=self.normalize,
            found=self._found,
        )
        if self.memory is None or self.memory_kind != "gallery":
            return self._loss(*similar(*asked))
        options: dict[str, Any] = {"exclude_self": self.exclude_self, "found": self._found}
        loss = self._loss(*similar(*recall(self.memory, embeddings, labels, *asked, **options)))
        remember(self.memory, embeddings, labels, ids)
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
            classes: The class of each query, (queries,), or its labels, bool (queries, classes); needed by
                `reduction="class"` alone.

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
        return self._loss(scores, RelevantPlaces(relevance, counted, items, numbers, scores.device))

    def reset_memory(self) -> None:
        """Forgets the stored batches."""
        if self.memory is not None:
            self.memory.reset()

    @property
    def wants_ids(self) -> bool:
        """Whether it remembers items that could be seen again; see `RetrievalObjective`."""
        return self.memory_kind == "gallery"

    def _found(self, relevance: Tensor, itself: Tensor) -> Tensor:
        """What is to be found, bool (queries, items), where the query stays in its own row, at `itself`."""
        return relevance

    def _rankable(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        """The scores in a type that ranks can be made of, 0 where they do not count."""
        scores = scores.to(rankable_where(scores, relevant.counted).dtype)
        return scores if relevant.counted is None else scores.masked_fill(~relevant.counted, 0.0)

    def _loss(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        scores = self._rankable(scores, relevant)
        if not len(relevant):
            nothing = scores.sum(dim=1) if self.reduction == "none" else scores.sum()
            return nothing * self._empty(scores)
        values = self._values(scores, relevant)
        if self.reduction == "none":
            return values.where(relevant.counts > 0, self._left_out)
        weights, whole = query_weights(self.reduction, relevant.counts, relevant.classes)
        return ((values * weights).sum() / whole).to(scores.dtype)

    def _values(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        """What each query costs, (queries,), 0 where nothing is relevant; scores that do not count are 0."""
        raise NotImplementedError


class RankedRetrievalLoss(RetrievalLoss, BlackboxLoss):
    """A retrieval loss that is a formula of exact ranks."""

    def _loss(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        values = rankable_where(scores, relevant.counted)
        value, gradient = self._ranked(values, relevant, self._formula, self.margin, needs_gradient(scores))
        if self.reduction == "none":
            value = value.where(relevant.counts > 0, self._left_out)
        return value if gradient is None else with_gradient(value, scores, gradient)

    def _formula(self, ranked: RelevantRanks, relevant: RelevantPlaces) -> tuple[Tensor, Tensor] | None:
        raise NotImplementedError
