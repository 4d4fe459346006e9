"""Seeds that depend on nothing but what they are made of."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import TypeVar

import torch

T = TypeVar("T")


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on all `parts`, such as (seed, epoch), and is equal on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def fixed_order(things: Iterable[T], purpose: str) -> list[T]:
    """`things` in an order that `purpose` decides and no library's generator: that of the sha256 of both as text."""
    return sorted(things, key=lambda thing: hashlib.sha256(f"{purpose} {thing}".encode()).digest())


def seed_everything(*parts: int | str) -> None:
    """Seeds Python's and torch's generators, of every device, from `parts`.

    From (seed, epoch) at the start of every epoch, so that a resumed run needs no saved generator state to repeat one.
    """
    seed = derived_seed(*parts)
    random.seed(seed)
    torch.manual_seed(seed)
