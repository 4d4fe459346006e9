"""Runs that may stand beside each other: those of one version of one data set, judged by one metric."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.record.measures import Measure
from harness.study.results import Run, Say, group_by_method, log, measure_of, values_of

SELECTED = {
    "untrained": "untrained",
    "last": "last epoch",
    "best_on_validation": "best epoch on validation",
    "best_on_test": "best epoch on test",
}


@dataclass(frozen=True)
class Study:
    """Methods, each with its runs, by label (see `Run.label`)."""

    methods: dict[str, list[Run]]
    data: str  # the name
    fingerprint: str  # of the data; empty where none is known
    stand_in: bool  # whether the data are made up to try the code
    monitored: str  # the metric that chooses epochs, without its split

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for members in self.methods.values() for run in members]

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric that a run ended with, the test split's first."""
        names = dict.fromkeys(name for run in self.runs for name in run.metrics("last"))
        return sorted(names, key=lambda name: not name.startswith("test/"))

    @cached_property
    def split(self) -> str:
        """test, or the first that there is where that was left alone, as in a search for settings."""
        return self.metrics[0].partition("/")[0] if self.metrics else "test"

    @property
    def monitor(self) -> str:
        """The metric that chooses epochs, of the split that the page is about."""
        return f"{self.split}/{self.monitored}"

    @property
    def higher_is_better(self) -> bool:
        """Of `monitor`."""
        return self.measure(self.monitor).higher_is_better is not False

    def measure(self, metric: str) -> Measure:
        """How a metric is read."""
        return measure_of(self.runs, metric)

    @cached_property
    def selection(self) -> str:
        """The epoch that the figures are about: chosen on held-out data where all runs have some, or the last."""
        chosen = "best_on_validation"
        return chosen if all(run.metrics(chosen) for run in self.runs) else "last"

    @cached_property
    def short(self) -> dict[str, str]:
        """Labels without the words that all have in common; the experiment's name where nothing is left."""
        words = {label: label.split() for label in self.methods}
        common = set.intersection(*map(set, words.values()))
        return {label: " ".join(w for w in found if w not in common) or found[0] for label, found in words.items()}

    def by_seed(self, label: str, metric: str) -> dict[int, float]:
        """The finite values of a metric by seed."""
        return values_of({run.report["seed"]: run for run in self.methods[label]}, self.selection, metric)

    def best_first(self) -> list[str]:
        """Labels by the mean of the monitored metric; those without it last."""

        def key(label: str) -> float:
            values = self.by_seed(label, self.monitor).values()
            return statistics.fmean(values) * (-1 if self.higher_is_better else 1) if values else math.inf

        return sorted(self.methods, key=key)

    def leading(self, count: int) -> list[str]:
        """The best `count` labels, in the order of the study."""
        best = set(self.best_first()[:count])
        return [label for label in self.methods if label in best]


def studies(found: Sequence[Run], say: Say = log.warning) -> list[Study]:
    """The runs by data set, version and monitored metric, in the order of first runs; `say` as in `group_by_method`."""
    apart: dict[tuple[str, str, bool, str, bool], list[Run]] = {}
    for run in found:
        data, trainer = run.report["data"], run.report["config"].get("trainer", {})
        known = str(data.get("name", "unnamed data")), str(data.get("fingerprint") or ""), bool(data.get("fixture"))
        monitored = str(trainer.get("monitor", "recall@1")), bool(trainer.get("higher_is_better", True))
        apart.setdefault((*known, *monitored), []).append(run)
    return [Study(group_by_method(members, say), *key[:4]) for key, members in apart.items()]


def check_metrics(grouped: Sequence[Study], metrics: Sequence[str] | None) -> None:
    """Refuses a metric that no run has, with those that there are."""
    there = list(dict.fromkeys(name for study in grouped for name in study.metrics))
    if unknown := [name for name in metrics or () if name not in there]:
        raise ValueError(f"no run has the metric {unknown[0]}; there are {', '.join(there)}")


def slug(text: str) -> str:
    """A name for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"
