"""The last few batches that a loss has seen, kept in its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rambo.ranking.exact import plain

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

    def newest_first(self, device: torch.device) -> list[StoredBatch]:
        """The stored batches on a device, as checkpoints are often read on another one; none in evaluation mode."""
        batches = self.batches[::-1] if self.training else []
        return [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]

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
