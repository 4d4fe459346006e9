"""The data contract: what a data set owes the trainer, and loaders whose draws depend on nothing but seed and epoch.

A batch is a dict. A data object has `.train`, an iterable of batches (with `set_epoch` if its order changes from epoch
to epoch), `.evaluation`, a dict of name -> loader, and `.describe()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from harness.seeds import derived_seed

Batch = dict[str, Any]


class Data(Protocol):
    """What the trainer asks of a data set."""

    train: Iterable[Batch]
    evaluation: Mapping[str, Iterable[Batch]]

    def describe(self) -> dict[str, Any]:
        """Name, counts and fingerprint, for the run record."""


class BatchSampler(Protocol):
    """Decides which samples meet in a batch. Stateless, so that resuming needs no state and workers cannot disagree."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """The sample indices of each batch of `epoch`; equal for equal seed and epoch."""


class ShuffledBatches:
    """Every sample once an epoch, in an order that seed and epoch decide; the last batch may be smaller."""

    def __init__(self, size: int, batch_size: int, seed: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if size < 1:
            raise ValueError(f"{size} samples make no batch of {batch_size}; use more data")
        self.size, self.batch_size, self.seed = size, batch_size, seed

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """The sample indices of each batch of `epoch`."""
        draws = torch.Generator().manual_seed(derived_seed(self.seed, "batches", epoch))
        order = torch.randperm(self.size, generator=draws).tolist()
        for start in range(0, self.size, self.batch_size):
            yield order[start : start + self.batch_size]


class _EpochBatches:
    """Presents a `BatchSampler` to torch's loader, which carries (epoch, index) to the data set in any worker."""

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler, self.epoch = sampler, 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.sampler.batches(self.epoch):
            yield [(self.epoch, index) for index in batch]


class EpochLoader(DataLoader[Any]):
    """Training batches, a function of (seed, epoch) alone: neither worker count nor resuming changes them.

    `dataset` is indexed by (epoch, sample index) and draws its augmentation from its seed and these two; `options` are
    those of torch's loader.
    """

    def __init__(self, dataset: Dataset[Any], sampler: BatchSampler, num_workers: int = 0, **options: Any) -> None:
        self.batches = _EpochBatches(sampler)
        options["persistent_workers"] = num_workers > 0
        options["generator"] = torch.Generator()  # else the loader would draw its base seed from the global one
        super().__init__(dataset, batch_sampler=self.batches, num_workers=num_workers, **options)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        self.batches.epoch = epoch
