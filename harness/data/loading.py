"""The data contract: what a data set owes the trainer, and loaders whose draws depend on nothing but seed and epoch.

A batch is a dict. A data object has `.train`, an iterable of batches (with `set_epoch` if its order changes from epoch
to epoch), `.evaluation`, a dict of name -> loader, and `.describe()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from harness import distributed, interrupts
from harness.device import cores
from harness.seeds import derived_seed

Batch = dict[str, Any]
PADDING = "padding"
"""A key of batches that only keep a process busy: it has no share of a batch with fewer samples than processes."""


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
            own = batch[distributed.share(len(batch))] or batch[:1]
            yield [(self.epoch, index) for index in own]


class LoadingError(RuntimeError):
    """The loading processes give no batch; the message says why."""


def explained(error: BaseException) -> LoadingError | None:
    """What torch says of loading processes that ended or do not answer, as a sentence; None for any other error."""
    said = str(error)
    if not isinstance(error, RuntimeError) or not said.startswith("DataLoader"):
        return None
    if "timed out" in said:
        seconds = next(iter(re.findall(r"\d[\d.]*", said)), "?")
        return LoadingError(
            f"the loading processes gave no batch for {seconds} s (data.worker_timeout), as when a disk does not"
            " answer; see to it, allow them more, or set workers=0 to see where it waits"
        )
    return _died(error)


def _died(error: BaseException) -> LoadingError:
    said = str(error).strip().rstrip(".") or type(error).__name__  # the end of a connection says nothing
    return LoadingError(
        f"a loading process was ended from outside ({said}), as where memory runs out; take fewer workers or smaller"
        " batches, or give it more memory"
    )


def _watched(loader: DataLoader[Any], start: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    """The batches that `start` gives; where processes load them, what becomes of these is told."""
    batches = None
    try:
        with interrupts.deferred():  # half a loader could not end its processes
            batches = start()  # which asks persistent processes, too
        for batch in batches:
            interrupts.raise_lost()
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        if loader.num_workers == 0 or str(error).startswith("Caught"):  # by torch, in a process that lives
            raise
        lost = isinstance(error, OSError | EOFError)  # of a connection, as this process opens no file for a batch
        told = _died(error) if lost else explained(error)
        if told is None:
            raise
        _end(batches or getattr(loader, "_iterator", None))
        raise told from error


def _end(batches: Any) -> None:
    """Ends loading processes, also those that do not hear what torch asks of them, for which Python would wait."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()  # first, so that torch does not take the end of a process for a failure
    for process in getattr(batches, "_workers", ()):
        process.kill()


def loading_options(workers: int, timeout: float | None, pin_memory: bool | None) -> dict[str, Any]:
    """Options of torch's loader for so many processes; see `harness.data.dataset.PartedData`.

    Raises:
        ValueError: If one makes no sense.
    """
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise ValueError(f"worker_timeout must be a positive number of seconds, or null for no limit, got {timeout}")
    workers = min(workers, cores())  # more would only wait for each other, and torch would warn
    pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
    return {"num_workers": workers, "pin_memory": pin_memory, "timeout": (timeout or 0) if workers else 0}


class EpochLoader(DataLoader[Any]):
    """Training batches, a function of (seed, epoch) alone: neither worker count nor resuming changes them.

    `dataset` is indexed by (epoch, sample index) and draws its augmentation from its seed and these two; `options` are
    those of torch's loader.
    Several processes get consecutive parts of each batch, as equal as can be.
    """

    def __init__(self, dataset: Dataset[Any], sampler: BatchSampler, num_workers: int = 0, **options: Any) -> None:
        self.batches = _EpochBatches(sampler)
        options["persistent_workers"] = num_workers > 0
        options["generator"] = torch.Generator()  # else the loader would draw its base seed from the global one
        super().__init__(dataset, batch_sampler=self.batches, num_workers=num_workers, **options)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        self.batches.epoch = epoch

    def __iter__(self) -> Any:
        loaded = _watched(self, super().__iter__)
        return loaded if distributed.world() == 1 else self._marked(loaded)

    def _marked(self, loaded: Iterator[Batch]) -> Iterator[Batch]:
        for batch, indices in zip(loaded, self.batches.sampler.batches(self.batches.epoch), strict=True):
            yield batch if indices[distributed.share(len(indices))] else {**batch, PADDING: True}


class EvaluationShare(Sampler[int]):
    """Which samples of a part a process goes through: consecutive batches, so that in order of rank they are the part.

    Args:
        samples: Of the part.
        batch_size: Samples in a batch.
    """

    def __init__(self, samples: int, batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size

    def __iter__(self) -> Iterator[int]:
        return iter(self._own())

    def __len__(self) -> int:
        return len(self._own())

    def _own(self) -> range:
        own = distributed.share(-(-self.samples // self.batch_size))
        return range(own.start * self.batch_size, min(own.stop * self.batch_size, self.samples))


class PassLoader(DataLoader[Any]):
    """One part in its order, to be evaluated; several processes get consecutive parts of it."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> None:
        shared = EvaluationShare(len(dataset), batch_size)  # type: ignore[arg-type]
        draws = torch.Generator()  # else a pass would draw from the global one
        super().__init__(dataset, batch_size, sampler=shared, generator=draws, **options)

    def __iter__(self) -> Any:
        return _watched(self, super().__iter__)
