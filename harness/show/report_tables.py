"""The tables of a report: results, how sure their differences are, and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.record.measures import ARROWS
from harness.record.runs import STAND_IN
from harness.show.sheet import Line, Sheet, markdown_table
from harness.study.results import PLUS_MINUS, SELECTED, Study, cell
from harness.study.swept import shown, varied
from harness.study.uncertainty import compare, together

MOST_COLUMNS = 7
WIDEST = 7  # columns of a table of settings that fit on paper


@dataclass(frozen=True)
class Choice:
    """What a table of results shows.

    Attributes:
        selections: Which epochs, keys of `SELECTED`.
        metrics: The columns; None: the monitored metric and those nearest to it.
        published: By label, as `harness.study.tables.published_by_label` gives it; neither stand-in data nor a
            changed recipe, whose label is not the experiment's name, stands beside it.
        spread: What stands after ±, a key of `PLUS_MINUS`.
    """

    selections: Sequence[str] = tuple(SELECTED)
    metrics: Sequence[str] | None = None
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spread: str = "interval"


def results(study: Study, choice: Choice, in_full: bool = False) -> Sheet:
    """The metrics of every method, mean and spread over seeds, below the published ones.

    With `in_full`, for a file of its own, methods, metrics and epochs are called as on a command line.
    """
    metrics = [name for name in choice.metrics or main_metrics(study) if in_full or name in study.metrics]
    lines: list[Line] = []

    def add(label: str, what: str, seeds: str, cells: list[str], kind: str = "") -> None:
        if in_full:
            lines.append(Line([label, what.replace("_", " ") if what in SELECTED else what, *cells, seeds], kind))
        else:
            lines.append(Line([study.short[label], SELECTED.get(what, what), seeds, *cells], kind))

    for label, members in study.methods.items():
        entry = choice.published.get(label)
        if entry and not study.stand_in:
            cells = [str(entry["metrics"].get(name, "")) for name in metrics]
            add(label, f"published: {entry['source']}", str(entry.get("seeds") or ""), cells, "published")
        for selection in choice.selections:
            cells = [_cell(study, label, name, selection, choice.spread) for name in metrics]
            if any(cells):
                add(label, selection, str(len(members)), cells)
    if in_full:
        return Sheet(["method", "selected", *metrics, "seeds"], lines, words=2)
    return Sheet(["method", "epoch", "seeds", *(column_head(study, name) for name in metrics)], lines, words=2)


def markdown(study: Study, choice: Choice) -> str:
    """The results in full, with what has to be said of them."""
    table = markdown_table(results(study, choice, in_full=True))
    banner = [f"**{STAND_IN}**"] if study.stand_in else []
    return "\n\n".join([*banner, table, *([f"± is {PLUS_MINUS[choice.spread]}."] if "±" in table else [])])


def every_metric(study: Study, spread: str = "interval") -> Sheet:
    """All metrics of all splits at the study's own selection, a row for each and a column for every method."""
    lines = [
        Line([name, *(_cell(study, label, name, study.selection, spread) for label in study.methods)])
        for name in study.metrics
    ]
    return Sheet(["metric", *study.short.values()], lines)


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


def comparisons(study: Study) -> Sheet | None:
    """The best method against every other on common seeds: what the seeds show, in words; None where there are none."""
    metric, order = study.monitor, study.best_first()
    factor = study.measure(metric).factor
    values = {label: {s: factor * v for s, v in study.by_seed(label, metric).items()} for label in order}
    best, *others = order
    others = [label for label in others if len(values[best].keys() & values[label].keys()) >= 2]
    if not others:
        return None
    found = together(
        [
            compare(
                values[best], values[label], better="higher" if study.higher_is_better else "lower",
                names=(study.short[best], study.short[label]),
            )
            for label in others
        ]
    )  # fmt: skip
    lines = [Line([study.short[label], one.text]) for label, one in zip(others, found, strict=True)]
    return Sheet([f"{study.short[best]} against", "what the seeds show"], lines, words=2)


def settings_tables(study: Study) -> list[Sheet]:
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
        Sheet(
            [head, *(columns[i] for i in part)],
            [Line([key, *(line[i] for i in part)]) for key, line in lines.items()],
            words=1 + len(part),
        )
        for part in parts
    ]


def _cell(study: Study, label: str, metric: str, selection: str, spread: str) -> str:
    return cell(study.methods[label], selection, metric, study.measure(metric), spread)


def _says_something(study: Study, metric: str) -> bool:
    return metric == study.monitor or any(
        value != 0 for label in study.methods for value in study.by_seed(label, metric).values()
    )
