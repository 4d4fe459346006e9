"""How a metric is read: which way it is better and in what unit it is shown, as the metrics themselves declare.

A class of metrics has an attribute `measures`, {name: {"kind": ..., "higher_is_better": ...}}, where a name may hold *
for a part that varies and the first that fits counts. A run writes what its metrics declared into its report, and
whatever shows or compares numbers reads it there. Nothing is told from a metric's name.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from hydra.utils import get_class

# A share of 1 (or a correlation), shown in percent; an error in the unit of the target; a number of things; none of
# these, shown as it is.
KINDS = ("share", "error", "count", "plain")
ARROWS = {"higher": "↑", "lower": "↓"}  # which way is better


@dataclass(frozen=True)
class Measure:
    """A metric's `kind` (see `KINDS`) and direction; None where it is neither better nor worse, or nobody said.

    Raises:
        ValueError: If the kind is unknown, or the direction is none.
    """

    kind: str = "plain"
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.higher_is_better not in (True, False, None):
            raise ValueError(
                f"a measure is of the kind {', '.join(KINDS)}, and higher_is_better is true, false or null; "
                f"got {self.kind!r} and {self.higher_is_better!r}"
            )

    @property
    def factor(self) -> float:
        """What values are multiplied by where they are shown."""
        return 100.0 if self.kind == "share" else 1.0

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """Which way, in a word."""
        return None if self.higher_is_better is None else "higher" if self.higher_is_better else "lower"

    def axis(self, metric: str) -> str:
        """test/recall@1 -> recall@1 on test, %."""
        split, _, name = metric.rpartition("/")
        return (f"{name} on {split}" if split else name) + (", %" if self.kind == "share" else "")

    def decimals(self, values: Sequence[float]) -> int:
        """With which a mean of `values`, as they are shown, is printed: three below 3, as papers give small errors."""
        size = abs(sum(values) / len(values))
        if self.kind == "count":
            return 0 if len(set(values)) == 1 else 1
        if self.kind == "share":
            return 1
        return 2 if size >= 3 else 3 if not 0 < size < 0.01 else 2 - math.floor(math.log10(size))


def is_better(value: float | None, than: float | None, higher_is_better: bool) -> bool:
    """Whether `value` beats `than`. What is not finite, or None, beats nothing and is beaten by any number."""
    if value is None or not math.isfinite(value):
        return False
    if than is None or not math.isfinite(than):
        return True
    return value > than if higher_is_better else value < than


def declared(metrics: Any, name: str) -> Measure | None:
    """What an object or a class of metrics declares of `name`, without its split; None if nothing.

    Raises:
        ValueError: As `Measure`; with the name.
    """
    patterns = getattr(metrics, "measures", None)
    for pattern, said in patterns.items() if isinstance(patterns, Mapping) else ():
        if fnmatchcase(name, pattern):
            return _measure(pattern, said)
    return None


def direction(metrics: Any, monitor: str, higher_is_better: bool) -> str | None:
    """A sentence if the metrics declare no direction, so that the one by which a run goes rests on the config alone.

    Raises:
        ValueError: If they declare the other one.
    """
    measure = declared(metrics, monitor)
    if measure is None or measure.better is None:
        way = "higher" if higher_is_better else "lower"
        return f"the metrics do not declare which way {monitor} is better; trainer.higher_is_better says: {way}"
    if measure.higher_is_better != higher_is_better:
        raise ValueError(
            f"trainer.higher_is_better={str(higher_is_better).lower()}, but {monitor} is better when {measure.better}: "
            f"trainer.higher_is_better={str(measure.higher_is_better).lower()}"
        )
    return None


def record(metrics: Any, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For a report: what `metrics` declare of everything that they gave at the end, by name without split."""
    names = dict.fromkeys(name.rpartition("/")[2] for name in results["last"]["metrics"])
    return {name: vars(found) for name in names if (found := declared(metrics, name)) is not None}


def of(reports: Iterable[Mapping[str, Any]], metric: str) -> Measure:
    """How `metric`, with its split, is read in the reports of runs: as the first of them that declares it says.

    A report of before measures were written down is answered by the class of its metrics, if that is one of ours. Of a
    metric that nobody declared, the direction is known if it chose the epochs of a run.
    """
    name, chosen = metric.rpartition("/")[2], Measure()
    for report in reports:
        if name in (report.get("measures") or {}):
            return _measure(name, report["measures"][name])
        target = str((report["config"].get("metrics") or {}).get("_target_"))
        if "measures" not in report and target.startswith(("rambo.", "ranksim.")):
            with contextlib.suppress(ImportError, ValueError):  # it has gone since
                if found := declared(get_class(target), name):
                    return found
        trainer = report["config"].get("trainer") or {}
        if trainer.get("monitor") == name and isinstance(trainer.get("higher_is_better"), bool):
            chosen = Measure(higher_is_better=trainer["higher_is_better"])
    return chosen


def _measure(name: str, said: Any) -> Measure:
    try:
        return Measure(**said)
    except (TypeError, ValueError) as error:
        raise ValueError(f"measures of {name}: {error}") from error
