"""Re-weighting of imbalanced targets, and label distribution smoothing (LDS).

Source: Yang et al. 2021, "Delving into Deep Imbalanced Regression", arXiv:2102.09554, section 3.1, and official code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rambo.ranking.exact import one_of, positive
from ranksim.bins import Density, bin_of
from ranksim.inputs import Fitted, as_targets, one_each

Kernel = Literal["gaussian", "triangular", "laplace"]
Kind = Literal["none", "inverse", "sqrt_inverse"]

KERNELS: tuple[Kernel, ...] = get_args(Kernel)
GAUSSIAN_REACH = 4.0  # where scipy cuts a Gaussian off, in sigmas


def window(kernel: str, size: int, sigma: float, normalize: Literal["max", "sum"] = "max") -> Tensor:
    """How much each neighbouring bin counts, float64 (size,), symmetric.

    The Gaussian is an impulse in an array of `size` zeros, filtered by scipy's `gaussian_filter1d`, as in the official
    code: that filter reflects at the ends of the array. So it is flatter than exp(-k^2 / (2 sigma^2)): at size 5 and
    sigma 2 it is 0.858, 0.946, 1, not 0.607, 0.882, 1.

    Args:
        kernel: "gaussian"; "triangular", linear down to zero just outside the window; or "laplace", exp(-|k| / sigma).
        size: Bins that the window spans, odd.
        sigma: Width in bins, > 0; the triangle ignores it.
        normalize: What is made 1: "max", the centre, as for re-weighting; or "sum", as for feature smoothing.

    Raises:
        ValueError: If a name is unknown, `size` is not odd and positive, or `sigma` is not positive and finite.
    """
    one_of("kernel", kernel, KERNELS)
    positive("sigma", sigma)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
        raise ValueError(f"the kernel size must be odd and positive, so that it has a centre, got {size}")
    half = size // 2
    distance = torch.arange(-half, half + 1, dtype=torch.float64).abs()
    if kernel == "gaussian":
        values = _filtered_impulse(size, sigma)
    elif kernel == "triangular":
        values = (half + 1 - distance) / (half + 1)
    else:
        values = torch.exp(-distance / sigma)
    return values / (values.max() if normalize == "max" else values.sum())


def _filtered_impulse(size: int, sigma: float) -> Tensor:
    """The impulse response at each place: all taps whose reflected position is the centre, float64 (size,)."""
    reach = int(GAUSSIAN_REACH * sigma + 0.5)
    steps = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (steps.double() / sigma) ** 2)
    taps /= taps.sum()
    # scipy's "reflect": d c b a | a b c d | d c b a, a pattern that repeats every 2 * size
    source = (torch.arange(size)[:, None] + steps) % (2 * size)
    source = torch.minimum(source, 2 * size - 1 - source)
    return torch.where(source == size // 2, taps, 0.0).sum(dim=1)


def smoothed(counts: Tensor, weights: Tensor) -> Tensor:
    """Counts (bins,) correlated with a symmetric window, float64 (bins,); beyond both ends there is nothing."""
    half = len(weights) // 2
    padded = nn.functional.pad(counts.double(), (half, half))
    # summed as scipy does it, so that what is truncated to an integer afterwards falls on the same side of it
    total = padded[half : half + len(counts)] * weights[half]
    for step in range(half, 0, -1):
        before, after = padded[half - step :][: len(counts)], padded[half + step :][: len(counts)]
        total = total + (before + after) * weights[half - step]
    return total


def smoothed_density(density: Density, kernel: str, size: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The empirical and the smoothed density, for choosing a kernel by eye; arguments and errors of `window`.

    Both are training samples in each bin, float64 (bins,), on one scale: here the window sums to 1.
    """
    return density.counts.double(), smoothed(density.counts, window(kernel, size, sigma, normalize="sum"))


class Reweighting(Fitted):
    """Weighs rare targets up: the weight of a sample is the inverse of the effective count of its bin.

    Weights are scaled so that their mean over the training samples is 1. A bin without training samples weighs what
    its smoothed count says, and as much as the heaviest training bin where that count is 0.

    Args:
        kind: "inverse"; "sqrt_inverse", the inverse of the square root; or "none", all weights 1.
        kernel: What smooths the counts (LDS), see `window`. None leaves them alone.
        size, sigma: As in `window`.
        clip: Range into which "inverse" clips the counts before smoothing, (5, 1000) for ages; not square roots.
        integer_counts: Whether smoothed counts of "inverse" are truncated to integers, as in the official code. Changes
            weights by up to 4 % on AgeDB-DIR.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or a kernel is given without re-weighting.

    Source: Yang et al. 2021, section 3.1.
    """

    weights: Tensor
    edges: Tensor

    def __init__(
        self,
        kind: Kind = "none",
        kernel: Kernel | None = None,
        size: int = 5,
        sigma: float = 2.0,
        clip: Sequence[float] | None = None,
        integer_counts: bool = False,
    ) -> None:
        super().__init__()
        one_of("kind", kind, get_args(Kind))
        if kernel is not None:
            if kind == "none":
                raise ValueError(
                    "label distribution smoothing changes nothing but weights, so it needs re-weighting: "
                    "choose kind inverse or sqrt_inverse, or leave the kernel out"
                )
            window(kernel, size, sigma)
        if clip is not None and not (len(clip) == 2 and 0 < clip[0] < clip[1]):
            raise ValueError(f"clip must be two counts with 0 < low < high, such as [5, 1000], got {list(clip)}")
        self.kind, self.kernel, self.size, self.sigma = kind, kernel, size, sigma
        self.clip, self.integer_counts = clip, integer_counts
        self.register_buffer("weights", torch.empty(0))
        self.register_buffer("edges", torch.empty(0))

    def effective_counts(self, counts: Tensor) -> Tensor:
        """What a sample's weight is the inverse of, float64 (bins,), from the training samples in each bin, (bins,).

        Counts are clipped, or their square root is taken, and then smoothed, in this order.
        """
        if self.kind == "none":
            return torch.ones(len(counts), dtype=torch.float64)
        effective = counts.double()
        if self.kind == "sqrt_inverse":
            effective = effective.sqrt()
        elif self.clip is not None:
            effective = effective.clamp(*self.clip)
        if self.kernel is not None:
            effective = smoothed(effective, window(self.kernel, self.size, self.sigma))
            if self.kind == "inverse" and self.integer_counts:
                effective = effective.trunc()
        return effective

    def prepare(self, density: Density) -> None:
        """Computes the weight of each bin from the training samples.

        Raises:
            ValueError: If all training targets fall in one bin, so that there is nothing to weigh.
        """
        counts, device = density.counts, self.weights.device
        if self.kind != "none" and int((counts > 0).sum()) < 2:
            raise ValueError(
                f"re-weighting needs targets that differ, but all {len(density.targets)} training targets, from "
                f"{density.lowest:g} to {density.highest:g}, fall in one bin: use kind none, or narrower bins"
            )
        effective = self.effective_counts(counts)
        inverse = 1 / effective
        inverse = torch.where(effective > 0, inverse, inverse[counts > 0].max())
        mean = (inverse * counts).sum() / counts.sum()
        self.weights = (inverse / mean).float().to(device)
        self.edges = density.bins.edges.to(device)

    def forward(self, targets: Any) -> Tensor:
        """The weight of each sample, float32 (samples,), of targets (samples,) or (samples, 1).

        Raises:
            TypeError: If targets are no tensor, array or list of numbers.
            ValueError: If targets are vectors, or one is nan.
            RuntimeError: If `prepare` has not been called.
        """
        targets = one_each("targets", as_targets(targets, self.weights.device))
        if not len(self.weights):
            raise RuntimeError("the weights are not known yet: call prepare(density) with the training targets first")
        return self.weights[bin_of(targets, self.edges)]

    def extra_repr(self) -> str:
        """The settings that matter."""
        kernel = "" if self.kernel is None else f", {self.kernel} {self.size}/{self.sigma:g}"
        return f"{self.kind}{kernel}"
