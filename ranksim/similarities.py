"""How alike the samples of a batch are, by their features and by their labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SHORTEST = 1e-12  # features shorter than this have no direction; the official code divides by no less
_WORTH_SPLITTING = 256  # samples from which the symmetry of their products saves time


def directions_and_lengths(values: Tensor) -> tuple[Tensor, Tensor]:
    """Features (samples, dimensions) divided by their length, and the lengths.

    Returns:
        Directions, same shape, and lengths (samples, 1), infinite for features shorter than 1e-12.

    Raises:
        ValueError: If features are not finite or too large to square.
    """
    lengths = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    if not math.isfinite(lengths.detach().sum()):
        raise ValueError(
            "features hold NaN, infinity or numbers too large to square, and cannot be compared; look for the step "
            "that produced them"
        )
    return values / lengths.clamp_min(_SHORTEST), nn.functional.threshold(lengths, _SHORTEST, math.inf)


def products(directions: Tensor) -> Tensor:
    """All products of two rows, (samples, samples); on a processor the larger part of one half of them is spared."""
    samples = len(directions)
    if samples < _WORTH_SPLITTING or directions.device.type != "cpu":
        return directions @ directions.T
    half = samples // 2
    matrix = directions.new_empty(samples, samples)
    matrix[:half, :half] = products(directions[:half])
    matrix[half:, half:] = products(directions[half:])
    torch.mm(directions[half:], directions[:half].T, out=matrix[half:, :half])
    matrix[:half, half:] = matrix[half:, :half].T
    return matrix


def label_similarities(targets: Tensor) -> Tensor:
    """-|y_i - y_j|, or the cosine for labels of several numbers; (samples, samples)."""
    if targets.dim() == 1:
        return (targets[:, None] - targets).abs_().neg_()
    directions = nn.functional.normalize(targets, dim=1, eps=_SHORTEST)
    return directions @ directions.T
