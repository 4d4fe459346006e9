"""What a run asks of its processes; the only file that knows torch.distributed.

One process is the world of size one, so nothing else needs a special case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # in which a process that does not answer is waited for

_apart = False


def _started() -> bool:
    return dist.is_available() and dist.is_initialized() and not _apart


@contextmanager
def apart() -> Iterator[None]:
    """Inside, this process is the only one there is: it goes through everything itself and waits for nobody."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return dist.get_rank() if _started() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _started() else 1


def local_rank() -> int:
    """This process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def is_main() -> bool:
    """Whether this process writes the run folder."""
    return rank() == 0


def share(size: int) -> slice:
    """Which of `size` things are this process's: consecutive ones, as evenly as can be."""
    return slice(size * rank() // world(), size * (rank() + 1) // world())


class Gathered(NamedTuple):
    """Rows of all processes, one process after the other in order of rank, and which of them are this process's."""

    rows: Tensor
    own: slice


def gather(tensor: Tensor, padding: bool = False) -> Gathered:
    """Brings the rows of all processes together, without a graph.

    Args:
        tensor: (rows, ...); the number of rows may differ between processes, the rest may not.
        padding: Whether the rows of this process do not count, and only say what rows look like.
    """
    plain = tensor.detach()[: 0 if padding else None]
    if world() == 1:
        return Gathered(plain, slice(0, len(plain)))
    counted = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]  # on CPUs, so that no GPU is waited for
    dist.all_gather(counted, torch.tensor([len(plain)]))
    counts = [int(count) for count in counted]
    sent = plain.to(torch.uint8) if plain.dtype == torch.bool else plain
    padded = sent.new_zeros(max(counts), *sent.shape[1:])
    padded[: len(sent)] = sent
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    rows = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    start = sum(counts[: rank()])
    return Gathered(rows.to(plain.dtype), slice(start, start + len(plain)))


def gather_objects(value: T) -> list[T]:
    """What every process holds, in order of rank; anything that can be pickled."""
    if world() == 1:
        return [value]
    everyone: list[Any] = [None] * world()
    dist.all_gather_object(everyone, value)
    return everyone


def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Gives each parameter the sum of its gradients in all processes; one that has none anywhere stays without."""
    if world() == 1:
        return
    trained = list(parameters)
    there = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
    dist.all_reduce(there)  # on CPUs, so that no GPU is waited for
    for parameter, count in zip(trained, there.tolist(), strict=True):
        if count:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dist.all_reduce(parameter.grad)


def agree(tensors: Iterable[Tensor]) -> None:
    """Gives every process the numbers of the main one, where those of the others may be rounded otherwise."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def told_by_main(value: T) -> T:
    """What the main process holds, in every process."""
    return told_by(0, value)


def told_by(source: int, value: T) -> T:
    """What the process `source` holds, in every process."""
    held: list[Any] = [value]
    if world() > 1:
        dist.broadcast_object_list(held, src=source)
    return held[0]  # type: ignore[no-any-return]


def of_main(work: Callable[[], T]) -> T:
    """What `work()` returns, or raises, in the main process, in every process; the others do not call it."""
    if world() == 1:
        return work()
    result, error = None, None
    try:
        result = work() if is_main() else None
    except Exception as raised:
        error = raised
    result, error = told_by_main((result, error))
    if error is not None:
        raise error
    return cast(T, result)


def started_together() -> int:
    """How many processes torchrun, or a cluster's launcher, has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_started() -> bool:
    """Whether this process will be the main one, as its launcher says before the processes know each other."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def together() -> Iterator[None]:
    """Inside, the processes that were started together know each other.

    Raises:
        ConnectionError: If they do not find each other.
    """
    if "SUBMITIT_EXECUTOR" in os.environ and "WORLD_SIZE" not in os.environ:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        if JobEnvironment().num_tasks > 1:  # hydra.launcher.tasks_per_node
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    if started_together() == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    try:
        dist.init_process_group(timeout=PATIENCE)  # gloo for what is on CPUs, nccl for what is on GPUs
    except (RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"the {started_together()} processes of this run (WORLD_SIZE) did not find each other "
            f"({str(error).splitlines()[0]}); start them with torchrun --standalone, or unset WORLD_SIZE to start one"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def tells() -> bool:
    """Whether this process is the one that says why the run ends: the first that asks."""
    if world() == 1:
        return True
    try:
        return int(dist.distributed_c10d._get_default_store().add("the end is told", 1)) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return True


def others_are_gone(error: BaseException) -> bool:
    """Whether `error` says that another process has ended, or does not answer, so that this one waits in vain."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "NCCL")
    return world() > 1 and isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def wait() -> None:
    """Goes on when every process has come here."""
    if world() > 1:
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """What the main process writes inside, the others find there."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()
