"""Where runs compute, what there is to compute on, and how batches get there; one process is a world of size one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes a GPU when there is one. A ValueError says if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"trainer.device={name} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def is_main() -> bool:
    """Whether this process writes the run folder."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0


def cores() -> int:
    """Processor cores that this process may use: in a container or a batch job often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen, count = os.environ.get("CUDA_VISIBLE_DEVICES", ""), torch.cuda.device_count()
    return chosen.split(",")[:count] if chosen else [str(k) for k in range(count)]


def to_device(value: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Moves the tensors of nested dicts, lists and tuples; leaves everything else as it is."""
    if isinstance(value, torch.Tensor):
        moved = value.to(device, non_blocking=True)
        return moved.contiguous(memory_format=torch.channels_last) if channels_last and moved.ndim == 4 else moved
    if isinstance(value, dict):
        return {key: to_device(item, device, channels_last) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [to_device(item, device, channels_last) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # the former a namedtuple
    return value


def all_finite(value: Any) -> bool:
    """Whether no tensor of nested dicts, lists and tuples holds NaN or infinity."""
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return all(map(all_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(all_finite, value))
