"""Tables as data: one file of configs/table is one table of a paper, with every published number and its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, WrapValidator, model_validator

from harness.study.specification import Column, FileName, Method, Number, Part, Specification, fault, knowing, one_of

# Which moment of a run stands beside the paper's number, and how the header says so.
SELECTIONS = {
    "last": "after the last epoch",
    "best_on_test": "at the epoch that was best on the test split",
    "best_on_validation": "at the epoch that was best on held-out data, never on the test split",
    "last_average": "after the last epoch with averaged weights",
    "best_on_test_average": "at the epoch whose averaged weights were best on the test split",
    "best_on_validation_average": "at the epoch whose averaged weights were best on held-out data",
    "untrained": "before training",
}
READ = {
    "paper": "read in the paper",
    "repository": "read in the authors' repository",
    "later_paper": "as quoted by a later paper",
    "poster": "read on the poster",
}
Selection = Annotated[str, one_of(SELECTIONS)]


def _as_written(value: Any, check: Callable[[Any], float]) -> Any:
    """The number itself: 33 stays apart from 33.0, as it is shown with the digits that it has."""
    check(value)
    return value


class PaperColumn(Column):
    """A column of a table. Without a metric, it holds published numbers only.

    `resolution` is the widest half-interval that may confirm a published number.
    """

    resolution: Annotated[float, Field(strict=True, gt=0)] = 1.0

    @model_validator(mode="after")
    def _sound(self) -> PaperColumn:
        if self.metric and self.metric.partition("/")[0] not in ("test", "validation"):
            raise fault("metric", f"wants a split before its name, as in test/{self.metric}; got {self.metric}")
        if self.metric and "resolution" not in self.model_fields_set:
            raise fault("resolution", "is missing")
        if self.scale == 0:
            raise fault("scale", "must not be 0")
        return self


class Source(Part):
    """Where a number was found, and how it was `read` (a key of `READ`)."""

    text: str
    read: Annotated[str, one_of(READ)]


class Published(Part):
    """A published number, 6.91 or {value: 6.91, source: readme}: in the unit of its column, with its source's name."""

    value: Annotated[Number, WrapValidator(_as_written)]
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, given: Any) -> Any:
        return given if isinstance(given, dict) else {"value": given}

    def decimals(self, column: Column) -> int:
        """Those it was printed with: none of a whole number, otherwise at least those of the column."""
        return 0 if isinstance(self.value, int) else max(column.decimals, len(repr(self.value).partition(".")[2]))


class Row(Method):
    """A method: `experiment` with `overrides` is what we run; without an experiment it is published only.

    `source` is that of the published numbers which name none themselves; `selection` is the table's if none is given.
    """

    experiment: str | None = None
    published: dict[str, Published] = Field(default_factory=dict)
    source: str = ""
    seeds: Annotated[int, Field(strict=True, gt=0)] | None = None
    selection: Selection = ""
    group: str | None = None

    @model_validator(mode="after")
    def _sound(self) -> Row:
        for name, number in self.published.items():
            self.published[name] = number.model_copy(update={"source": number.source or self.source})
        if self.experiment is None and not self.published:
            raise fault("", "has neither an experiment nor a published number; give it one, or take it out")
        if self.experiment is None and self.overrides:
            raise fault("overrides", "change nothing, as the row has no experiment")
        return self


class Table(Specification):
    """A table of a paper."""

    kind: ClassVar[str] = "table"

    selection: Selection
    columns: Annotated[Mapping[str, PaperColumn], Field(min_length=1), knowing("name")]
    sources: Mapping[str, Source] = {}
    rows: Annotated[dict[FileName, Row], Field(min_length=1), knowing("key")]

    @model_validator(mode="after")
    def _sound(self) -> Table:
        for key, row in self.rows.items():
            self.rows[key] = row.model_copy(update={"selection": row.selection or self.selection})
            for name, number in row.published.items():
                place, source = f"rows.{key}.published.{name}", number.source
                if name not in self.columns:
                    raise fault(place, f"is no column; there are {', '.join(self.columns)}")
                if source not in self.sources:
                    has, there = f"has the source {source}" if source else "has no source", ", ".join(self.sources)
                    raise fault(place, f"{has}, and a number needs one of {there or 'them'}")
        return self

    def called(self, row: Row) -> str:
        """The name of a row outside of the table: with its group, where other rows have that name."""
        alone = sum(other.name == row.name for other in self.rows.values()) == 1
        return row.name if alone or row.group is None else f"{row.name} ({row.group})"


def published_by_label(folder: Path) -> dict[str, dict[str, Any]]:
    """What was published for each method that a row runs, for reports of runs; errors as `Table.load`.

    Of several rows that run one method, the one with most numbers counts.

    Returns:
        By the label of its runs (experiment, then changes in order) `source` (text), `seeds` (None if unknown) and
        `metrics`, each in the unit of the paper.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.yaml")):
        table = Table.load(path)
        for row in table.rows.values():
            named = {table.columns[name].metric: number.value for name, number in row.published.items()}
            numbers = {metric: value for metric, value in named.items() if metric}
            if row.experiment is None or not numbers:
                continue
            label = " ".join([row.experiment, *sorted(override.lstrip("+") for override in row.overrides)])
            texts = dict.fromkeys(table.sources[number.source].text for number in row.published.values())
            if label not in found or len(numbers) > len(found[label]["metrics"]):
                found[label] = {"source": "; ".join(texts), "seeds": row.seeds, "metrics": numbers}
    return found
