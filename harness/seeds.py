"""Seeds that depend on nothing but what they are made of."""

from __future__ import annotations

import hashlib
import random

import torch


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on all `parts`, such as (seed, epoch), and is equal on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seeds Python's and torch's generators, of every device, from `parts`.

    The trainer calls it with (seed, epoch) at the start of every epoch. What an epoch draws is then a function of the
    two, and a resumed run needs no saved generator state to repeat it.
    """
    seed = derived_seed(*parts)
    random.seed(seed)
    torch.manual_seed(seed)
