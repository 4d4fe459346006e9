"""How alike the samples of a batch are, by their features and by their labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rambo.ranking import directions_and_lengths, unit_vectors

_WORTH_SPLITTING = 256  # samples from which the symmetry of their products saves time


def finite_directions(values: Tensor) -> tuple[Tensor, Tensor]:
    """The `directions_and_lengths` of features (samples, dimensions).

    Raises:
        ValueError: If features are not finite.
    """
    directions, lengths = directions_and_lengths(values)
    if math.isnan(directions.detach().sum()):
        raise ValueError("features hold NaN or infinity and cannot be compared; look for the step that produced them")
    return directions, lengths


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
    directions = unit_vectors(targets)
    return directions @ directions.T
