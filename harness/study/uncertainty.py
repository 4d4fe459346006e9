"""What a few seeds can show if a metric varies about normally from seed to seed, which few seeds cannot check."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import special

Better = Literal["higher", "lower"]
LEVEL = 0.95  # of intervals; a comparison tells apart where its p-value is below the rest
POWER = 0.80  # with which the number of seeds needed would tell apart
MOST_SEEDS = 1000  # beyond it nobody would train, and the estimate means nothing


@dataclass(frozen=True)
class Interval:
    """Where the mean over all seeds lies: `mean` +- `half`, from `low` to `high`."""

    mean: float
    low: float
    high: float
    half: float

    def shown(self, decimals: int | None = None) -> str:
        """64.0 ± 0.3; without `decimals`, as many as give the half-width, or without one the mean, two digits."""
        if decimals is None:
            size = self.half or abs(self.mean)
            decimals = max(0, 1 - math.floor(math.log10(size))) if size else 1
        mean = round(self.mean, decimals) + 0.0  # without the sign of a zero that rounding made
        return f"{mean:.{decimals}f} ± {self.half:.{decimals}f}"


@dataclass(frozen=True)
class Comparison:
    """Two methods over the seeds that both were run with: the first minus the second, by seed.

    `interval` is that of the mean difference, and `p_value` that of this comparison alone; `adjusted` allows for the
    `among` comparisons that it was made with (see `together`), and decides.
    """

    names: tuple[str, str]
    better: Better | None
    differences: Mapping[int, float]
    interval: Interval
    p_value: float
    adjusted: float
    among: int = 1
    decimals: int | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the seeds show a difference."""
        return self.adjusted < 1 - LEVEL

    @property
    def seeds_needed(self) -> int | None:
        """The smallest number of seeds at which the paired t-test tells such differences from 0, with 80 % power.

        It takes mean and spread seen for the true ones, which few seeds know badly: a rough figure. None if the mean is
        0, or beyond `MOST_SEEDS`.
        """
        mean, deviation = self.interval.mean, statistics.stdev(self.differences.values())
        error, counts = (1 - LEVEL) / self.among, range(2, MOST_SEEDS + 1)
        if mean == 0:
            return None
        if deviation == 0:  # the sign test of `compare`: the first n with 2 / 2^n below `error`
            return next(n for n in counts if 2.0 ** (1 - n) < error)
        place = bisect_left(counts, POWER, key=lambda seeds: power(abs(mean) / deviation, seeds, error))
        return counts[place] if place < len(counts) else None

    @property
    def text(self) -> str:
        """In words: who is better and by how much, or that nothing was shown; higher where no way is better."""
        seeds = f"{len(self.differences)} seeds"
        if self.told_apart:
            winner = self.names[(self.interval.mean > 0) != (self.better != "lower")]
            gain = replace(self.interval, mean=abs(self.interval.mean))
            return f"{winner} is {'better' if self.better else 'higher'} by {gain.shown(self.decimals)} ({seeds})"
        needed = self.seeds_needed
        outlook = f"{f'about {needed}' if needed else f'more than {MOST_SEEDS}'} seeds would be needed"
        if self.interval.mean == 0:
            outlook = "equal on average, so no number of seeds follows"
        allowing = f" among {self.among} comparisons" if self.p_value < 1 - LEVEL else ""
        return f"no difference shown{allowing} ({self.interval.shown(self.decimals)}, {seeds}; {outlook})"


def interval(values: Sequence[float]) -> Interval:
    """The t-interval of the mean: it covers the mean over all seeds in 95 % of such experiments.

    Raises:
        ValueError: Under 2 values, or if one is not finite.
    """
    if len(values) < 2:
        raise ValueError(f"an interval takes at least 2 values (seeds), got {len(values)}")
    _check_finite(values)
    n, mean = len(values), statistics.fmean(values)
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, half)


def spread(by_seed: Mapping[int, float]) -> Interval | None:
    """The interval of the mean over seeds; None under two."""
    return interval(list(by_seed.values())) if len(by_seed) > 1 else None


def compare(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    better: Better | None = "higher",
    names: tuple[str, str] = ("the first", "the second"),
    decimals: int | None = None,
) -> Comparison:
    """The paired t-test over the seeds that both methods were run with; `first` and `second` are the metric by seed.

    Pairing counts only where a seed gives both methods something in common: the first weights, the order of the
    batches, held-out classes. Where all differences are equal, the t-test has no answer; p is then the sign test's,
    2 / 2^n, because a metric that moves in steps may repeat itself over few seeds.

    `better` is None where nobody knows which way; without `decimals` the text has as many as the interval deserves.

    Raises:
        ValueError: Under 2 common seeds, for values that are not finite, or an unknown `better`.
    """
    if better not in ("higher", "lower", None):
        raise ValueError(f"better must be higher or lower, got {better}")
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        there = ["seeds " + ", ".join(map(str, sorted(own))) if own else "none" for own in (first, second)]
        raise ValueError(
            f"comparing {names[0]} with {names[1]} takes at least 2 common seeds; they have {' and '.join(there)}"
        )
    both = [own[seed] for own in (first, second) for seed in seeds]
    _check_finite(both)
    differences = {seed: first[seed] - second[seed] for seed in seeds}
    grain = 1e-13 * max(map(abs, both))  # of rounding, which makes no spread: 0.3 - 0.2 and 0.2 - 0.1 are equal
    middle = 0.0 if abs(differences[seeds[0]]) <= grain else differences[seeds[0]]
    differences = {seed: middle if abs(value - middle) <= grain else value for seed, value in differences.items()}
    values = list(differences.values())
    p_value = _p_value(values)
    return Comparison(names, better, differences, interval(values), p_value, p_value, decimals=decimals)


def together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, each allowing for all that were made, by Holm's method.

    The chance of finding one difference or more where there is none stays below 5 %. The number of seeds needed is
    counted at 5 % over the number of comparisons. The intervals stay those of each comparison alone.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted = holm([c.p_value for c in comparisons])
    return [replace(c, adjusted=p, among=len(adjusted)) for c, p in zip(comparisons, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, as given: the k-th smallest of m times m - k + 1, at most 1, never falling."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def power(effect: float, seeds: int, error: float = 1 - LEVEL) -> float:
    """The chance that the two-sided paired t-test over `seeds` finds a difference of `effect` standard deviations.

    Source: the noncentral t distribution with seeds - 1 degrees of freedom and shift effect * sqrt(seeds).
    """
    from scipy import stats  # takes a second to import, and every run imports this file

    bound, shift = float(special.stdtrit(seeds - 1, 1 - error / 2)), min(effect, 1e6) * math.sqrt(seeds)
    # Beyond a shift of 1e9, and in the lower tail but for its mirror image, SciPy 1.17 answers nan.
    return float(stats.nct.sf(bound, seeds - 1, shift) + stats.nct.sf(bound, seeds - 1, -shift))


def verdict(values: Sequence[float], published: float, decimals: int, resolution: float) -> str:
    """Whether our mean agrees with the published number.

    Args:
        values: Ours, one per seed, in the unit of the published number.
        published: As printed in the paper.
        decimals: Printed by the paper; the number stands for everything within half a unit of the last.
        resolution: The widest half-interval that may confirm; a wider one would agree with nearly anything.

    Returns:
        "not run" without values; "not enough seeds" with one, with fewer than six that are all equal, or where the
        interval holds the published number but is wider than `resolution`; "reproduced"; otherwise "below" or "above",
        where our mean lies.
    """
    if len(values) < 2:
        return "not enough seeds" if values else "not run"
    ours, rounding = interval(values), 0.5 * 10.0**-decimals
    if ours.half == 0 and 2.0 ** (1 - len(values)) >= 1 - LEVEL:  # no spread to go by; as in `compare`
        return "not enough seeds"
    if abs(ours.mean - published) <= (ours.half + rounding) * (1 + 1e-9):
        return "reproduced" if ours.half <= resolution else "not enough seeds"
    return "below" if ours.mean < published else "above"


def _check_finite(values: Sequence[float]) -> None:
    if wrong := [value for value in values if not math.isfinite(value)]:
        raise ValueError(f"values must be finite, got {wrong[0]}")


def _p_value(differences: Sequence[float]) -> float:
    n, mean, deviation = len(differences), statistics.fmean(differences), statistics.stdev(differences)
    if deviation == 0:
        return 1.0 if mean == 0 else 2.0 ** (1 - n)
    return float(2 * special.stdtr(n - 1, -abs(mean) / deviation * math.sqrt(n)))
