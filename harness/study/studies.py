"""Runs that may stand beside each other: those of one version of one data set, judged by one metric."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.record.measures import Measure
from harness.study.results import Run, Say, cell, group_by_method, log, measure_of

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

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for members in self.methods.values() for run in members]

    @property
    def first(self) -> Run:
        """One of them, for what is the same in all."""
        return self.runs[0]

    @property
    def data(self) -> str:
        """The data set's name."""
        return str(self.first.report["data"].get("name", "unnamed data"))

    @property
    def fingerprint(self) -> str:
        """Of the data; empty where none is known."""
        return str(self.first.report["data"].get("fingerprint") or "")

    @property
    def stand_in(self) -> bool:
        """Whether the data are made up to try the code."""
        return bool(self.first.report["data"].get("fixture"))

    @property
    def monitor(self) -> str:
        """The metric that chooses epochs, of the split that the page is about."""
        return f"{self.split}/{_monitor(self.first)[0]}"

    @cached_property
    def split(self) -> str:
        """test, or the first that there is where that was left alone, as in a search for settings."""
        splits = [name.partition("/")[0] for name in self.metrics]
        return "test" if "test" in splits or not splits else splits[0]

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

    @property
    def metrics(self) -> list[str]:
        """Every metric that a run ended with, the test split's first."""
        names = dict.fromkeys(name for run in self.runs for name in run.metrics("last"))
        return sorted(names, key=lambda name: not name.startswith("test/"))

    @cached_property
    def short(self) -> dict[str, str]:
        """Labels without the words that all have in common; the experiment's name where nothing is left."""
        words = {label: label.split() for label in self.methods}
        common = set.intersection(*map(set, words.values()))
        return {label: " ".join(w for w in found if w not in common) or found[0] for label, found in words.items()}

    def by_seed(self, label: str, metric: str, selection: str | None = None) -> dict[int, float]:
        """The finite values of a metric under `selection`, or the study's own, by seed."""
        found: dict[int, float] = {}
        for run in self.methods[label]:
            value = run.metrics(selection or self.selection).get(metric)
            if value is not None and math.isfinite(value):
                found[run.report["seed"]] = float(value)
        return found

    def best_first(self) -> list[str]:
        """Labels by the mean of the monitored metric; those without it last."""

        def key(label: str) -> float:
            found = cell(self.methods[label], self.selection, self.monitor)
            mean = math.nan if found is None else found.mean
            return math.inf if math.isnan(mean) else mean * (-1 if self.higher_is_better else 1)

        return sorted(self.methods, key=key)

    def leading(self, count: int) -> list[str]:
        """The best `count` labels, in the order of the study."""
        best = set(self.best_first()[:count])
        return [label for label in self.methods if label in best]


def studies(found: Sequence[Run], say: Say = log.warning) -> list[Study]:
    """The runs by data set and version and by monitored metric, in the order of their first runs.

    Args:
        found: Finished runs.
        say: As in `group_by_method`.
    """
    apart: dict[str, list[Run]] = {}
    for run in found:
        data = run.report["data"]
        key = (data.get("name"), data.get("fingerprint"), bool(data.get("fixture")), _monitor(run))
        apart.setdefault(repr(key), []).append(run)
    return [Study(group_by_method(members, say)) for members in apart.values()]


def check_metrics(grouped: Sequence[Study], metrics: Sequence[str] | None) -> None:
    """Refuses a metric that no run has.

    Raises:
        ValueError: With those that there are.
    """
    there = list(dict.fromkeys(name for study in grouped for name in study.metrics))
    if unknown := [name for name in metrics or () if name not in there]:
        raise ValueError(f"no run has the metric {unknown[0]}; there are {', '.join(there)}")


def slug(text: str) -> str:
    """A name for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"


def _monitor(run: Run) -> tuple[str, bool]:
    trainer = run.report["config"].get("trainer", {})
    return str(trainer.get("monitor", "recall@1")), bool(trainer.get("higher_is_better", True))
