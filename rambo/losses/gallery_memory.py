"""Memories of earlier batches, and the one of embeddings for any loss. Import `GalleryMemory` from `rambo.losses`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rambo.labels import alike
from rambo.losses.pairs import Labels, Pairs, check_embeddings, judged, meeting_place, same_items
from rambo.ranking.exact import plain, sent

References = tuple[Sequence[Tensor] | Pairs | None, Tensor | None, Tensor | None]
"""The third to fifth argument of a loss: indices_tuple, ref_emb, ref_labels."""
StoredBatch = dict[str, Tensor]


class BatchMemory(nn.Module):
    """Named tensors of the last `size` batches, oldest first.

    In training only: in evaluation mode nothing is stored and nothing recalled, so that what a model is worth does not
    depend on the batches that it was last trained on. Without gradients nothing is stored either.

    They travel with the module: to another device, and through `state_dict`, whatever their sizes and also into a
    module that has seen nothing yet. They are no buffers, because a distributed wrapper would overwrite each process's
    buffers with those of the first.

    Args:
        size: Batches to keep; 0 keeps none.

    Raises:
        ValueError: If the size is negative or no integer.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if isinstance(size, bool) or int(size) != size or size < 0:
            raise ValueError(f"memory_batches must be a number of batches, 0 or more, got {size}")
        self.size = int(size)
        self.batches: list[StoredBatch] = []

    def __len__(self) -> int:
        return len(self.batches)

    def push(self, **tensors: Tensor) -> None:
        """Stores copies without a graph; the oldest batch leaves when there are too many."""
        if self.size and self.training and torch.is_grad_enabled():
            self.batches = [*self.batches, {name: plain(tensor).clone() for name, tensor in tensors.items()}]
            self.batches = self.batches[-self.size :]

    def newest_first(self, device: torch.device, **others: torch.device) -> list[StoredBatch]:
        """The stored batches on a device, as checkpoints are often read on another one; none in evaluation mode.

        Args:
            device: Where they are wanted.
            others: The names of tensors that are wanted elsewhere, and where.
        """
        batches = self.batches[::-1] if self.training else []
        return [{name: sent(tensor, others.get(name, device)) for name, tensor in batch.items()} for batch in batches]

    def reset(self) -> None:
        """Forgets everything."""
        self.batches = []

    def get_extra_state(self) -> dict[str, Any]:
        """Part of `state_dict`."""
        return {"batches": [dict(batch) for batch in self.batches]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Part of `load_state_dict`; keeps the latest if more were saved than fit."""
        self.batches = [dict(batch) for batch in state["batches"]][-self.size :] if self.size else []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BatchMemory:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # fn may also narrow the type (module.half()), which stored scores must not suffer
        self.batches = [{k: v.to(fn(v.new_empty(0)).device) for k, v in batch.items()} for batch in self.batches]
        return self


def recall(
    memory: BatchMemory,
    embeddings: Tensor,
    labels: Labels,
    indices_tuple: Sequence[Tensor] | None,
    ref_emb: Tensor | None,
    ref_labels: Labels | None,
    ids: Labels | None,
    ref_ids: Labels | None,
    ignored: Tensor | None = None,
    exclude_self: bool = True,
    found: Callable[[Tensor, Tensor], Tensor] = lambda relevance, itself: relevance,
) -> References:
    """The batch and, behind it, what is stored, with every pair that counts.

    A stored item of the query's class may be the query itself, seen before. Only ids can tell, so that where they are
    missing (now, or of the stored batch) it is ignored, and stored items of other classes alone count. `found` is
    called as by `similarities`.

    Raises:
        ValueError: If references are given, or stored embeddings have another number of dimensions.
    """
    if ref_emb is not None or ref_labels is not None or ref_ids is not None:
        raise ValueError("a memory brings its own references; leave out ref_emb, ref_labels and ref_ids")
    place = meeting_place(embeddings.device, labels, ids, ignored, *(indices_tuple or ()))
    numbers = check_embeddings(embeddings, labels, place=place)
    ids = None if ids is None else check_embeddings(embeddings, ids, ("embeddings", "ids"), place, one=True)
    stored = memory.newest_first(embeddings.device, labels=place, ids=place)
    for batch in stored:
        if batch["embeddings"].shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"the memory holds embeddings of {batch['embeddings'].shape[1]} dimensions, this batch has "
                f"{embeddings.shape[1]}; call reset_memory()"
            )
    if not stored and ids is None and ignored is None:
        return indices_tuple, None, None

    same_class = alike(numbers, numbers)
    itself = same_items(numbers, ids, ids, themselves=True)
    relevant, counted = judged(same_class, itself if exclude_self else None, indices_tuple, ignored)
    counted = torch.ones_like(relevant) if counted is None else counted
    blocks = [(relevant & counted, ~relevant & counted, itself)]
    for batch in stored:
        same_class = alike(numbers, batch["labels"])
        known = same_items(numbers, ids, batch.get("ids"), themselves=False)
        others = ~(same_class if known is None else known) if exclude_self else torch.ones_like(same_class)
        itself = torch.zeros_like(same_class) if known is None else known
        blocks.append((same_class & others, ~same_class & others, itself))
    relevant, irrelevant, itself = (torch.cat(side, dim=1) for side in zip(*blocks, strict=True))
    wanted = relevant if exclude_self else found(relevant, itself)
    return (
        Pairs(wanted, irrelevant | (relevant & ~wanted)),
        torch.cat([embeddings, *(batch["embeddings"].to(embeddings.dtype) for batch in stored)]),
        torch.cat([numbers, *(batch["labels"] for batch in stored)]),
    )


def remember(memory: BatchMemory, embeddings: Tensor, labels: Labels, ids: Labels | None) -> None:
    """Stores a batch for `recall`."""
    place = meeting_place(embeddings.device, labels, ids)
    known = {} if ids is None else {"ids": check_embeddings(embeddings, ids, ("embeddings", "ids"), place, one=True)}
    memory.push(embeddings=embeddings, labels=check_embeddings(embeddings, labels, place=place), **known)


class GalleryMemory(nn.Module):
    """Lets any loss of pairs rank the items of earlier batches along: ours, or one of pytorch-metric-learning.

        loss = GalleryMemory(MultiSimilarityLoss(), batches=3)
        loss(embeddings, labels, ids=batch["index"])

    The loss is called as `loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)`: the references are the batch,
    with its gradient, and then the stored embeddings, without; `indices_tuple` holds all pairs but an item with itself.
    A miner's pairs restrict the batch's own part. In training only; in evaluation mode the loss is called as it is.

    Args:
        loss: The loss.
        batches: How many batches are stored; saved in `state_dict`, and emptied by `reset_memory`.

    Raises:
        ValueError: If the number is negative or no integer.
    """

    wants_ids = True
    """See `RetrievalObjective`."""

    def __init__(self, loss: nn.Module, batches: int) -> None:
        super().__init__()
        self.loss, self.memory = loss, BatchMemory(batches)
        self.settings: dict[str, Any] = {
            "memory_of": f"{type(loss).__module__}.{type(loss).__qualname__}",
            **dict(getattr(loss, "settings", None) or {}),
            "memory": "gallery",
            "memory_batches": self.memory.size,
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
    ) -> Tensor:
        """Loss of a batch; `ids` say which item each is, so that one seen again is not its own relevant item.

        Raises:
            ValueError: If references are given, whose place is the memory's, or shapes do not fit.
        """
        pairs, *others = recall(self.memory, embeddings, labels, indices_tuple, ref_emb, ref_labels, ids, ref_ids)
        pairs = pairs.indices(embeddings.device) if isinstance(pairs, Pairs) else pairs
        others = [None if other is None else sent(other, embeddings.device) for other in others]
        value: Tensor = self.loss(embeddings, check_embeddings(embeddings, labels), pairs, *others)
        remember(self.memory, embeddings, labels, ids)
        return value

    @property
    def several_labels(self) -> bool:
        """Whether an item may have several labels; that of the loss."""
        return bool(getattr(self.loss, "several_labels", False))

    @property
    def health(self) -> dict[str, Tensor]:
        """That of the loss, if it keeps one."""
        return getattr(self.loss, "health", None) or {}

    def reset_memory(self) -> None:
        """Forgets the stored batches."""
        self.memory.reset()
