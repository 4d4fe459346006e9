"""How alike the samples of a batch are, by their features and by their labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rambo.ranking import unit_vectors

LabelSimilarity = Literal["distance", "cosine"]

_WORTH_SPLITTING = 256  # samples from which the symmetry of their products saves time


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


def label_similarities(targets: Tensor, kind: LabelSimilarity | None = None) -> Tensor:
    """How alike labels (samples,) or (samples, k) are: minus their Euclidean distance, or the cosine of rows.

    `kind` None is the distance of single numbers and the cosine of rows. Returns (samples, samples).
    """
    if targets.dim() == 1:
        return (targets[:, None] - targets).abs_().neg_()
    if kind == "distance":
        # of differences, not of products: labels equally far apart stay so
        return torch.cdist(targets, targets, compute_mode="donot_use_mm_for_euclid_dist").neg_()
    directions = unit_vectors(targets)
    return directions @ directions.T
