"""Re-weighting of imbalanced targets, and label distribution smoothing (LDS).

A sample weighs the inverse of how many training samples share its bin, or of the square root of that. Smoothing counts
neighbouring bins too, as far as the kernel reaches: a rare age among common ones is not rare. It smooths the density,
never the targets.

Source: Yang et al. 2021, "Delving into Deep Imbalanced Regression", arXiv:2102.09554, section 3.1, and official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ranksim.bins import Density, bin_of
from ranksim.inputs import as_targets

Kernel = Literal["gaussian", "triangular", "laplace"]
Kind = Literal["none", "inverse", "sqrt_inverse"]

KERNELS = ("gaussian", "triangular", "laplace")
KINDS = ("none", "inverse", "sqrt_inverse")
GAUSSIAN_REACH = 4.0  # where scipy cuts a Gaussian off, in sigmas


def window(kernel: str, size: int, sigma: float, normalize: Literal["max", "sum"] = "max") -> Tensor:
    """How much each neighbouring bin counts, float64 (size,), symmetric.

    The Gaussian is an impulse in an array of `size` zeros, filtered by scipy's `gaussian_filter1d`, as in the official
    code: that filter reflects at the ends of the array, which folds the tails back in. So it is flatter than
    exp(-k^2 / (2 sigma^2)): at size 5 and sigma 2 it is 0.858, 0.946, 1, not 0.607, 0.882, 1.

    Args:
        kernel: "gaussian"; "triangular", linear down to zero just outside the window; or "laplace", exp(-|k| / sigma).
        size: Bins that the window spans, odd.
        sigma: Width in bins, > 0; the triangle has none and ignores it.
        normalize: What is made 1: "max", the centre, as for re-weighting; or "sum", as for feature smoothing.

    Raises:
        ValueError: If a name is unknown, `size` is not odd and positive, or `sigma` is not positive and finite.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be {', '.join(KERNELS)}, got {kernel!r}")
    if normalize not in ("max", "sum"):
        raise ValueError(f"normalize must be max or sum, got {normalize!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
        raise ValueError(f"the kernel size must be odd and positive, so that it has a centre, got {size}")
    if not 0 < sigma < float("inf"):  # also refuses nan
        raise ValueError(f"the kernel's sigma must be > 0 and finite, got {sigma}")
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
    """Correlates counts with a symmetric window; beyond both ends there is nothing.

    Args:
        counts: (bins,).
        weights: The window, float64 (size,), size odd.

    Returns:
        float64 (bins,). Summed as scipy does it, the centre and then pairs from the outside in, so that a sum which
        is truncated to an integer afterwards falls on the same side of it.
    """
    half = len(weights) // 2
    padded = nn.functional.pad(counts.double(), (half, half))
    total = padded[half : half + len(counts)] * weights[half]
    for step in range(half, 0, -1):
        before, after = padded[half - step :][: len(counts)], padded[half + step :][: len(counts)]
        total = total + (before + after) * weights[half - step]
    return total


def smoothed_density(density: Density, kernel: str, size: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The empirical and the smoothed density, for choosing a kernel by eye.

    Both are numbers of training samples in each bin, float64 (bins,), on one scale: the window sums to 1 here, which
    makes no difference to weights, as their mean is 1 whatever the scale.

    Raises:
        ValueError: As `window`.
    """
    return density.counts.double(), smoothed(density.counts, window(kernel, size, sigma, normalize="sum"))


def effective_counts(
    counts: Tensor,
    kind: str = "inverse",
    kernel: str | None = None,
    size: int = 5,
    sigma: float = 2.0,
    clip: Sequence[float] | None = None,
    integer_counts: bool = False,
) -> Tensor:
    """What a sample's weight is the inverse of, for each bin, float64 (bins,).

    Counts are clipped, or their square root is taken, and then smoothed, in this order. Arguments and errors are those
    of `Reweighting`, with the counts of the training samples, int64 (bins,). With kind "none" it is 1 everywhere.
    """
    _check_settings(kind, kernel, size, sigma, clip)
    if kind == "none":
        return torch.ones(len(counts), dtype=torch.float64)
    effective = counts.double()
    if kind == "sqrt_inverse":
        effective = effective.sqrt()
    elif clip is not None:
        effective = effective.clamp(*clip)
    if kernel is not None:
        effective = smoothed(effective, window(kernel, size, sigma))
        if kind == "inverse" and integer_counts:
            effective = effective.trunc()
    return effective


def _check_settings(kind: str, kernel: str | None, size: int, sigma: float, clip: Sequence[float] | None) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind of re-weighting must be {', '.join(KINDS)}, got {kind!r}")
    if kernel is not None:
        if kind == "none":
            raise ValueError(
                "label distribution smoothing changes nothing but weights, so it needs re-weighting: "
                "choose kind inverse or sqrt_inverse, or leave the kernel out"
            )
        window(kernel, size, sigma)
    if clip is not None and not (len(clip) == 2 and 0 < clip[0] < clip[1]):
        raise ValueError(f"clip must be two counts with 0 < low < high, such as [5, 1000], got {list(clip)}")


class Reweighting(nn.Module):
    """Weighs rare targets up: the weight of a sample is the inverse of the effective count of its bin.

    Weights are scaled so that their mean over the training samples is 1. A bin without training samples weighs what
    its smoothed count says, and as much as the heaviest training bin where that count is 0.

    Args:
        kind: "inverse"; "sqrt_inverse", the inverse of the square root; or "none", all weights 1.
        kernel: Smooths the counts (LDS): "gaussian", "triangular" or "laplace"; None leaves them alone.
        size: Bins that the kernel spans, odd.
        sigma: Its width in bins, > 0.
        clip: Range into which "inverse" clips the counts before smoothing; (5, 1000) for ages. Square roots are
            never clipped, as officially.
        integer_counts: Whether smoothed counts of "inverse" are truncated to integers, which the official code does
            because its counts are integers. Changes weights by up to 4 % on AgeDB-DIR.

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
        _check_settings(kind, kernel, size, sigma, clip)
        self.kind, self.kernel, self.size, self.sigma = kind, kernel, size, sigma
        self.clip = None if clip is None else (float(clip[0]), float(clip[1]))
        self.integer_counts = integer_counts
        # sized by `prepare`, or by a checkpoint
        self.register_buffer("weights", torch.empty(0))
        self.register_buffer("edges", torch.empty(0))

    def prepare(self, density: Density) -> None:
        """Computes the weight of each bin from the training samples.

        Raises:
            ValueError: If all training targets fall in one bin, so that there is nothing to weigh.
        """
        device = self.weights.device
        self.edges = density.bins.edges.to(device)
        counts = density.counts
        if self.kind != "none" and int((counts > 0).sum()) < 2:
            raise ValueError(
                f"re-weighting needs targets that differ, but all {len(density.targets)} training targets, from "
                f"{density.lowest:g} to {density.highest:g}, fall in one bin: use kind none, or narrower bins"
            )
        effective = effective_counts(
            counts, self.kind, self.kernel, self.size, self.sigma, self.clip, self.integer_counts
        )
        inverse = 1 / effective
        heaviest = inverse[counts > 0].max()
        inverse = torch.where(effective > 0, inverse, heaviest)
        mean = (inverse * counts).sum() / counts.sum()
        self.weights = (inverse / mean).float().to(device)

    def forward(self, targets: Any) -> Tensor:
        """The weight of each sample, float32 (samples,).

        Args:
            targets: (samples,) or (samples, 1); a tensor, an array or a list.

        Raises:
            TypeError: If targets are no numbers.
            ValueError: If targets are vectors, or one is nan.
            RuntimeError: If `prepare` has not been called.
        """
        targets = as_targets(targets, self.weights.device)
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        if targets.ndim != 1:
            raise ValueError(f"re-weighting needs one target for each sample, got shape {tuple(targets.shape)}")
        if not len(self.weights):
            raise RuntimeError("the weights are not known yet: call prepare(density) with the training targets first")
        return self.weights[bin_of(targets, self.edges)]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **named: Any) -> None:
        """Takes the sizes of both buffers from the checkpoint, so that an unprepared module can be restored."""
        for name in ("weights", "edges"):
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor):
                setattr(self, name, getattr(self, name).new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)

    def extra_repr(self) -> str:
        """The settings that matter."""
        kernel = "" if self.kernel is None else f", {self.kernel} {self.size}/{self.sigma:g}"
        return f"{self.kind}{kernel}"
