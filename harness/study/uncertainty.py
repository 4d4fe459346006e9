"""What a few seeds can show: intervals, paired comparisons, and whether a published number was reproduced.

Everything assumes that a metric varies about normally from seed to seed. Two to ten seeds cannot check that, so read
the intervals as orders of magnitude.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

Better = Literal["higher", "lower"]
LEVEL = 0.95  # of intervals; a comparison tells apart where its p-value is below the rest
POWER = 0.80  # with which the number of seeds needed would tell apart
MOST_SEEDS = 1000  # beyond it nobody would train, and the estimate means nothing


@dataclass(frozen=True)
class Interval:
    """Where the mean over all seeds lies: `mean` +- `half`, from `low` to `high`, by `n` values."""

    mean: float
    low: float
    high: float
    half: float
    n: int

    def shown(self, decimals: int | None = None) -> str:
        """64.0 ± 0.3; without `decimals`, as many as give the half-width two digits."""
        digits = _digits(self.half, self.mean) if decimals is None else decimals
        return f"{_rounded(self.mean, digits)} ± {self.half:.{digits}f}"


@dataclass(frozen=True)
class Comparison:
    """Two methods over the seeds that both were run with: the first minus the second, seed by seed.

    `seeds_needed` would tell a difference of the size seen, with the spread seen, in four of five attempts; None where
    that takes more than `MOST_SEEDS`, or where there is no difference. `p_value` is that of this comparison alone;
    `adjusted` allows for the `among` comparisons that it was made with (see `together`), and decides.
    """

    names: tuple[str, str]
    better: Better | None
    mean_difference: float
    interval: Interval
    seeds: tuple[int, ...]
    p_value: float
    seeds_needed: int | None
    adjusted: float
    among: int = 1
    decimals: int | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the seeds show a difference."""
        return self.adjusted < 1 - LEVEL

    @property
    def text(self) -> str:
        """In words: who is better and by how much, or that nothing was shown; higher where no way is better."""
        seeds = f"{len(self.seeds)} seeds"
        if self.told_apart:
            winner = self.names[(self.mean_difference > 0) != (self.better != "lower")]
            gain = replace(self.interval, mean=abs(self.mean_difference))
            return f"{winner} is {'better' if self.better else 'higher'} by {gain.shown(self.decimals)} ({seeds})"
        allowing = f" among {self.among} comparisons" if self.p_value < 1 - LEVEL else ""
        difference = self.interval.shown(self.decimals)
        return f"no difference shown{allowing} ({difference}, {seeds}; {self._outlook()})"

    def _outlook(self) -> str:
        if self.mean_difference == 0:
            return "equal on average, so no number of seeds follows"
        if self.seeds_needed is None:
            return f"more than {MOST_SEEDS} seeds would be needed"
        return f"about {self.seeds_needed} seeds would be needed"


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation, over n - 1.

    Raises:
        ValueError: Under 2 values, or if one is not finite.
    """
    return statistics.stdev(_checked(values))


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The t-interval of the mean: it covers the mean over all seeds in `level` of such experiments.

    Raises:
        ValueError: Under 2 values, if one is not finite, or if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    checked = _checked(values)
    n, mean = len(checked), statistics.fmean(checked)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * statistics.stdev(checked) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, half, n)


def compare(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    better: Better | None = "higher",
    names: tuple[str, str] = ("the first", "the second"),
    decimals: int | None = None,
) -> Comparison:
    """The paired t-test over the seeds that both methods were run with.

    Pairing counts only where a seed gives both methods something in common: the first weights, the order of the
    batches, held-out classes. Where all differences are equal, the t-test has no answer; p is then the sign test's,
    2 / 2^n, because a metric that moves in steps may repeat itself over few seeds.

    Args:
        first: The metric by seed.
        second: The metric by seed; seeds that only one method has are left out.
        better: Which way the metric gets better; None where nobody knows.
        names: Of the two methods, for the text.
        decimals: Shown in the text; None for what the interval deserves.

    Raises:
        ValueError: Under 2 common seeds, for values that are not finite, or an unknown `better`.
    """
    if better not in ("higher", "lower", None):
        raise ValueError(f"better must be higher or lower, got {better}")
    seeds = tuple(sorted(first.keys() & second.keys()))
    if len(seeds) < 2:
        raise ValueError(
            f"comparing {names[0]} with {names[1]} takes at least 2 common seeds; "
            f"they have {_listed(first)} and {_listed(second)}"
        )
    _checked([*(first[s] for s in seeds), *(second[s] for s in seeds)])
    differences = _without_rounding([first[s] - second[s] for s in seeds], [*first.values(), *second.values()])
    found = interval(differences)
    p_value = _p_value(differences)
    return Comparison(
        names, better, found.mean, found, seeds, p_value, seeds_needed(differences), p_value, decimals=decimals
    )


def together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, each allowing for all that were made, by Holm's method.

    The chance of finding one difference or more where there is none stays below 5 %. The number of seeds needed is
    counted at 5 % over the number of comparisons. The intervals stay those of each comparison alone.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted = holm([c.p_value for c in comparisons])
    return [
        replace(c, adjusted=p, among=len(comparisons), seeds_needed=_needed(c, (1 - LEVEL) / len(comparisons)))
        for c, p in zip(comparisons, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, as given: the k-th smallest of m times m - k + 1, at most 1, never falling."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def seeds_needed(differences: Sequence[float], error: float = 1 - LEVEL) -> int | None:
    """The smallest number of seeds at which the paired t-test tells such differences from 0, with 80 % power.

    It takes mean and spread of `differences` for the true ones, which few seeds know badly: a rough figure.

    Args:
        differences: One per seed, at least 2.
        error: The test's two-sided error rate.

    Returns:
        None if the mean is 0 or if more than `MOST_SEEDS` are needed.
    """
    found, spread = statistics.fmean(differences), statistics.stdev(differences)
    if found == 0:
        return None
    if spread == 0:  # the sign test of `compare`: the first n with 2 / 2^n below `error`
        return next(n for n in range(2, MOST_SEEDS) if 2.0 ** (1 - n) < error)
    return _needed_at(abs(found) / spread, error)


def power(effect: float, seeds: int, error: float = 1 - LEVEL) -> float:
    """The chance that the two-sided paired t-test over `seeds` finds a difference of `effect` standard deviations.

    Source: the noncentral t distribution with seeds - 1 degrees of freedom and shift effect * sqrt(seeds).
    """
    bound, shift = float(stats.t.ppf(1 - error / 2, seeds - 1)), min(effect, 1e6) * math.sqrt(seeds)
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
    if not values:
        return "not run"
    if len(values) < 2:
        return "not enough seeds"
    ours, rounding = interval(values), 0.5 * 10.0**-decimals
    if ours.half == 0 and 2.0 ** (1 - len(values)) >= 1 - LEVEL:  # no spread to go by; as in `compare`
        return "not enough seeds"
    if abs(ours.mean - published) <= (ours.half + rounding) * (1 + 1e-9):
        return "reproduced" if ours.half <= resolution else "not enough seeds"
    return "below" if ours.mean < published else "above"


def _checked(values: Sequence[float]) -> list[float]:
    """As floats, at least two and all finite."""
    numbers = [float(value) for value in values]
    if len(numbers) < 2:
        raise ValueError(f"an interval takes at least 2 values (seeds), got {len(numbers)}")
    if wrong := [number for number in numbers if not math.isfinite(number)]:
        raise ValueError(f"values must be finite, got {wrong[0]}")
    return numbers


def _without_rounding(differences: Sequence[float], values: Sequence[float]) -> list[float]:
    """Takes differences that differ by rounding alone for equal, so that 0.3 - 0.2 and 0.2 - 0.1 have no spread."""
    grain = 1e-13 * max(abs(value) for value in values)
    middle = 0.0 if abs(differences[0]) <= grain else differences[0]
    return [middle if abs(difference - middle) <= grain else difference for difference in differences]


def _p_value(differences: Sequence[float]) -> float:
    n, mean, spread = len(differences), statistics.fmean(differences), statistics.stdev(differences)
    if spread == 0:
        return 1.0 if mean == 0 else 2.0 ** (1 - n)
    return float(2 * stats.t.sf(abs(mean) / spread * math.sqrt(n), n - 1))


def _needed(comparison: Comparison, error: float) -> int | None:
    """`seeds_needed` by what a comparison still knows: its interval holds mean and spread."""
    n, half = comparison.interval.n, comparison.interval.half
    if comparison.mean_difference == 0 or half == 0:
        same = [comparison.mean_difference] * n
        return seeds_needed(same, error)
    spread = half * math.sqrt(n) / float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return _needed_at(abs(comparison.mean_difference) / spread, error)


def _needed_at(effect: float, error: float) -> int | None:
    """Power grows with the seeds: bisection between too few and enough."""
    few, enough = 1, MOST_SEEDS
    if power(effect, enough, error) < POWER:
        return None
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if power(effect, middle, error) >= POWER else (middle, enough)
    return enough


def _rounded(value: float, digits: int) -> str:
    """Without the sign of a zero that rounding made."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _digits(half: float, mean: float) -> int:
    """Decimals that give the half-width, or without one the mean, two digits that count."""
    size = half or abs(mean)
    return max(0, 1 - math.floor(math.log10(size))) if size else 1


def _listed(seeds: Mapping[int, float]) -> str:
    return "seeds " + ", ".join(map(str, sorted(seeds))) if seeds else "none"
