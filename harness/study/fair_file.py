"""A fair comparison as data: a file of configs/fair says which methods, what is searched, and what is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness.study import specification
from harness.study.specification import Column, FileName, Number, Part, Specification, Whole, fault, knowing, outside
from harness.study.swept import Value, shown

MOST_SETTINGS = 6  # of one method: beyond it, the draws in the last dimensions hang together
EDGE = 0.05  # of a range, at either end


class Setting(Part):
    """What a search varies: the config's `key`, over a range on a `log` or `uniform` scale, or by `choice`."""

    key: str = outside("key")
    log: tuple[Number, Number] | None = None
    uniform: tuple[Number, Number] | None = None
    choice: tuple[Value, ...] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Setting:
        if sum(given is not None for given in (self.log, self.uniform, self.choice)) != 1:
            raise fault("", "wants one of log, uniform, choice, such as {log: [0.01, 1]}")
        if self.choice is not None and len(set(self.choice)) < max(len(self.choice), 2):
            raise fault("choice", f"must list two values or more, each once, got {list(self.choice)}")
        for scale, ends in (("log", self.log), ("uniform", self.uniform)):
            if ends and not ends[0] < ends[1]:
                raise fault(scale, f"must be a lower and an upper number, got {list(ends)}")
        if self.log and self.log[0] <= 0:
            raise fault("log", f"must begin above 0, got {list(self.log)}")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """From where to where, unless there is a choice."""
        found = self.log or self.uniform
        assert found is not None
        return found

    def at(self, place: float) -> Value:
        """The value at `place` in [0, 1); numbers have three digits, so that they can be typed."""
        if self.choice:
            return self.choice[int(place * len(self.choice))]
        low, high = self.range
        if self.log:
            value = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
        else:
            value = low + place * (high - low)
        return min(max(float(f"{value:.3g}"), low), high)

    def near_edge(self, place: float) -> bool:
        """Whether `place` is in the first or last twentieth of the range, so that a better value may lie beyond."""
        return not self.choice and not EDGE <= place <= 1 - EDGE

    def __str__(self) -> str:
        if self.choice:
            return f"{self.key}: {', '.join(map(text, self.choice))}"
        return f"{self.key}: {' to '.join(map(text, self.range))}{' (log)' if self.log else ''}"


Settings = Annotated[Mapping[str, Setting], knowing("key")]


class Method(specification.Method):
    """What the recipe changes for it, and the `settings` that its search varies: those of all, then its own."""

    settings: Settings = Field(default_factory=dict)


class Fair(Specification):
    """A fair comparison. `experiment` and `overrides` are the recipe; the first column decides."""

    kind: ClassVar[str] = "fair comparison"
    prefix: ClassVar[str] = "fair-"

    experiment: str
    overrides: tuple[str, ...] = ()
    trials: Whole
    seeds: Whole = 5
    search_seed: Whole = 100
    selection: Literal["last", "best_on_validation"]
    baseline: str
    columns: Annotated[Mapping[str, Column], Field(min_length=1), knowing("name")]
    settings: Settings = Field(default_factory=dict)  # of every method
    methods: Annotated[dict[FileName, Method], Field(min_length=1), knowing("key")]
    partial: bool = outside("partial", False)  # some of the methods of its file

    @model_validator(mode="after")
    def _sound(self) -> Fair:
        for name, column in self.columns.items():
            if not (column.metric or "").startswith("test/"):
                says = f"is reported on the test split, as test/...; got {column.metric}"
                raise fault(f"columns.{name}.metric", says)
            if not column.scale > 0:
                raise fault(f"columns.{name}.scale", f"must be positive, got {column.scale}")
        if says := _budget_fault(self.trials, self.seeds, self.search_seed):
            raise fault("", says)
        for key, method in self.methods.items():
            if twice := next((setting for setting in method.settings if setting in self.settings), None):
                raise fault(f"methods.{key}.settings", f"and the shared ones both have {twice}")
            settings = {**self.settings, **method.settings}
            if not 1 <= len(settings) <= MOST_SETTINGS:
                count = f"has {len(settings)} settings to search, shared ones included"
                raise fault(f"methods.{key}", f"{count}; 1 to {MOST_SETTINGS} are possible")
            self.methods[key] = method.model_copy(update={"settings": settings})
        if self.baseline not in self.methods:
            raise fault("baseline", f"is {self.baseline}, no method; there are {', '.join(self.methods)}")
        return self

    @property
    def main(self) -> Column:
        """The column by which methods are compared."""
        return next(iter(self.columns.values()))

    def smaller(self, trials: int | None, seeds: int | None, methods: Sequence[str]) -> Fair:
        """The same with another budget, or some of the methods, errors as `load`; a smaller search begins a larger."""
        if unknown := [key for key in methods if key not in self.methods]:
            raise ValueError(f"{self.name} compares no method {unknown[0]}; there are {', '.join(self.methods)}")
        kept = {key: method for key, method in self.methods.items() if not methods or key in methods}
        trials, seeds = self.trials if trials is None else trials, self.seeds if seeds is None else seeds
        if says := _budget_fault(trials, seeds, self.search_seed):
            raise ValueError(f"{self.name}: {says}")
        partial = len(kept) < len(self.methods)
        return self.model_copy(update={"methods": kept, "trials": trials, "seeds": seeds, "partial": partial})


def _budget_fault(trials: int, seeds: int, search_seed: int) -> str:
    if trials < 1 or seeds < 1:
        return f"trials and seeds must be at least 1, got {trials} and {seeds}"
    if search_seed < seeds:
        return (
            f"the search has seed {search_seed}, which is one of the final seeds 0 to {seeds - 1}; "
            "what was chosen with a seed would be flattered by it, so give search_seed another"
        )
    return ""


def text(value: Value) -> str:
    """As it stands on the command line."""
    return str(value).lower() if isinstance(value, bool) else shown(value)
