"""Feature distribution smoothing (FDS): features of neighbouring targets should have similar mean and variance.

After every epoch one more pass over the training samples gathers mean and variance of the features in each bucket of
the target; a kernel smooths them across buckets, and in the following epochs features are moved and scaled from the
statistics of their bucket to the smoothed ones. Nothing happens in evaluation.

Source: Yang et al. 2021, arXiv:2102.09554, section 3.2, and official code, which, unlike the paper, has variances only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rambo.ranking.exact import one_of
from ranksim.bins import Bins
from ranksim.bucket_statistics import BucketMoments, across_buckets, calibration, fill_from_neighbours, varying
from ranksim.imbalance import Kernel, window
from ranksim.inputs import as_targets, one_each

AT_ONCE = 256  # samples of a large batch, so that little memory is needed


class FeatureSmoothing(nn.Module):
    """Moves features towards what the neighbours of their target look like, in training.

    One epoch: `forward` smooths the features of every batch; then each batch of one more pass over the training samples
    goes to `observe`; then `finish_epoch`, which is called at the end of every epoch, brings the statistics up to date.

    Args:
        features: Features of a sample.
        bins: The buckets over the target. `Bins.uniform(3, 100, 1)` for AgeDB-DIR, (0, 100, 1) for IMDB-WIKI-DIR,
            (0, 5, 0.1) for STS-B-DIR.
        kernel: What smooths statistics across buckets, see `window`.
        size, sigma: As in `window`.
        momentum: Share of the old statistics that an update keeps, in [0, 1); None averages over all samples so far.
        start_update: The first epoch that ends with an update.
        start_smooth: The first epoch whose features are smoothed, later than `start_update`.
        clip: Smallest and largest ratio of variances; (0.1, 10) for ages, (0.5, 2) for STS-B.
        alias_statistics: Whether features are moved to the smoothed statistics, which are one update old, from the
            newest ones (officially) or from equally old ones (corrected).
        out_of_range: Targets outside the buckets count as in the first or last: with "clamp" always (corrected); with
            "official", for whole numbers in buckets of width 1, only if the same batch (for statistics: epoch) holds a
            target inside that bucket.
        empty_buckets: What an update makes of buckets without samples in its epoch. "keep": nothing (ages, officially).
            "neighbours": in ascending order, the mean of their neighbours (STS-B, officially).
        kernel_over: Which buckets the kernel averages over. "filled": those that have had samples, and for the variance
            those whose samples differ; the first samples of a bucket are its statistics (corrected). "all": also those
            still at mean 0 and variance 1, with which the first samples are mixed by the momentum (officially).

    Raises:
        ValueError: If a number is out of range, a name is unknown, or the kernel reaches further than there are
            buckets to reflect at the end.

    Attributes:
        epoch: Epochs finished, int64 ().
        tracked: Samples observed so far in each bucket, int64 (buckets,).
    """

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
        one_of("out_of_range", out_of_range, ("clamp", "official"))
        one_of("empty_buckets", empty_buckets, ("keep", "neighbours"))
        one_of("kernel_over", kernel_over, ("filled", "all"))
        if out_of_range == "official" and not bool((bins.edges.diff() == 1).all() and bins.edges[0] % 1 == 0):
            raise ValueError(f"out_of_range official is for ages in buckets [k, k + 1), got {bins}: use clamp")
        self.features, self.bins, self.momentum = features, bins, momentum
        self.start_update, self.start_smooth = start_update, start_smooth
        self.clip, self.alias_statistics, self.out_of_range = clip, alias_statistics, out_of_range
        self.empty_buckets, self.kernel_over = empty_buckets, kernel_over
        self._observed: BucketMoments | None = None
        self.register_buffer("epoch", torch.tensor(0))
        self._epoch = 0  # the same, to be asked in every step without waiting for a GPU
        self.register_buffer("tracked", torch.zeros(bins.count, dtype=torch.int64))
        for name in ("running", "last", "smoothed"):
            self.register_buffer(f"{name}_mean", torch.zeros(bins.count, features))
            self.register_buffer(f"{name}_variance", torch.ones(bins.count, features))
        # what `forward` applies, found anew from the statistics; one more row leaves features as they are
        self.register_buffer("scale", torch.ones(bins.count + 1, features), persistent=False)
        self.register_buffer("shift", torch.zeros(bins.count + 1, features), persistent=False)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._epoch = int(self.epoch)
        self._calibrate()

    @property
    def collecting(self) -> bool:
        """Whether this epoch ends with a pass over the training samples."""
        return self._epoch >= self.start_update

    @property
    def smoothing(self) -> bool:
        """Whether this epoch's features are smoothed in training."""
        return self._epoch >= self.start_smooth

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
        """Adds a batch of the pass at the end of an epoch, shaped and checked as in `forward`.

        Does nothing before `start_update`. The official code gives the features that `forward` returned.
        """
        targets = self._checked(features, targets)
        if not (self.collecting and len(features)):
            return
        if self._observed is None:
            self._observed = BucketMoments(self.bins.count + 2, self.features, features.device)
        parts = (torch.split(values, AT_ONCE) for values in (features, self._rows(targets)))
        for some, rows in zip(*parts, strict=True):
            self._observed.add(some, rows)

    @torch.no_grad()
    def finish_epoch(self) -> None:
        """Ends an epoch: smooths the statistics of the epoch before, then takes in what has been observed.

        Raises:
            RuntimeError: If nothing has been observed from `start_update` on.
            ValueError: If an observed feature was nan or infinite.
        """
        if self.collecting:
            count, mean, variance = self._observed_statistics()
            known, first = self._known(), int(self.epoch) == self.start_update
            if not first:
                self._keep_as_last(torch.ones_like(known))
                varied = known if self.kernel_over == "all" else known & varying(self.running_variance)
                self.smoothed_mean.copy_(across_buckets(self.running_mean, self.window, known, known))
                self.smoothed_variance.copy_(across_buckets(self.running_variance, self.window, varied, known))
            self._update(count, mean, variance)
            if self.alias_statistics and not first:
                self._keep_as_last(known)
            self._calibrate()
            self._observed = None
        self.epoch += 1
        self._epoch += 1

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
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(
                f"smoothing was built for features (samples, {self.features}), got {tuple(features.shape)}"
            )
        return one_each("targets", as_targets(targets, features.device), len(features))

    def _rows(self, targets: Tensor) -> Tensor:
        """The bucket of each target; officially, what lies below is in row `buckets` and above in `buckets + 1`."""
        row = self.bins(targets)
        if self.out_of_range == "official":
            row = torch.where(targets < float(self.bins.edges[0]), self.bins.count, row)
            row = torch.where(targets >= float(self.bins.edges[-1]), self.bins.count + 1, row)
        return row

    def _observed_statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count (buckets,), mean and variance (buckets, features): unbiased, but biased for a single sample."""
        if self._observed is None:
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
                fill_from_neighbours(running, ~filled, self._known())

    def _calibrate(self) -> None:
        self.scale[:-1], self.shift[:-1] = calibration(
            self.last_mean, self.last_variance, self.smoothed_mean, self.smoothed_variance, self.clip
        )
