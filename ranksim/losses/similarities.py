"""How alike, or how far apart, the samples of a batch are, by their features and by their labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rambo.ranking import unit_vectors

LabelSimilarity = Literal["distance", "cosine"]


def row_distances(rows: Tensor, power: float) -> Tensor:
    """The `power`-norms of all differences of two rows, (samples, samples).

    Of differences, not products: close rows far from the origin keep their distance, and equal distances stay equal.
    """
    if forward_ad.unpack_dual(rows).tangent is not None:  # type: ignore[no-untyped-call]
        found: Tensor = (rows[:, None] - rows).norm(power, dim=2)  # n x n x k, as cdist has no forward-mode derivative
    else:
        found = torch.cdist(rows, rows, p=power, compute_mode="donot_use_mm_for_euclid_dist")
    return found


def label_similarities(targets: Tensor, kind: LabelSimilarity | None = None) -> Tensor:
    """How alike labels (samples,) or (samples, k) are: minus their Euclidean distance, or the cosine of rows.

    `kind` None is the distance of single numbers and the cosine of rows. Returns (samples, samples).
    """
    if targets.dim() == 1 and kind == "cosine":
        raise ValueError("single numbers have no cosine to compare them by; set label_similarity to distance or None")
    if targets.dim() == 1:
        return (targets[:, None] - targets).abs_().neg_()
    if kind == "distance":
        return row_distances(targets, 2.0).neg_()
    directions = unit_vectors(targets)
    return directions @ directions.T
