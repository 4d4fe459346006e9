"""Bins over the target, and how the training targets fall into them.

Bins are decided in float32, targets and edges alike, as in the official code: scores of STS-B are multiples of 0.1 or
0.2 more often than not, and with float64 edges a quarter of them would land one bin off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rambo.ranking.exact import one_of, waits
from ranksim.inputs import as_targets, check_finite, one_each

SHOTS = ("many", "medium", "few")


def bin_of(targets: Any, edges: Tensor) -> Tensor:
    """The bin of each target, int64 of the same shape; below the first edge is bin 0, beyond the last the last bin.

    Args:
        targets: Any shape, any real type; a tensor, an array or a list.
        edges: (bins + 1,), ascending, on the device of `targets`.

    Raises:
        TypeError, ValueError: If a target is no number, is nan, or in half precision too large to be told apart.
    """
    exact = as_targets(targets, edges.device).detach().float()
    if not waits(exact) and bool(torch.isnan(exact).any()):
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
        if exact.ndim != 1 or len(exact) < 2 or not bool(torch.isfinite(exact).all()):
            raise ValueError(f"bins need a list of at least two finite edges, such as [0, 10], got {exact.tolist()}")
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
        """`bin_of` these edges, on the device of the targets."""
        return bin_of(targets, self.edges.to(targets.device) if isinstance(targets, Tensor) else self.edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bins) and torch.equal(self.edges, other.edges)

    def __repr__(self) -> str:
        return f"Bins({self.count} from {self.edges[0]:g} to {self.edges[-1]:g})"


class Density:
    """How the training targets are spread: what re-weighting needs, and metrics by shot.

    Args:
        targets: Targets of the training samples, (samples,) or (samples, 1); a tensor, an array or a list.
        bins: Over the target.
        official_shots: Which bins count as "many", "medium" and "few", where a benchmark lists them.

    Raises:
        TypeError, ValueError: If there is no target, one is no finite number, targets are vectors, or `official_shots`
            names an unknown shot, a bin that does not exist, or a bin twice.

    Attributes:
        targets: float32 (samples,), on the CPU; between `lowest` and `highest`.
        counts: Training samples in each bin, int64 (bins,).
    """

    def __init__(self, targets: Any, bins: Bins, official_shots: Mapping[str, Sequence[int]] | None = None) -> None:
        self.targets = one_each("training targets", as_targets(targets)).detach().cpu().float()
        if not len(self.targets):
            raise ValueError("a density needs at least one training sample, got none")
        check_finite("training targets", self.targets)
        self.bins = bins
        self.counts = torch.bincount(bins(self.targets), minlength=bins.count)
        self.lowest, self.highest = float(self.targets.min()), float(self.targets.max())
        self.official_shots: dict[str, tuple[int, ...]] | None = None
        if official_shots is not None:
            self.official_shots = {name: tuple(members) for name, members in official_shots.items()}
            listed = [member for members in self.official_shots.values() for member in members]
            known = set(self.official_shots) <= set(SHOTS) and set(listed) <= set(range(bins.count))
            if not known or len(set(listed)) < len(listed):
                raise ValueError(
                    f"official_shots must list, under {', '.join(SHOTS)}, bins from 0 to {bins.count - 1}, each once, "
                    f"got {self.official_shots}"
                )

    def shots(self, rule: str = "counts", many: int = 100, few: int = 20) -> Tensor:
        """The shot of each bin, as its position in `SHOTS`: 0 many, 1 medium, 2 few; int64 (bins,).

        Args:
            rule: `counts`: by the training samples in the bin. `official_bins`: by `official_shots`; bins in none of
                them are few.
            many: More training samples than this are many.
            few: Fewer training samples than this are few; from `few` to `many` is medium.

        Raises:
            ValueError: If the rule is unknown, `few` is larger than `many`, or the data set has no lists.

        Source: Yang et al. 2021, section 4; the lists for STS-B-DIR are in the official code only.
        """
        check_shot_rule(rule, many, few)
        if rule == "counts":
            return 1 + (self.counts < few).long() - (self.counts > many).long()
        if self.official_shots is None:
            raise ValueError("this data set has no official lists of shots; use shot_rule counts")
        shots = torch.full_like(self.counts, SHOTS.index("few"))
        for name, members in self.official_shots.items():
            shots[list(members)] = SHOTS.index(name)
        return shots

    def regions(self, values: Any, rule: str = "counts", many: int = 100, few: int = 20) -> list[str]:
        """What training had around each value, (samples,): many, medium, few, or none at all; as `shots` has them.

        None is also what lies beyond the outermost edges, which the bins would take in.
        """
        exact = as_targets(values).detach().cpu().float()
        place, ends = self.bins(exact), self.bins.edges
        shots = self.shots(rule, many, few)[place]
        unseen = (self.counts[place] == 0) | (exact < ends[0]) | (exact > ends[-1])
        return [(*SHOTS, "none")[number] for number in shots.masked_fill(unseen, len(SHOTS)).tolist()]

    def record(self) -> dict[str, Any]:
        """What tells the shots of targets, in plain values; `recorded` reads it."""
        return {
            "edges": self.bins.edges.double().tolist(),
            "counts": self.counts.tolist(),
            "lowest": self.lowest,
            "highest": self.highest,
            "official_shots": self.official_shots,
        }

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Density:
        """The density that `record` told of, without the training targets themselves."""
        ends = [record["lowest"], record["highest"]]
        density = cls(ends, Bins(record["edges"]), record["official_shots"])
        density.counts, density.targets = torch.tensor(record["counts"]), torch.empty(0)
        return density

    def __repr__(self) -> str:
        return (
            f"Density({len(self.targets)} targets from {self.lowest:g} to {self.highest:g}, "
            f"in {int((self.counts > 0).sum())} of {self.bins.count} bins)"
        )


def of_one_target(density: Density | None, who: str, way_out: str) -> Density:
    """The density, which `who` goes by; a ValueError tells the way out where there is none, as of several targets."""
    if density is None:
        raise ValueError(
            f"{who} goes by how common a target is, which is known of one number alone, and these data have several"
            f" targets; {way_out}, or name one column in data.target"
        )
    return density


def check_shot_rule(rule: str, many: int, few: int) -> None:
    """Refuses what `Density.shots` does not know."""
    one_of("shot_rule", rule, ("counts", "official_bins"))
    if not 0 <= few <= many:
        raise ValueError(f"shots need 0 <= few <= many, got few={few} and many={many}")
