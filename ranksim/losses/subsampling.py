"""One sample of each distinct label, so that a frequent label weighs no more than a rare one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Draw = Callable[[Sequence[Sequence[int]]], list[int]]  # the samples of each label -> one of each


def one_of_each_label(targets: Tensor, draw: Draw | None) -> tuple[Tensor | None, int]:
    """Draws one sample of each distinct label.

    Args:
        targets: (samples,), or (samples, k) with a label in each row. Labels are the same only if exactly equal.
        draw: Given the samples of each label, labels and samples in ascending order, returns one of each. None draws
            nothing.

    Returns:
        int64 positions (labels,) in ascending order of the labels, on the CPU; None if no label occurs twice or
        nothing is to be drawn. And the number of distinct labels.
    """
    labels: list[Any] = targets.tolist() if targets.dim() == 1 else [tuple(row) for row in targets.tolist()]
    samples: dict[Any, list[int]] = {}
    for position, label in enumerate(labels):
        samples.setdefault(label, []).append(position)
    if draw is None or len(samples) == len(targets):
        return None, len(samples)
    return torch.tensor(draw([samples[label] for label in sorted(samples)])), len(samples)


def drawn_by_torch(samples: Sequence[Sequence[int]], generator: torch.Generator | None = None) -> list[int]:
    """One sample of each label, from the given generator or else from torch's default one of the CPU."""
    # in double precision a number below 1 times a count stays below the count
    numbers = torch.rand(len(samples), dtype=torch.float64, generator=generator).tolist()
    return [of_label[int(number * len(of_label))] for number, of_label in zip(numbers, samples, strict=True)]


def drawn_by_python(samples: Sequence[Sequence[int]]) -> list[int]:
    """One sample of each label from the global `random.choice`, number for number as the official code draws them."""
    return [random.choice(of_label) for of_label in samples]
