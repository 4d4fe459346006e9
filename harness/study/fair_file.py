"""A fair comparison as data: a file of configs/fair says which methods, what is searched, and what is reported."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.study.table_file import Node, file_called

Value = float | int | str | bool
SCALES = ("log", "uniform", "choice")
SELECTIONS = ("last", "best_on_validation")
MOST_SETTINGS = 6  # of one method: beyond it, the draws in the last dimensions hang together
EDGE = 0.05  # of a range, at either end


@dataclass(frozen=True)
class Setting:
    """What a search varies: the config's `key`, from `low` to `high` on a linear or a log scale, or by `choices`."""

    key: str
    scale: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Value, ...] = ()

    def at(self, place: float) -> Value:
        """The value at `place` in [0, 1); numbers have three digits, so that they can be typed."""
        if self.scale == "choice":
            return self.choices[int(place * len(self.choices))]
        if self.scale == "log":
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + place * (self.high - self.low)
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def near_edge(self, place: float) -> bool:
        """Whether `place` is in the first or last twentieth of the range, so that a better value may lie beyond."""
        return self.scale != "choice" and not EDGE <= place <= 1 - EDGE

    def __str__(self) -> str:
        if self.scale == "choice":
            return f"{self.key}: {', '.join(map(text, self.choices))}"
        return f"{self.key}: {text(self.low)} to {text(self.high)}{' (log)' if self.scale == 'log' else ''}"


@dataclass(frozen=True)
class Column:
    """What is reported: `metric` of the test split times `scale`."""

    name: str
    metric: str
    scale: float
    decimals: int
    better: str


@dataclass(frozen=True)
class Method:
    """What the recipe changes for it, and the `settings` that its search varies: those of all, then its own."""

    key: str
    name: str
    overrides: tuple[str, ...]
    settings: tuple[Setting, ...]
    note: str | None


@dataclass(frozen=True)
class Fair:
    """A fair comparison, named as its file. `experiment` and `overrides` are the recipe; the first column decides."""

    name: str
    title: str
    data: str
    unit: str
    experiment: str
    overrides: tuple[str, ...]
    trials: int
    seeds: int
    search_seed: int
    selection: str
    baseline: str
    columns: Mapping[str, Column]
    methods: Mapping[str, Method]
    notes: tuple[str, ...]
    partial: bool = False  # some of the methods of its file

    @property
    def main(self) -> Column:
        """The column by which methods are compared."""
        return next(iter(self.columns.values()))

    def smaller(self, trials: int | None, seeds: int | None, methods: Sequence[str]) -> Fair:
        """The same with another budget, or with some of the methods; a smaller search is the beginning of a larger.

        Raises:
            ValueError: If a method does not exist, or as `load`.
        """
        if unknown := [key for key in methods if key not in self.methods]:
            raise ValueError(f"{self.name} compares no method {unknown[0]}; there are {', '.join(self.methods)}")
        kept = {key: method for key, method in self.methods.items() if not methods or key in methods}
        trials, seeds = self.trials if trials is None else trials, self.seeds if seeds is None else seeds
        if fault := _budget_fault(trials, seeds, self.search_seed):
            raise ValueError(f"{self.name}: {fault}")
        return replace(self, methods=kept, trials=trials, seeds=seeds, partial=len(kept) < len(self.methods))


def text(value: Value) -> str:
    """As it stands on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def named(name: str, folder: Path) -> Fair:
    """The comparison of that name, in which - and _ are the same.

    Raises:
        ValueError: If there is none, with those there are; or as `load`.
    """
    return load(file_called(name, folder, "fair comparison"))


def load(path: Path) -> Fair:
    """Reads and checks a file.

    Raises:
        ValueError: If it is not YAML, a key is missing, unknown or of the wrong kind, a range is empty, or the seed of
            the search is one of the final ones; named with the file.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # ${...} is for train.py
    except (YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path.name}: not a readable comparison ({' '.join(str(error).split())})") from error
    node = Node(path.name, "", content)
    shared = _settings(node)
    fair = Fair(
        name=path.stem,
        title=node.text("title"),
        data=node.text("data"),
        unit=node.text("unit", ""),
        experiment=node.text("experiment"),
        overrides=node.texts("overrides"),
        trials=node.whole("trials", 0),
        seeds=node.whole("seeds", 5),
        search_seed=node.whole("search_seed", 100),
        selection=node.choice("selection", SELECTIONS),
        baseline=node.text("baseline"),
        columns={name: _column(name, child) for name, child in node.children("columns").items()},
        methods={key: _method(key, child, shared) for key, child in node.children("methods").items()},
        notes=node.texts("notes"),
    )
    node.finish()
    if fault := _budget_fault(fair.trials, fair.seeds, fair.search_seed):
        raise ValueError(f"{path.name}: {fault}")
    if fair.baseline not in fair.methods:
        raise node.fault("baseline", f"is {fair.baseline}, no method; there are {', '.join(fair.methods)}")
    return fair


def _budget_fault(trials: int, seeds: int, search_seed: int) -> str:
    if trials < 1 or seeds < 1:
        return f"trials and seeds must be at least 1, got {trials} and {seeds}"
    if search_seed < seeds:
        return (
            f"the search has seed {search_seed}, which is one of the final seeds 0 to {seeds - 1}; "
            "what was chosen with a seed would be flattered by it, so give search_seed another"
        )
    return ""


def _column(name: str, node: Node) -> Column:
    column = Column(
        name=name,
        metric=node.text("metric"),
        scale=node.number("scale", 1.0),
        decimals=node.whole("decimals", 1),
        better=node.choice("better", ("higher", "lower")),
    )
    node.finish()
    if not column.metric.startswith("test/"):
        raise node.fault("metric", f"is reported on the test split, as test/...; got {column.metric}")
    if not column.scale > 0:
        raise node.fault("scale", f"must be positive, got {column.scale}")
    return column


def _method(key: str, node: Node, shared: tuple[Setting, ...]) -> Method:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", key):
        raise node.fault("", f"is no name for a method; use letters, digits and _ . - in {key!r}")
    method = Method(
        key=key,
        name=node.text("name"),
        overrides=node.texts("overrides"),
        settings=(*shared, *_settings(node)),
        note=node.text("note", "") or None,
    )
    node.finish()
    keys = [setting.key for setting in method.settings]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise node.fault("settings", f"and the shared ones both have {twice}")
    if not 1 <= len(keys) <= MOST_SETTINGS:
        raise node.fault(
            "", f"has {len(keys)} settings to search, shared ones included; 1 to {MOST_SETTINGS} are possible"
        )
    return method


def _settings(node: Node) -> tuple[Setting, ...]:
    return tuple(_setting(key, child) for key, child in node.children("settings", required=False).items())


def _setting(key: str, node: Node) -> Setting:
    given = [scale for scale in SCALES if scale in node.values]
    if len(given) != 1 or len(node.values) != 1:
        raise node.fault("", f"wants one of {', '.join(SCALES)}, such as {{log: [0.01, 1]}}; got {node.values}")
    values = node.values[given[0]]
    if not isinstance(values, list) or not all(isinstance(value, Value) for value in values):
        raise node.fault(given[0], f"must be a list, got {values!r}")
    if given[0] == "choice":
        if len(set(values)) < max(len(values), 2):
            raise node.fault("choice", f"must list two values or more, each once, got {values}")
        return Setting(key, "choice", choices=tuple(values))
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if len(values) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise node.fault(given[0], f"must be a lower and an upper number, got {values}")
    if given[0] == "log" and numbers[0] <= 0:
        raise node.fault("log", f"must begin above 0, got {values}")
    return Setting(key, given[0], low=float(numbers[0]), high=float(numbers[1]))
