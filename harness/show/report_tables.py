"""The tables of a report: results, how sure their differences are, and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.record.measures import ARROWS
from harness.study.results import cell
from harness.study.studies import SELECTED, Study
from harness.study.swept import shown, varied
from harness.study.uncertainty import compare, together

MOST_COLUMNS = 7
WIDEST = 7  # columns of a table of settings that fit on paper


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is about and its cells."""

    head: str
    cells: list[str]
    seeds: str = ""
    published: bool = False


@dataclass(frozen=True)
class Table:
    """Rows by method under named columns."""

    columns: list[str]
    groups: dict[str, list[Row]] = field(default_factory=dict)


def results_table(
    study: Study,
    selections: Sequence[str],
    metrics: Sequence[str] | None = None,
    published: Mapping[str, Mapping[str, Any]] | None = None,
    spread: str = "interval",
) -> Table:
    """The metrics of every method, mean and spread over seeds, below the published ones.

    Args:
        study: The runs.
        selections: Which epochs'.
        metrics: The columns; default: the monitored metric and those nearest to it.
        published: By label, as `harness.study.tables.published_by_label` gives it; neither stand-in data nor a
            changed recipe, whose label is not the experiment's name, stands beside it.
        spread: A key of `harness.study.results.PLUS_MINUS`.
    """
    chosen = [name for name in metrics or main_metrics(study) if name in study.metrics]
    table = Table([column_head(study, name) for name in chosen])
    for label, members in study.methods.items():
        entry = (published or {}).get(label)
        rows = [_published(entry, chosen)] if entry and not study.stand_in else []
        for selection in selections:
            cells = [_cell(study, label, name, selection, spread) for name in chosen]
            if any(cells):
                rows.append(Row(SELECTED.get(selection, selection), cells, str(len(members))))
        table.groups[study.short[label]] = rows
    return table


def every_metric(study: Study, spread: str = "interval") -> Table:
    """All metrics of all splits at the study's own selection, a row for each and a column for every method."""
    rows = [
        Row(name, [_cell(study, label, name, study.selection, spread) for label in study.methods])
        for name in study.metrics
    ]
    return Table(list(study.short.values()), {"": rows})


def main_metrics(study: Study) -> list[str]:
    """The monitored metric, its kin (mse_few beside mse), then the others, without those that are 0 everywhere."""
    monitor = study.monitor
    of_split = [name for name in study.metrics if name.startswith(f"{study.split}/")]
    telling = [name for name in of_split if _says_something(study, name)]
    kin = [name for name in telling if name != monitor and name.startswith(f"{monitor}_")]
    rest = [name for name in telling if name not in kin and name != monitor]
    return [monitor, *kin, *rest][:MOST_COLUMNS]


def column_head(study: Study, metric: str) -> str:
    """The metric without its split; an arrow says which way the monitored one is better."""
    arrow = f"\u00a0{ARROWS['higher' if study.higher_is_better else 'lower']}" if metric == study.monitor else ""
    return metric.removeprefix(f"{study.split}/") + arrow


def comparisons(study: Study) -> list[tuple[str, str]]:
    """The best method against every other on common seeds: its name and what the seeds show, in words."""
    metric, order = study.monitor, study.best_first()
    factor = study.measure(metric).factor
    values = {label: {s: factor * v for s, v in study.by_seed(label, metric).items()} for label in order}
    best, *others = order
    others = [label for label in others if len(values[best].keys() & values[label].keys()) >= 2]
    if not others:
        return []
    found = together(
        [
            compare(
                values[best], values[label], better="higher" if study.higher_is_better else "lower",
                names=(study.short[best], study.short[label]),
            )
            for label in others
        ]
    )  # fmt: skip
    return [(study.short[label], one.text) for label, one in zip(others, found, strict=True)]


def settings_tables(study: Study) -> list[Table]:
    """The settings in which the methods differ: a row for each method, or for each setting where that is narrower.

    Several tables where one would be wider than a page.
    """
    differing = varied([members[0] for members in study.methods.values()])
    names = list(study.short.values())
    cells = {key: [shown(value) for value in values] for key, values in differing.items()}
    if len(differing) > len(names):
        head, columns, lines = "setting", names, cells
    else:
        head, columns = "method", list(cells)
        lines = {name: [values[i] for values in cells.values()] for i, name in enumerate(names)}
    parts = [range(len(columns))[start : start + WIDEST] for start in range(0, len(columns) if cells else 0, WIDEST)]
    return [
        Table(
            [head, *(columns[i] for i in part)],
            {key: [Row("", [line[i] for i in part])] for key, line in lines.items()},
        )
        for part in parts
    ]


def _published(entry: Mapping[str, Any], chosen: Sequence[str]) -> Row:
    values = entry["metrics"]
    cells = [str(values.get(name, "")) for name in chosen]
    return Row(f"published: {entry['source']}", cells, str(entry["seeds"] or ""), published=True)


def _cell(study: Study, label: str, metric: str, selection: str, spread: str) -> str:
    found = cell(study.methods[label], selection, metric)
    return "" if found is None else found.shown(study.measure(metric), spread)


def _says_something(study: Study, metric: str) -> bool:
    return metric == study.monitor or any(
        value != 0 for label in study.methods for value in study.by_seed(label, metric).values()
    )
