"""Tables as data: one file of configs/table is one table of a paper, with every published number and its source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.record import measures
from harness.study.table_file import Node, file_called

# Which moment of a run stands beside the paper's number, and how the header says so.
SELECTIONS = {
    "last": "after the last epoch",
    "best_on_test": "at the epoch that was best on the test split",
    "best_on_validation": "at the epoch that was best on held-out data, never on the test split",
    "untrained": "before training",
}
READ = {
    "paper": "read in the paper",
    "repository": "read in the authors' repository",
    "later_paper": "as quoted by a later paper",
    "poster": "read on the poster",
}
SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Column:
    """A column: `metric` of a run times `scale` is in the unit of the published numbers.

    Without a metric, a column holds published numbers only. `decimals` are those the paper prints; `resolution` is the
    widest half-interval that may confirm a published number.
    """

    name: str
    metric: str | None
    scale: float
    decimals: int
    better: str
    resolution: float


@dataclass(frozen=True)
class Source:
    """Where a number was found, and how it was `read` (a key of `READ`)."""

    text: str
    read: str


@dataclass(frozen=True)
class Published:
    """A published number in the unit of its column, and the short name of its source."""

    value: float
    source: str

    def decimals(self, column: Column) -> int:
        """Those it was printed with: none of a whole number, otherwise at least those of the column."""
        return 0 if isinstance(self.value, int) else max(column.decimals, len(repr(self.value).partition(".")[2]))


@dataclass(frozen=True)
class Row:
    """A method: `experiment` with `overrides` is what we run; without an experiment it is published only."""

    key: str
    name: str
    experiment: str | None
    overrides: tuple[str, ...]
    published: Mapping[str, Published]
    seeds: int | None
    note: str | None
    selection: str
    group: str | None


@dataclass(frozen=True)
class Table:
    """A table of a paper. `name` is that of its file."""

    name: str
    title: str
    data: str
    unit: str
    selection: str
    columns: Mapping[str, Column]
    sources: Mapping[str, Source]
    rows: Mapping[str, Row]
    notes: tuple[str, ...]

    def called(self, row: Row) -> str:
        """The name of a row outside of the table: with its group, where other rows have that name."""
        alone = sum(other.name == row.name for other in self.rows.values()) == 1
        return row.name if alone or row.group is None else f"{row.name} ({row.group})"


def named(name: str, folder: Path) -> Table:
    """The table of that name, in which - and _ are the same.

    Raises:
        ValueError: If there is none, with those there are; or as `load`.
    """
    return load(file_called(name, folder, "table"))


def load(path: Path) -> Table:
    """Reads and checks a table file by itself; `check_metrics` asks whether a row's experiment can fill the columns.

    Raises:
        ValueError: If it is not YAML, or a key is missing, unknown or of the wrong kind; named with the file.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path.name}: not a readable table ({' '.join(str(error).split())})") from error
    node = Node(path.name, "", content)
    columns = {name: _column(name, child) for name, child in node.children("columns").items()}
    sources = {name: _source(child) for name, child in node.children("sources", required=False).items()}
    selection = node.choice("selection", SELECTIONS)
    rows = {key: _row(key, child, columns, sources, selection) for key, child in node.children("rows").items()}
    table = Table(
        name=path.stem,
        title=node.text("title"),
        data=node.text("data"),
        unit=node.text("unit", ""),
        selection=selection,
        columns=columns,
        sources=sources,
        rows=rows,
        notes=node.texts("notes"),
    )
    node.finish()
    return table


def _column(name: str, node: Node) -> Column:
    metric = node.text("metric", "") or None
    column = Column(
        name=name,
        metric=metric,
        scale=node.number("scale", 1.0),
        decimals=node.whole("decimals", 1),
        better=node.choice("better", ("higher", "lower"), "higher"),
        resolution=node.number("resolution", None if metric else 1.0),
    )
    node.finish()
    if metric and metric.partition("/")[0] not in SPLITS:
        raise node.fault("metric", f"wants a split before its name, as in test/{metric}; got {metric}")
    if not column.resolution > 0:
        raise node.fault("resolution", f"must be positive, got {column.resolution}")
    if column.scale == 0:
        raise node.fault("scale", "must not be 0")
    return column


def _source(node: Node) -> Source:
    source = Source(node.text("text"), node.choice("read", READ))
    node.finish()
    return source


def _row(key: str, node: Node, columns: Mapping[str, Column], sources: Mapping[str, Source], selection: str) -> Row:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", key):
        raise node.fault("", f"is no name for a file; use letters, digits and _ . - in {key!r}")
    row = Row(
        key=key,
        name=node.text("name"),
        experiment=node.text("experiment", "") or None,
        overrides=node.texts("overrides"),
        published=_published(node, columns, sources),
        seeds=node.whole("seeds", 0) or None,
        note=node.text("note", "") or None,
        selection=node.choice("selection", SELECTIONS, selection),
        group=node.text("group", "") or None,
    )
    node.finish()
    if row.experiment is None and not row.published:
        raise node.fault("", "has neither an experiment nor a published number; give it one, or take it out")
    if row.experiment is None and row.overrides:
        raise node.fault("overrides", "change nothing, as the row has no experiment")
    return row


def _published(node: Node, columns: Mapping[str, Column], sources: Mapping[str, Source]) -> dict[str, Published]:
    own, found = node.text("source", ""), {}
    if own and own not in sources:
        raise node.fault("source", f"is {own}, which is not among the sources; there are {', '.join(sources)}")
    for name, (value, source) in node.numbers_with_sources("published").items():
        source = source or own
        if name not in columns:
            raise node.fault(f"published.{name}", f"is no column; there are {', '.join(columns)}")
        if source not in sources:
            has = f"has the source {source}" if source else "has no source"
            raise node.fault(f"published.{name}", f"{has}, and a number needs one of {', '.join(sources) or 'them'}")
        found[name] = Published(value, source)
    return found


def check_metrics(table: Table, row: Row, config: Mapping[str, Any]) -> None:
    """Refuses a table before anything is trained for it, if a run of `row` could not give the metric of a column.

    Args:
        table: The table.
        row: One of its rows.
        config: That row's config, composed and resolved. Its metrics may say by a method `names()` what they give,
            with * for a part that the data decide; metrics without one are not checked.

    Raises:
        ValueError: With file, column and what there is.
    """
    check_columns(f"{table.name}.yaml", table.columns.values(), f"rows.{row.key} ({row.experiment})", config)


class _Measured(Protocol):
    """A column of a table or of a fair comparison."""

    @property
    def name(self) -> str: ...
    @property
    def metric(self) -> str | None: ...
    @property
    def better(self) -> str: ...


def check_columns(file: str, columns: Iterable[_Measured], who: str, config: Mapping[str, Any]) -> None:
    """Refuses columns that a run of `config` would not give, or whose arrow is not what its metrics declare.

    Args:
        file: That of the columns, for the error.
        columns: Those of a table or of a fair comparison.
        who: Whose config it is, for the error.
        config: As for `check_metrics`.

    Raises:
        ValueError: With file, column and what there is.
    """
    metrics = instantiate(config["metrics"], _convert_="all")
    given = list(metrics.names()) if hasattr(metrics, "names") else ["*"]
    for column in columns:
        name = (column.metric or "").partition("/")[2]
        if not name:
            continue
        if not any(fnmatch(name, pattern) for pattern in given):
            raise ValueError(
                f"{file}: columns.{column.name}.metric is {column.metric}, which {who} does not measure; it measures "
                f"{', '.join(given)}"
            )
        way = (measures.declared(metrics, name) or measures.Measure()).better
        if way not in (None, column.better):
            raise ValueError(
                f"{file}: columns.{column.name}.better is {column.better}, but {column.metric} is better when {way}"
            )


def published_by_label(folder: Path) -> dict[str, dict[str, Any]]:
    """What was published for each method that a row runs, by metric: for reports of runs, beside which it may stand.

    Of several rows that run one method, the one with most numbers counts.

    Returns:
        By the label of its runs (experiment, then changes in order) `source` (text), `seeds` (None if unknown) and
        `metrics`, each in the unit of the paper.

    Raises:
        ValueError: As `load`.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.yaml")):
        table = load(path)
        for row in table.rows.values():
            numbers = {
                column.metric: row.published[name].value
                for name, column in table.columns.items()
                if name in row.published and column.metric
            }
            if row.experiment is None or not numbers:
                continue
            label = " ".join([row.experiment, *sorted(override.lstrip("+") for override in row.overrides)])
            texts = dict.fromkeys(table.sources[number.source].text for number in row.published.values())
            entry = {"source": "; ".join(texts), "seeds": row.seeds, "metrics": numbers}
            if len(numbers) > len(found.get(label, {"metrics": {}})["metrics"]):
                found[label] = entry
    return found
