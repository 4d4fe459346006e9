"""RS@k, smooth recall at several cut-offs, and SiMix, for comparison. Import them from `rambo.losses`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rambo.losses.pairs import Labels, check_embeddings, meeting_place, similarities
from rambo.losses.retrieval import RetrievalLoss
from rambo.losses.smooth_ap import above_relevant
from rambo.ranking.exact import positive, sent
from rambo.ranking.relevant import RelevantPlaces
from rambo.ranking.unit_vectors import unit_vectors


def cut_offs(at: Sequence[int]) -> tuple[int, ...]:
    """The cut-offs of a recall, as a tuple.

    Raises:
        ValueError: If there is none, or one is not a whole number from 1.
    """
    if not at or any(k != int(k) or k < 1 for k in at):
        raise ValueError(f"at must name one cut-off or more, each a whole number from 1, got {list(at)}")
    return tuple(int(k) for k in at)


class SmoothRecallLoss(RetrievalLoss):
    """1 - recall at k, the mean over several k, with two sigmoids: one makes the ranks, one counts those up to k.

    A query finds `sum of sigmoid((k - rank) / rank_temperature)` of its p relevant items, at most k, out of min(k, p).
    It does not go to 0: with classes of four and the default cut-offs, a perfect ranking costs 0.285 (0.102 with
    `exclude_self=True`).

    Args:
        at: The cut-offs k. None is larger than the batch: those above count as the batch's size.
        temperature: Width of the sigmoid over scores (the paper's tau 2), > 0.
        rank_temperature: Width of the sigmoid over ranks (the paper's tau 1), > 0.
        exclude_self: Whether an item is left out of its own row. In the authors' code it stays, is not to be found, and
            pushes every relevant item down by one; the paper, as remembered, leaves it out.
        options: `on_empty`, `normalize`, `reduction`, `memory`, `memory_batches`: see `RetrievalLoss`.

    Raises:
        ValueError: If a temperature is not positive and finite, or a cut-off no whole number from 1.

    Source: Patel et al. 2022, Recall@k Surrogate Loss with Large Batches and Similarity Mixup (CVPR), as in its code.
    """

    def __init__(
        self,
        at: Sequence[int] = (1, 2, 4, 8, 16),
        temperature: float = 0.01,
        rank_temperature: float = 1.0,
        exclude_self: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(exclude_self=exclude_self, **options)
        self.at = cut_offs(at)
        self.temperature = positive("temperature", temperature)
        self.rank_temperature = positive("rank_temperature", rank_temperature)
        self.settings |= {"at": list(self.at), "temperature": temperature, "rank_temperature": rank_temperature}

    def _found(self, relevance: Tensor, itself: Tensor) -> Tensor:
        return relevance & ~itself

    def _values(self, scores: Tensor, relevant: RelevantPlaces) -> Tensor:
        above, present = above_relevant(scores, relevant)
        ahead = torch.sigmoid(above / self.temperature)  # 1/2 for the item itself
        if relevant.counted is not None:
            ahead = ahead * relevant.counted[:, None, :]
        ranks = 0.5 + ahead.sum(dim=2)
        batch = (relevant.items or scores.shape[1]) + self.exclude_self  # the query among them
        recalls = []
        for k in (min(k, batch) for k in self.at):
            hits = (torch.sigmoid((k - ranks) / self.rank_temperature) * present).sum(dim=1).clamp(max=k)
            recalls.append(hits / relevant.counts.clamp(min=1, max=k))
        return (1 - torch.stack(recalls).mean(dim=0)) * (relevant.counts > 0)


class SiMix(nn.Module):
    """A loss on a batch to which mixtures of two items of a class are added, as queries and as items to be found.

    Every pair of a class gives one mixture `a x + (1 - a) y` of its embeddings, which is not normalised again; its
    share a is drawn anew from [0, 1) in each training batch. Outside training the loss is that of the batch.

    Args:
        loss: A loss of this project on (embeddings, labels), without memory, such as `SmoothRecallLoss`.

    Raises:
        TypeError: If the loss is of another kind.
        ValueError: If it has a memory.

    Source: Patel et al. 2022 (CVPR), similarity mixup, as in its code.
    """

    def __init__(self, loss: RetrievalLoss) -> None:
        super().__init__()
        if not isinstance(loss, RetrievalLoss):
            raise TypeError(f"SiMix mixes for a retrieval loss of rambo.losses, got {type(loss).__name__}")
        if loss.memory is not None:
            raise ValueError("SiMix mixes a batch; give it a loss with memory=none")
        self.loss = loss
        self.settings = {**loss.settings, "simix": True}

    def forward(self, embeddings: Tensor, labels: Labels, shares: Tensor | None = None) -> Tensor:
        """Loss of the batch with its mixtures.

        Args:
            embeddings: (items, dimensions).
            labels: One class number per item, (items,).
            shares: The share of the first item of each pair, (pairs,), pairs in the order of `torch.triu_indices`;
                drawn if None.
        """
        if not self.training:
            return self.loss(embeddings, labels)  # type: ignore[no-any-return]
        numbers = check_embeddings(embeddings, labels, place=meeting_place(embeddings.device, labels), one=True)
        vectors = unit_vectors(embeddings) if self.loss.normalize else embeddings
        first, second = torch.triu_indices(len(numbers), len(numbers), 1, device=numbers.device)
        pairs = numbers[first] == numbers[second]
        first, second = first[pairs], second[pairs]
        if shares is None:
            shares = torch.rand(len(first), dtype=vectors.dtype, device=vectors.device)
        one, other = (vectors[sent(place, vectors.device)] for place in (first, second))
        mixtures = shares[:, None] * one + (1 - shares[:, None]) * other
        whole, classes = torch.cat([vectors, mixtures]), torch.cat([numbers, numbers[first]])
        alone = self.loss.exclude_self
        scores, relevant = similarities(whole, classes, exclude_self=alone, normalize=False, found=self.loss._found)
        relevant.items = (len(numbers) - alone) or None
        return self.loss._loss(scores, relevant)
