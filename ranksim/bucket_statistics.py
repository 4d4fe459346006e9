"""Mean and variance by bucket: gathered batch by batch, smoothed across buckets, and the step from one to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rambo.ranking.exact import widest_float

NOTHING_VARIES = 1e-10  # a bucket with less variance in all its features together is not smoothed, as officially


class BucketMoments:
    """Mean and variance of the features in each bucket, from batches of any size.

    Squares are taken of the distance to the first sample of a bucket. So a feature that never changes has variance
    exactly 0, and a large mean costs no precision.
    """

    def __init__(self, buckets: int, features: int, device: torch.device) -> None:
        self.count = torch.zeros(buckets, dtype=torch.int64, device=device)
        self.first = torch.zeros(buckets, features, dtype=widest_float(device), device=device)
        self.sum, self.squares = torch.zeros_like(self.first), torch.zeros_like(self.first)

    def add(self, features: Tensor, bucket: Tensor) -> None:
        """Adds samples, (samples, features), whose buckets are int64 (samples,)."""
        present, place = torch.unique(bucket, return_inverse=True)
        samples = torch.arange(len(bucket), device=bucket.device)
        earliest = torch.full_like(present, len(bucket)).scatter_reduce(0, place, samples, "amin")
        new = self.count[present] == 0
        self.first[present[new]] = features[earliest[new]].to(self.first.dtype)
        distance = features.to(self.sum.dtype).sub_(self.first.index_select(0, bucket))
        self.sum.index_add_(0, bucket, distance)
        self.squares.index_add_(0, bucket, distance.square_())
        self.count.index_add_(0, bucket, torch.ones_like(bucket))

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count (buckets,), mean and sum of squared deviations from it, both (buckets, features)."""
        count = self.count[:, None].clamp(min=1)
        offset = self.sum / count
        return self.count, self.first + offset, (self.squares - offset * self.sum).clamp(min=0)


def calibration(
    source_mean: Tensor, source_variance: Tensor, mean: Tensor, variance: Tensor, clip: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Scale and shift that give features the target's `mean` and `variance`, as features * scale + shift.

    The factor between the standard deviations is sqrt(clip(variance / source_variance)). Left as they are: features
    without variance in the source, or with negative variance in the target, and whole buckets in which nothing varies.

    All are (..., features); `clip` is the smallest and largest ratio of variances.

    Source: Yang et al. 2021, eq. 3 (whitening and re-colouring), for each feature by itself.
    """
    wide = widest_float(mean.device)
    source_mean, source_variance = source_mean.to(wide), source_variance.to(wide)
    mean, variance = mean.to(wide), variance.to(wide)
    movable = (source_variance > 0) & (variance >= 0) & varying(source_variance)[..., None]
    ratio = variance / torch.where(movable, source_variance, 1.0)
    scale = torch.where(movable, ratio.clamp(*clip).sqrt(), 1.0)
    return scale, torch.where(movable, mean - source_mean * scale, 0.0)


def varying(variance: Tensor) -> Tensor:
    """The buckets whose samples differ, bool (buckets,), from (buckets, features); a single one does not."""
    return variance.sum(dim=-1) >= NOTHING_VARIES


def across_buckets(values: Tensor, weights: Sequence[float], counted: Tensor, smoothed: Tensor) -> Tensor:
    """Means over neighbouring buckets, reflected at the ends (2 1 | 0 1 2 ...), over the buckets that are counted.

    Args:
        values: (buckets, features), as is the result.
        weights: The kernel, of odd length, reaching less far than there are buckets.
        counted: Which buckets have a value, bool (buckets,); the kernel is divided by its sum over these.
        smoothed: Which are to be smoothed; the others, and those with nothing counted in reach, stay.
    """
    half, buckets, wide = len(weights) // 2, len(values), widest_float(values.device)
    mirrored = F.pad(values.to(wide).T, (half, half), mode="reflect").T
    there = F.pad(counted.to(wide)[None], (half, half), mode="reflect").T
    total, mass = torch.zeros_like(values, dtype=wide), torch.zeros(buckets, 1, dtype=wide, device=values.device)
    for step, weight in enumerate(weights):
        present = there[step : step + buckets] * weight
        total.addcmul_(mirrored[step : step + buckets], present)
        mass += present
    reached = smoothed[:, None] & (mass > 0)
    return torch.where(reached, total / torch.where(reached, mass, 1.0), values.to(wide)).to(values.dtype)


def fill_from_neighbours(values: Tensor, empty: Tensor, known: Tensor) -> None:
    """Puts into empty buckets, in place and in ascending order, the mean of their neighbours, if these are known.

    So a left neighbour may just have been filled. `values` is (buckets, features); `empty` and `known` are bool
    (buckets,).
    """
    there = known.tolist()
    for bucket in empty.nonzero()[:, 0].tolist():
        beside = [k for k in (bucket - 1, bucket + 1) if 0 <= k < len(values) and there[k]]
        if beside:
            values[bucket] = values[beside].mean(dim=0)
