"""Mean and variance by bucket: gathered batch by batch, smoothed across buckets, and the step from one to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NOTHING_VARIES = 1e-10  # a bucket with less variance in all its features together is not smoothed, as officially
ENTRIES_AT_ONCE = 2**18  # of a large batch: 2 MiB of float64, which a processor's cache can hold


class BucketMoments:
    """Mean and variance of the features in each bucket, from batches of any size.

    Squares are taken of the distance to the first sample of a bucket. So a feature that never changes has variance
    exactly 0, and a large mean costs no precision.

    Args:
        buckets: How many there are.
        features: Their number for each sample.
        device: Where the samples will be.
    """

    def __init__(self, buckets: int, features: int, device: torch.device) -> None:
        self.count = torch.zeros(buckets, dtype=torch.int64, device=device)
        self.first = torch.zeros(buckets, features, dtype=widest_float(device), device=device)
        self.sum, self.squares = torch.zeros_like(self.first), torch.zeros_like(self.first)

    @torch.no_grad()
    def add(self, features: Tensor, bucket: Tensor) -> None:
        """Adds samples, (samples, features), whose buckets are int64 (samples,)."""
        rows = max(16, ENTRIES_AT_ONCE // features.shape[1])
        for some, where in zip(torch.split(features, rows), torch.split(bucket, rows), strict=True):
            self._add(some, where)

    def _add(self, features: Tensor, bucket: Tensor) -> None:
        new = self.count[bucket] == 0
        if bool(new.any()):
            self._keep_first(features[new], bucket[new])
        distance = features.to(self.sum.dtype).sub_(self.first.index_select(0, bucket))
        self.sum.index_add_(0, bucket, distance)
        self.squares.index_add_(0, bucket, distance.square_())
        self.count.index_add_(0, bucket, torch.ones_like(bucket))

    def _keep_first(self, features: Tensor, bucket: Tensor) -> None:
        present, place = torch.unique(bucket, return_inverse=True)
        samples = torch.arange(len(bucket), device=bucket.device)
        earliest = torch.full_like(present, len(bucket)).scatter_reduce(0, place, samples, "amin")
        self.first[present] = features[earliest].to(self.first.dtype)

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

    Args:
        source_mean: (..., features), as the other three.
        source_variance: What the features have.
        mean: What they shall have.
        variance: What they shall have.
        clip: Smallest and largest ratio of variances.

    Returns:
        Both (..., features).

    Source: Yang et al. 2021, eq. 3 (whitening and re-colouring), for each feature by itself.
    """
    movable = (source_variance > 0) & (variance >= 0)
    movable &= varying(source_variance)[..., None]
    ratio = variance / torch.where(movable, source_variance, 1.0)
    scale = torch.where(movable, ratio.clamp(*clip).sqrt(), 1.0)
    return scale, torch.where(movable, mean - source_mean * scale, 0.0)


def varying(variance: Tensor) -> Tensor:
    """The buckets whose samples differ, bool (buckets,), from (buckets, features); a single one does not."""
    return variance.sum(dim=-1) >= NOTHING_VARIES


def across_buckets(values: Tensor, weights: Sequence[float], counted: Tensor, smoothed: Tensor) -> Tensor:
    """Means over neighbouring buckets, reflected at the ends (2 1 | 0 1 2 ...), over the buckets that are counted.

    Args:
        values: (buckets, features).
        weights: The kernel, of odd length, reaching less far than there are buckets.
        counted: Which buckets have a value, bool (buckets,); the kernel is divided by its sum over these.
        smoothed: Which are to be smoothed; the others, and those with nothing counted in reach, stay.

    Returns:
        As `values`.
    """
    half, buckets = len(weights) // 2, len(values)
    place = torch.arange(-half, buckets + half, device=values.device).abs()
    place = torch.where(place < buckets, place, 2 * (buckets - 1) - place)
    wide = widest_float(values.device)
    total, mass = torch.zeros_like(values, dtype=wide), torch.zeros(buckets, 1, dtype=wide, device=values.device)
    for step, weight in enumerate(weights):
        there = place[step : step + buckets]
        present = counted[there, None].to(wide) * weight
        total.addcmul_(values[there].to(wide), present)
        mass += present
    reached = smoothed[:, None] & (mass > 0)
    return torch.where(reached, total / torch.where(reached, mass, 1.0), values.to(wide)).to(values.dtype)


def fill_from_neighbours(values: Tensor, empty: Sequence[int], known: Tensor) -> None:
    """Puts into empty buckets, in place and in the order given, the mean of their neighbours.

    Args:
        values: (buckets, features).
        empty: Positions, ascending, so that a left neighbour may just have been filled.
        known: Which buckets have a value at all, bool (buckets,); without such a neighbour nothing changes.
    """
    there = known.tolist()
    for bucket in empty:
        beside = [k for k in (bucket - 1, bucket + 1) if 0 <= k < len(values) and there[k]]
        if beside:
            values[bucket] = values[beside].mean(dim=0)


def widest_float(device: torch.device) -> torch.dtype:
    """float64, where the device knows it."""
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs know no float64
