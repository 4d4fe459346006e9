"""Where runs compute, what there is to compute on, and how batches get there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from harness import distributed

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
PRODUCTS = ("highest", "high", "medium")


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes a GPU when there is one, else Apple's. A ValueError says if it has none.

    Of several processes on a machine, each takes a GPU of its own.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        name = next(kind for kind in there if there[kind])
    if name == "cuda" and distributed.world() > 1:
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"trainer.device={name} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def cores() -> int:
    """Processor cores that this process may use: in a container or a batch job often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen, count = os.environ.get("CUDA_VISIBLE_DEVICES", ""), torch.cuda.device_count()
    return chosen.split(",")[:count] if chosen else [str(k) for k in range(count)]


def map_tensors(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with the tensors of nested dicts, lists and tuples changed; everything else stays as it is."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [map_tensors(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # the former a namedtuple
    return value


def to_device(value: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Moves the tensors of nested dicts, lists and tuples; leaves everything else as it is.

    Nobody waits for a copy to a GPU; what is copied from there has arrived. On a GPU, what has one number or a few for
    each sample keeps the tensor that it was copied from as its attribute `on_host`, so that a loss can count the
    classes of a batch without waiting.
    """

    def move(tensor: torch.Tensor) -> torch.Tensor:
        moved = tensor.to(device, non_blocking=device.type != "cpu")
        if device.type != "cpu" and tensor.device.type == "cpu" and tensor.ndim <= 2:
            moved.on_host = tensor  # type: ignore[attr-defined]
        return moved.contiguous(memory_format=torch.channels_last) if channels_last and moved.ndim == 4 else moved

    return map_tensors(value, move)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def all_finite(value: Any) -> bool:
    """Whether no tensor of nested dicts, lists and tuples holds NaN or infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors_in(value))


def half_precision(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which `device` computes in the `precision` of that name."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def float32_products(precision: str | None) -> AbstractContextManager[None]:
    """Inside, float32 products and convolutions are computed as `precision` says; None leaves them as they are.

    `highest` in float32, `high` in TF32 or alike, `medium` in bfloat16 where that is faster.
    """
    return nullcontext() if precision is None else _float32_products(precision)


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
