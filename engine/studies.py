"""Runs that may stand beside each other: those of one version of one data set, judged by one metric."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.results import Run, cell, group_by_method, is_error
from engine.swept import ABSENT, shown, varied

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
        return _monitor(self.first)[1]

    @cached_property
    def selection(self) -> str:
        """The epoch that the figures are about: chosen on held-out data where all runs have some, or the last."""
        chosen = "best_on_validation"
        return chosen if all(chosen in run.report["results"] for run in self.runs) else "last"

    @property
    def metrics(self) -> list[str]:
        """Every metric that a run ended with, the test split's first."""
        names = dict.fromkeys(name for run in self.runs for name in run.report["results"]["last"]["metrics"])
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
            value = run.report["results"].get(selection or self.selection, {}).get("metrics", {}).get(metric)
            if value is not None and math.isfinite(value):
                found[run.report["seed"]] = float(value)
        return found

    def best_first(self) -> list[str]:
        """Labels by the mean of the monitored metric; those without it last."""

        def key(label: str) -> float:
            found = cell(self.methods[label], self.selection, self.monitor)
            return math.inf if found is None else found.mean * (-1 if self.higher_is_better else 1)

        return sorted(self.methods, key=key)

    def leading(self, count: int) -> list[str]:
        """The best `count` labels, in the order of the study."""
        best = set(self.best_first()[:count])
        return [label for label in self.methods if label in best]


def studies(found: Sequence[Run]) -> list[Study]:
    """The runs by data set and version and by monitored metric, in the order of their first runs.

    Raises:
        ValueError: If a report lacks what every finished run has, or one method's runs cannot be averaged: other data,
            the same seed twice, or another config.
    """
    check_complete(found)
    groups: dict[tuple[object, ...], dict[str, list[Run]]] = {}
    for label, members in group_by_method(found).items():
        check_alike(label, members)
        data = members[0].report["data"]
        key = (data.get("name"), data.get("fingerprint"), bool(data.get("fixture")), _monitor(members[0]))
        groups.setdefault(key, {})[label] = members
    return [Study(methods) for methods in groups.values()]


def check_metrics(grouped: Sequence[Study], metrics: Sequence[str] | None) -> None:
    """Refuses a metric that no run has.

    Raises:
        ValueError: With those that there are.
    """
    there = list(dict.fromkeys(name for study in grouped for name in study.metrics))
    if unknown := [name for name in metrics or () if name not in there]:
        raise ValueError(f"no run has the metric {unknown[0]}; there are {', '.join(there)}")


def check_complete(found: Sequence[Run]) -> None:
    """Refuses reports that were written by something else, or cut.

    Raises:
        ValueError: With the file and what it lacks.
    """
    for run in found:
        report = run.report if isinstance(run.report, dict) else {}
        missing = [key for key in ("experiment", "overrides", "seed", "config", "data", "results") if key not in report]
        if not missing and "metrics" not in report["results"].get("last", {}):
            missing = ["results.last.metrics"]
        if missing:
            file = run.folder / "report.json"
            raise ValueError(f"{file} has no {missing[0]}; delete that run folder or repeat the run")


def check_alike(label: str, members: Sequence[Run]) -> None:
    """Refuses runs of one name that were made with different settings, such as another definition of a metric.

    A setting that some runs do not know counts as its default: code that gained an option leaves old runs what they
    were.

    Raises:
        ValueError: With both folders and the setting.
    """
    for key, values in varied(members).items():
        known = [(run, value) for run, value in zip(members, values, strict=True) if value not in (ABSENT, "null")]
        other = next(((run, value) for run, value in known[1:] if value != known[0][1]), None)
        if other is not None:
            (first, before), (second, now) = known[0], other
            raise ValueError(
                f"{first.folder} and {second.folder} are both {label}, but {key} is {shown(before)} in one and "
                f"{shown(now)} in the other, so they have no mean"
            )


def shown_metric(metric: str) -> str:
    """test/recall@1 -> recall@1 on test, %."""
    split, _, name = metric.rpartition("/")
    return (f"{name} on {split}" if split else name) + ("" if is_error(metric) else ", %")


def slug(text: str) -> str:
    """A name for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"


def _monitor(run: Run) -> tuple[str, bool]:
    trainer = run.report["config"].get("trainer", {})
    return str(trainer.get("monitor", "recall@1")), bool(trainer.get("higher_is_better", True))
