"""Feature distribution smoothing (FDS): features of neighbouring targets should have similar mean and variance.

Targets are put into buckets. After every epoch one more pass over the training samples gathers mean and variance of the
features in each bucket; those statistics are smoothed across buckets by a kernel, and in the following epochs features
are moved and scaled from the statistics of their bucket to the smoothed ones. Nothing happens in evaluation.

Source: Yang et al. 2021, "Delving into Deep Imbalanced Regression", arXiv:2102.09554, section 3.2, and official code.
The paper writes covariance matrices; the code, and this file, use the variance of each feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ranksim.bins import Bins, bin_of
from ranksim.bucket_statistics import (
    BucketMoments,
    across_buckets,
    calibration,
    fill_from_neighbours,
    varying,
    widest_float,
)
from ranksim.imbalance import Kernel, window
from ranksim.inputs import as_targets


class FeatureSmoothing(nn.Module):
    """Moves features towards what the neighbours of their target look like, in training.

    One epoch: `forward` smooths the features of every batch; then each batch of one more pass over the training samples
    goes to `observe`; then `finish_epoch` brings the statistics up to date. The module counts epochs from 0, so
    `finish_epoch` is called at the end of every one, also before `start_update`.

    Args:
        features: Features of a sample.
        bins: The buckets over the target; targets outside count as in the first or last. `Bins.uniform(3, 100, 1)` for
            AgeDB-DIR, (0, 100, 1) for IMDB-WIKI-DIR, (0, 5, 0.1) for STS-B-DIR.
        kernel: Smooths statistics across buckets: "gaussian", "triangular" or "laplace".
        size: Buckets that it spans, odd.
        sigma: Its width in buckets, > 0.
        momentum: Share of the old statistics that an update keeps, in [0, 1), after the first; None averages over all
            samples seen so far.
        start_update: The first epoch that ends with an update.
        start_smooth: The first epoch whose features are smoothed, later than `start_update`.
        clip: Smallest and largest ratio of variances; (0.1, 10) for ages, (0.5, 2) for STS-B.
        alias_statistics: Whether features are moved to the smoothed statistics, which are one update old, from the
            newest ones (officially, where a reference is kept instead of a copy) or from equally old ones (corrected).
        out_of_range: Targets outside the buckets count as in the first or last, with "clamp" always (corrected), with
            "official" only if the same batch (for statistics: epoch) holds a target inside that bucket; else they are
            left out. "official" is for integer targets, in buckets of width 1.
        empty_buckets: What an update makes of buckets without samples in its epoch. "keep": they stay as they were, at
            first mean 0 and variance 1 (ages, officially). "neighbours": in ascending order they become the average of
            their neighbours, or the one neighbour at an end (STS-B, officially).
        kernel_over: Which buckets the kernel averages over. "filled": those that have had samples, and for the variance
            those whose samples differ; the first samples of a bucket are its statistics (corrected). "all": also those
            still at mean 0 and variance 1, or at variance 0 after a single sample, which pulls their neighbours there;
            the first samples after `start_update` are mixed with that by the momentum (officially).

    Raises:
        ValueError: If a number is out of range, a name is unknown, or the kernel reaches further than there are
            buckets to reflect at the end.

    Attributes:
        epoch: Epochs finished, int64 ().
        tracked: Samples observed so far in each bucket, int64 (buckets,).
    """

    edges: Tensor
    epoch: Tensor
    tracked: Tensor
    running_mean: Tensor
    running_variance: Tensor
    last_mean: Tensor
    last_variance: Tensor
    smoothed_mean: Tensor
    smoothed_variance: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        features: int,
        bins: Bins,
        kernel: Kernel = "gaussian",
        size: int = 5,
        sigma: float = 2.0,
        momentum: float | None = 0.9,
        start_update: int = 0,
        start_smooth: int = 1,
        clip: Sequence[float] = (0.1, 10.0),
        alias_statistics: bool = False,
        out_of_range: Literal["clamp", "official"] = "clamp",
        empty_buckets: Literal["keep", "neighbours"] = "keep",
        kernel_over: Literal["filled", "all"] = "filled",
    ) -> None:
        super().__init__()
        self.window: list[float] = window(kernel, size, sigma, normalize="sum").tolist()
        if features < 1:
            raise ValueError(f"features must be the width of the layer that is smoothed, got {features}")
        if size // 2 >= bins.count:
            raise ValueError(
                f"a kernel of size {size} reflects {size // 2} buckets at each end, so it needs at least "
                f"{size // 2 + 1} buckets, got {bins.count}: use a smaller kernel or narrower buckets"
            )
        if momentum is not None and not 0 <= momentum < 1:  # also refuses nan
            raise ValueError(f"momentum must lie in [0, 1), or be None to average over all samples, got {momentum}")
        if start_update < 0 or start_smooth <= start_update:
            raise ValueError(
                f"smoothing needs statistics, so 0 <= start_update < start_smooth, got start_update {start_update} "
                f"and start_smooth {start_smooth}"
            )
        if not (len(clip) == 2 and 0 < clip[0] <= 1 <= clip[1]):
            raise ValueError(f"clip must be two ratios with 0 < low <= 1 <= high, such as [0.1, 10], got {list(clip)}")
        for name, given, choices in (
            ("out_of_range", out_of_range, ("clamp", "official")),
            ("empty_buckets", empty_buckets, ("keep", "neighbours")),
            ("kernel_over", kernel_over, ("filled", "all")),
        ):
            if given not in choices:
                raise ValueError(f"{name} must be {' or '.join(choices)}, got {given!r}")
        if out_of_range == "official" and not bool((bins.edges.diff() == 1).all() and bins.edges[0] % 1 == 0):
            raise ValueError(f"out_of_range official is for ages in buckets [k, k + 1), got {bins}: use clamp")
        self.features, self.bins, self.momentum = features, bins, momentum
        self.start_update, self.start_smooth = start_update, start_smooth
        self.clip = (float(clip[0]), float(clip[1]))
        self.alias_statistics, self.out_of_range = alias_statistics, out_of_range
        self.empty_buckets, self.kernel_over = empty_buckets, kernel_over
        self._observed: BucketMoments | None = None

        self.register_buffer("edges", bins.edges.clone(), persistent=False)
        self.register_buffer("epoch", torch.tensor(0))
        self.register_buffer("tracked", torch.zeros(bins.count, dtype=torch.int64))
        for name in ("running", "last", "smoothed"):
            self.register_buffer(f"{name}_mean", torch.zeros(bins.count, features))
            self.register_buffer(f"{name}_variance", torch.ones(bins.count, features))
        # what `forward` applies, found anew from the statistics; one more row leaves features as they are
        self.register_buffer("scale", torch.ones(bins.count + 1, features), persistent=False)
        self.register_buffer("shift", torch.zeros(bins.count + 1, features), persistent=False)
        self.register_load_state_dict_post_hook(_calibrate_again)  # type: ignore[no-untyped-call]

    @property
    def collecting(self) -> bool:
        """Whether this epoch ends with a pass over the training samples."""
        return int(self.epoch) >= self.start_update

    @property
    def smoothing(self) -> bool:
        """Whether this epoch's features are smoothed in training."""
        return int(self.epoch) >= self.start_smooth

    def forward(self, features: Tensor, targets: Any) -> Tensor:
        """Smooths features, (samples, features), of targets (samples,) or (samples, 1): a tensor, an array or a list.

        The gradient goes through the affine map; statistics are constants. In evaluation mode, and before
        `start_smooth`, features are returned as they came.

        Raises:
            ValueError: If shapes do not fit, or a target is nan.
        """
        targets = self._checked(features, targets)
        if not (self.training and self.smoothing):
            return features
        row = self._rows(targets)
        if self.out_of_range == "official":
            for outside, joins in ((self.bins.count, 0), (self.bins.count + 1, self.bins.count - 1)):
                row = torch.where(row == outside, torch.where((row == joins).any(), joins, self.bins.count), row)
        wide = torch.promote_types(features.dtype, self.scale.dtype)
        scale, shift = (part.index_select(0, row).to(wide) for part in (self.scale, self.shift))
        return torch.addcmul(shift, features.to(wide), scale).to(features.dtype)

    @torch.no_grad()
    def observe(self, features: Tensor, targets: Any) -> None:
        """Adds a batch of the pass at the end of an epoch; does nothing before `start_update`.

        Args:
            features: (samples, features). The official code gives those that `forward` returned.
            targets: (samples,) or (samples, 1).

        Raises:
            ValueError: If shapes do not fit, or a target is nan.
        """
        targets = self._checked(features, targets)
        if not (self.collecting and len(features)):
            return
        if self._observed is None:
            self._observed = BucketMoments(self.bins.count + 2, self.features, features.device)
        self._observed.add(features, self._rows(targets))

    @torch.no_grad()
    def finish_epoch(self) -> None:
        """Ends an epoch: smooths the statistics of the epoch before, then takes in what has been observed.

        Raises:
            RuntimeError: If nothing has been observed from `start_update` on.
            ValueError: If an observed feature was nan or infinite.
        """
        if self.collecting:
            count, mean, variance = self._observed_statistics()
            smoothed = self._known()
            if int(self.epoch) > self.start_update:
                self._smooth_statistics()
            self._update(count, mean, variance)
            if self.alias_statistics and int(self.epoch) > self.start_update:
                self._keep_as_last(smoothed)
            self._calibrate()
            self._observed = None
        self.epoch += 1

    def update(self, features: Tensor, targets: Any) -> None:
        """`observe` with all training samples at once, then `finish_epoch`."""
        self.observe(features, targets)
        self.finish_epoch()

    @property
    def health(self) -> dict[str, float]:
        """For the log: buckets ever filled, the mean distance that bucket means move, and the mean factor."""
        moved = (self.last_mean * self.scale[:-1] + self.shift[:-1] - self.last_mean).abs()
        return {
            "buckets_filled": float((self.tracked > 0).sum()),
            "mean_moved": float(moved.mean()),
            "mean_scale": float(self.scale[:-1].mean()),
        }

    def _checked(self, features: Tensor, targets: Any) -> Tensor:
        """The targets as (samples,)."""
        given = as_targets(targets, features.device)
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(
                f"smoothing was built for features (samples, {self.features}), got {tuple(features.shape)}"
            )
        if given.shape not in ((len(features),), (len(features), 1)):
            raise ValueError(
                f"smoothing needs one target for each of {len(features)} samples, got targets {tuple(given.shape)}"
            )
        return given.reshape(-1)

    def _rows(self, targets: Tensor) -> Tensor:
        """The bucket of each target; officially, what lies below is in row `buckets` and above in `buckets + 1`."""
        row = bin_of(targets, self.edges)
        if self.out_of_range == "official":
            row = torch.where(targets < self.edges[0], self.bins.count, row)
            row = torch.where(targets >= self.edges[-1], self.bins.count + 1, row)
        return row

    def _observed_statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count (buckets,), mean and variance (buckets, features): unbiased, but biased for a single sample."""
        if self._observed is None or not bool((self._observed.count > 0).any()):
            raise RuntimeError(
                f"no features were observed in epoch {int(self.epoch)}: give every batch of a pass over the training "
                "samples to observe before finish_epoch"
            )
        count, mean, deviation = self._observed.moments()
        if not bool(torch.isfinite(deviation).all()):
            raise ValueError(
                f"features observed in epoch {int(self.epoch)} hold nan or infinity, which would spoil all later "
                "statistics: the model has diverged; lower the learning rate"
            )
        for outside, joins in ((-2, 0), (-1, self.bins.count - 1)):
            if bool(count[outside] > 0) and bool(count[joins] > 0):
                both = count[outside] + count[joins]
                difference = mean[outside] - mean[joins]
                deviation[joins] += deviation[outside] + difference.square() * count[outside] * count[joins] / both
                mean[joins] += difference * count[outside] / both
                count[joins] = both
        count, mean, deviation = count[:-2], mean[:-2], deviation[:-2]
        return count, mean, deviation / (count - 1).clamp(min=1)[:, None]

    def _known(self) -> Tensor:
        """The buckets whose statistics count, bool (buckets,)."""
        return (self.tracked > 0) | (self.kernel_over == "all")

    def _smooth_statistics(self) -> None:
        known = self._known()
        self._keep_as_last(torch.ones_like(known))
        self.smoothed_mean.copy_(across_buckets(self.running_mean, self.window, known, known))
        varied = known if self.kernel_over == "all" else known & varying(self.running_variance)
        self.smoothed_variance.copy_(across_buckets(self.running_variance, self.window, varied, known))

    def _keep_as_last(self, buckets: Tensor) -> None:
        self.last_mean[buckets] = self.running_mean[buckets]
        self.last_variance[buckets] = self.running_variance[buckets]

    def _update(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        known, filled, varied = self._known(), count > 0, count > 0
        new = ~known | (int(self.epoch) == self.start_update)
        self.tracked += count
        if self.momentum is None:
            kept = 1 - count / self.tracked.clamp(min=1).to(mean.dtype)
        else:
            kept = torch.full_like(mean[:, 0], self.momentum)
        kept_mean = kept_variance = kept.masked_fill(new, 0.0)
        if self.kernel_over == "filled":  # one sample has no variance, so the next ones have nothing to be mixed with
            varied = (count > 1) | (filled & new)
            kept_variance = kept_mean.masked_fill(~varying(self.running_variance), 0.0)
        for running, current, kept, fresh in (
            (self.running_mean, mean, kept_mean, filled),
            (self.running_variance, variance, kept_variance, varied),
        ):
            mixed = (1 - kept)[:, None] * current + kept[:, None] * running
            running.copy_(torch.where(fresh[:, None], mixed, running.to(mixed.dtype)))
            if self.empty_buckets == "neighbours":
                fill_from_neighbours(running, (~filled).nonzero()[:, 0].tolist(), self._known())

    def _calibrate(self) -> None:
        wide = widest_float(self.scale.device)
        source = self.last_mean.to(wide), self.last_variance.to(wide)
        self.scale[:-1], self.shift[:-1] = calibration(
            *source, self.smoothed_mean.to(wide), self.smoothed_variance.to(wide), clip=self.clip
        )


def _calibrate_again(module: FeatureSmoothing, incompatible: object) -> None:
    """After a checkpoint is loaded. A function of its own, so that copies of a module do not share it."""
    module._calibrate()
