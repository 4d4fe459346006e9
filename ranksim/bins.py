"""Bins over the target, and how the training targets fall into them.

Bins are decided in float32, targets and edges alike, as in the official code. That is no detail: scores of STS-B are
multiples of 0.1 or 0.2 more often than not, and with float64 edges a quarter of them would land one bin off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ranksim.inputs import as_targets

SHOTS = ("many", "medium", "few")


def bin_of(targets: Any, edges: Tensor) -> Tensor:
    """The bin of each target, int64 of the same shape; below the first edge is bin 0, beyond the last the last bin.

    Args:
        targets: Any shape, any real type; a tensor, an array or a list.
        edges: (bins + 1,), ascending, on the device of `targets`.

    Raises:
        TypeError: If targets are no numbers.
        ValueError: If a target is nan, or in half precision too large to be told apart.
    """
    exact = as_targets(targets, edges.device).detach().float()
    if bool(torch.isnan(exact).any()):
        raise ValueError(
            f"{int(torch.isnan(exact).sum())} of {exact.numel()} targets are nan, which no bin can hold: "
            "drop those samples or fill in their targets"
        )
    # the inner edges alone decide: what lies outside joins the outermost bins, and the last bin keeps its right edge
    return torch.bucketize(exact.contiguous(), edges[1:-1].float(), right=True)


class Bins:
    """Consecutive intervals [edge, next edge) of the target; the last one includes its right edge.

    Args:
        edges: Ascending, at least two; bin k lies between edges k and k + 1.

    Raises:
        ValueError: If there are fewer than two edges, or they are not finite, not ascending, or equal in float32.

    Attributes:
        edges: float32 (bins + 1,).
    """

    def __init__(self, edges: Sequence[float] | Tensor) -> None:
        exact = torch.as_tensor(edges, dtype=torch.float64).detach().cpu()
        if exact.ndim != 1 or len(exact) < 2:
            raise ValueError(
                f"bins need a list of at least two edges, such as [0, 10, 20], got shape {tuple(exact.shape)}"
            )
        if not bool(torch.isfinite(exact).all()):
            raise ValueError(f"bin edges must be finite, got {exact.tolist()}")
        self.edges = exact.float()
        wrong = (self.edges.diff() <= 0).nonzero()[:, 0]
        if len(wrong):
            place = int(wrong[0])
            raise ValueError(
                f"bin edges must ascend (in float32), but edge {place + 1} is {exact[place + 1]:.9g} "
                f"after {exact[place]:.9g}: sort them and drop duplicates"
            )

    @classmethod
    def uniform(cls, low: float, high: float, width: float) -> Bins:
        """Bins of equal width: (0, 121, 1) for ages, (0, 5, 0.1) for scores of STS-B.

        Args:
            low: Where the first bin begins.
            high: Where the last bin ends.
            width: Of every bin, in the unit of the target.

        Raises:
            ValueError: If `width` is not positive or no whole number of bins fits.
        """
        if not (width > 0 and high > low):  # also refuses nan
            raise ValueError(f"uniform bins need low < high and width > 0, got low {low}, high {high}, width {width}")
        count = round((high - low) / width)
        if count < 1 or abs(count * width - (high - low)) > 1e-6 * (high - low):
            raise ValueError(
                f"no whole number of bins {width} wide fits between {low} and {high}: "
                f"choose a width that divides {high - low}"
            )
        return cls([low + (high - low) * step / count for step in range(count + 1)])

    @property
    def count(self) -> int:
        """How many bins there are."""
        return len(self.edges) - 1

    @property
    def centres(self) -> Tensor:
        """The middle of each bin, float32 (bins,)."""
        return ((self.edges[:-1].double() + self.edges[1:].double()) / 2).float()

    def __call__(self, targets: Any) -> Tensor:
        """The bin of each target, int64 of the same shape, on its device; targets outside join the outermost bins.

        Raises:
            ValueError: If a target is nan.
        """
        return bin_of(targets, self.edges.to(targets.device) if isinstance(targets, Tensor) else self.edges)

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bins) and torch.equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash(tuple(self.edges.tolist()))

    def __repr__(self) -> str:
        return f"Bins({self.count} from {self.edges[0]:g} to {self.edges[-1]:g})"


class Density:
    """How the training targets are spread: what re-weighting needs, and metrics by shot.

    Args:
        targets: Targets of the training samples, (samples,) or (samples, 1); a tensor, an array or a list.
        bins: Over the target.
        official_shots: Which bins count as "many", "medium" and "few", where a benchmark fixes it by hand rather than
            by counting.

    Raises:
        ValueError: If there is no target, one is not finite, targets are vectors, or `official_shots` names an unknown
            shot, a bin that does not exist, or a bin twice.

    Attributes:
        targets: float32 (samples,), on the CPU.
        counts: Training samples in each bin, int64 (bins,).
        lowest: The smallest training target.
        highest: The largest training target.
    """

    def __init__(self, targets: Any, bins: Bins, official_shots: Mapping[str, Sequence[int]] | None = None) -> None:
        flat = as_targets(targets).detach().cpu()
        if flat.ndim == 2 and flat.shape[1] == 1:
            flat = flat[:, 0]
        if flat.ndim != 1 or not len(flat):
            raise ValueError(
                f"a density needs one number for each of at least one training sample, got targets {tuple(flat.shape)}"
            )
        self.targets = flat.float()
        infinite = (~torch.isfinite(self.targets)).nonzero()[:, 0]
        if len(infinite):
            raise ValueError(
                f"{len(infinite)} of {len(flat)} training targets are nan or infinite, the first at position "
                f"{int(infinite[0])}: drop those samples or fill in their targets"
            )
        self.bins = bins
        self.counts = torch.bincount(bins(self.targets), minlength=bins.count)
        self.lowest, self.highest = float(self.targets.min()), float(self.targets.max())
        self.official_shots = None if official_shots is None else _checked(official_shots, bins.count)

    def __repr__(self) -> str:
        return (
            f"Density({len(self.targets)} targets from {self.lowest:g} to {self.highest:g}, "
            f"in {int((self.counts > 0).sum())} of {self.bins.count} bins)"
        )


def _checked(shots: Mapping[str, Sequence[int]], count: int) -> dict[str, tuple[int, ...]]:
    taken: dict[int, str] = {}
    for name, members in shots.items():
        if name not in SHOTS:
            raise ValueError(f"official_shots must name {', '.join(SHOTS)}, got {name!r}")
        for member in members:
            if not 0 <= member < count:
                raise ValueError(f"official_shots puts bin {member} in {name!r}, but bins go from 0 to {count - 1}")
            if member in taken:
                raise ValueError(f"official_shots puts bin {member} in both {taken[member]!r} and {name!r}: choose one")
            taken[member] = name
    return {name: tuple(members) for name, members in shots.items()}
