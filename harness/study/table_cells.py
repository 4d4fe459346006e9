"""The runs of a table -> its cells: published and ours, their difference, and whether the one confirms the other."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.record import runs
from harness.record.config import Effect, affecting, first_difference, shaping
from harness.study import uncertainty
from harness.study.table_runs import Job
from harness.study.tables import PaperColumn, Published, Row, Table

STAND_IN, FAILED, NOT_MEASURED = "stand-in data", "failed", "not measured"


@dataclass(frozen=True)
class Cell:
    """A column of a row: what was published, and ours by seed, both in the unit of the table.

    `state` is empty or says why there is nothing to compare: the numbers are of stand-in data, the runs failed, or they
    did not measure this.
    """

    column: PaperColumn
    published: Published | None = None
    values: Mapping[int, float] = field(default_factory=dict)
    state: str = ""

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def interval(self) -> uncertainty.Interval | None:
        """Of the mean; None under two seeds."""
        return uncertainty.interval(list(self.values.values())) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the published number; None where they may not be compared."""
        if self.mean is None or self.published is None or self.state:
            return None
        return self.mean - self.published.value

    @property
    def verdict(self) -> str:
        """That of `uncertainty.verdict`, or `state`; empty where nothing was published or can be measured."""
        if self.state:
            return self.state
        if self.published is None or self.column.metric is None:
            return ""
        printed, resolution = self.published.decimals(self.column), self.column.resolution
        return uncertainty.verdict(list(self.values.values()), self.published.value, printed, resolution)


@dataclass(frozen=True)
class Line:
    """A row with its cells, in the order of the columns, and the finished runs behind them by seed."""

    row: Row
    cells: Mapping[str, Cell]
    folders: Mapping[int, Path] = field(default_factory=dict)
    stand_in: bool = False


@dataclass(frozen=True)
class Filled:
    """A table with what the runs gave.

    Attributes:
        table: As it was asked for.
        lines: Of every row.
        seeds: How many were asked for.
        scale: That of the plan; None for the real thing.
        stand_in: Whether any of our numbers are of stand-in data.
        faults: What went wrong, a sentence each.
        missing: How many runs are not there.
        made_of: Revisions, packages and processors behind our numbers, each combination once.
    """

    table: Table
    lines: Sequence[Line]
    seeds: int
    scale: str | None
    stand_in: bool
    faults: Sequence[str]
    missing: int
    made_of: Sequence[str] = ()


def fill(
    table: Table, jobs: Sequence[Job], seeds: int, scale: str | None = None, failed: Mapping[str, str] | None = None
) -> Filled:
    """Reads the finished runs of a table. What cannot be read or may not be averaged costs its own row only.

    Args:
        table: The table.
        jobs: Its plan, located after running.
        seeds: How many were planned.
        scale: As in the plan.
        failed: What went wrong in running, by fingerprint.
    """
    failed = failed or {}
    lines, faults, used = [], [], dict[Path, Mapping[str, Any]]()
    known: dict[str, tuple[str | None, Path]] = {}
    for row in table.rows.values():
        own = [job for job in jobs if job.row == row.key]
        lost = {job.seed: failed[job.fingerprint] for job in own if job.fingerprint in failed and not job.finished}
        folders = {job.seed: job.finished for job in own if job.finished}
        reports, unreadable = _read(folders)
        faults += [f"{table.called(row)}: {fault}" for fault in unreadable]
        try:
            check_alike({folders[seed]: report for seed, report in reports.items()})
            if reports:
                seed = min(reports)  # the others are like it
                _check_same_data(reports[seed], folders[seed], known)
            cells = {name: _cell(column, row, reports, folders) for name, column in table.columns.items()}
        except ValueError as error:
            faults.append(f"{table.called(row)}: {error}")
            reports, cells = {}, {name: _empty(column, row, FAILED) for name, column in table.columns.items()}
        if (lost or unreadable) and not reports:
            cells = {name: _empty(column, row, FAILED) for name, column in table.columns.items()}
        stand_in = bool(scale) or any(report["data"].get("fixture") for report in reports.values())
        if stand_in and row.experiment:
            cells = {name: _stood_in(cell) for name, cell in cells.items()}
        faults += _told(table.called(row), lost)
        lines.append(Line(row, cells, {seed: folders[seed] for seed in reports}, stand_in))
        used |= {folders[seed]: report for seed, report in reports.items()}
    missing = len({job.fingerprint for job in jobs if not job.finished})
    stand_in = any(line.stand_in for line in lines)
    return Filled(table, lines, seeds, scale, stand_in, faults, missing, runs.made_of(used.values()))


def _read(folders: Mapping[int, Path]) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """The reports by seed, and a sentence for each that cannot be read, which costs its seed only."""
    reports, faults = dict[int, dict[str, Any]](), list[str]()
    for seed, folder in folders.items():
        try:
            reports[seed] = runs.read_report(folder)
        except ValueError as error:
            faults.append(str(error))
    return reports, faults


def shown(path: Path) -> str:
    """As seen from the current folder, where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def check_alike(reports: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuses to average or compare what was measured on other data or by another definition.

    Args:
        reports: Of finished runs, by folder.

    Raises:
        ValueError: With the folders of two of them.
    """
    for folder, other in reports.items():
        first, one = next(iter(reports.items()))
        both = f"{shown(first)} and {shown(folder)} may not be averaged or compared: they"
        was, now = one["data"].get("fingerprint"), other["data"].get("fingerprint")
        if was != now:
            raise ValueError(f"{both} were run on different data (fingerprints {was} and {now}); delete the older")
        if differing := first_difference(*(shaping({"metrics": r["config"].get("metrics")}) for r in (one, other))):
            raise ValueError(f"{both} define their metrics differently ({' and '.join(differing)}); delete the older")


def selected(report: Mapping[str, Any], folder: Path, selection: str) -> Mapping[str, float | None]:
    """The metrics of a finished run under `selection` (last, best_on_validation, ...).

    Raises:
        ValueError: If it has no such result, with those it has.
    """
    metrics = runs.metrics_of(report, selection)
    if metrics is None:
        there = ", ".join(name for name in report["results"] if runs.metrics_of(report, name) is not None)
        raise ValueError(f"{shown(folder)} has no result {selection}; it has {there}")
    return metrics


def _check_same_data(report: Mapping[str, Any], folder: Path, known: dict[str, tuple[str | None, Path]]) -> None:
    """Refuses a row on another version of the data than an earlier row with the same settings of the data had.

    Args:
        report: Of one of its runs.
        folder: Of that run.
        known: Fingerprint and folder by settings; what is new is added.
    """
    settings = shaping({"data": report["config"].get("data")}, affecting(Effect.SPEED, Effect.PLACE, Effect.ORDER))
    now = report["data"].get("fingerprint")
    was, first = known.setdefault(json.dumps(settings, sort_keys=True, default=str), (now, folder))
    if was != now:
        raise ValueError(
            f"{shown(first)} and {shown(folder)} may not share a table: they were run on different data (fingerprints "
            f"{was} and {now}); delete the older"
        )


def _cell(column: PaperColumn, row: Row, reports: Mapping[int, Mapping[str, Any]], folders: Mapping[int, Path]) -> Cell:
    published = row.published.get(column.name)
    if column.metric is None or row.experiment is None:
        return Cell(column, published)
    values: dict[int, float] = {}
    for seed, report in reports.items():
        metrics = selected(report, folders[seed], row.selection)
        if column.metric not in metrics:
            continue
        if (value := column.value(metrics)) is None:
            raise ValueError(f"{shown(folders[seed])}: {column.metric} is not a number")
        values[seed] = value
    return Cell(column, published, values, NOT_MEASURED if reports and not values else "")


def _empty(column: PaperColumn, row: Row, state: str) -> Cell:
    return Cell(column, row.published.get(column.name), state=state if row.experiment and column.metric else "")


def _stood_in(cell: Cell) -> Cell:
    """Without the published number, which must not stand beside made-up data."""
    state = cell.state or (STAND_IN if cell.values else "")
    return Cell(cell.column, None, cell.values, state)


def _told(name: str, lost: Mapping[int, str]) -> list[str]:
    """A sentence for each thing that went wrong, with the seeds that it happened to."""
    by_sentence: dict[str, list[int]] = {}
    for seed, said in lost.items():
        by_sentence.setdefault(said, []).append(seed)
    return [
        f"{name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: failed: {said}"
        for said, seeds in by_sentence.items()
    ]
