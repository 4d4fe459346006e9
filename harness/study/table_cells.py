"""The runs of a table -> its cells: published and ours, their difference, and whether the one confirms the other."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.files import shown
from harness.record import runs
from harness.record.config import ORDER, PLACE, SPEED, shaping
from harness.study import uncertainty
from harness.study.jobs import Job
from harness.study.results import Run, read
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
        return uncertainty.spread(self.values)

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
    folders: Mapping[int, Path]
    stand_in: bool


@dataclass(frozen=True)
class Filled:
    """A table with what the runs of a plan gave."""

    table: Table
    lines: Sequence[Line]
    seeds: int  # how many were asked for
    scale: str | None  # of the plan; None for the real thing
    faults: Sequence[str]  # a sentence each
    missing: int  # runs that are not there
    made_of: Sequence[str]  # revisions, packages and processors behind our numbers, each combination once

    @property
    def stand_in(self) -> bool:
        """Whether any of our numbers are of stand-in data."""
        return any(line.stand_in for line in self.lines)


def fill(
    table: Table, jobs: Sequence[Job], seeds: int, scale: str | None = None, failed: Mapping[str, str] | None = None
) -> Filled:
    """Reads the finished runs of a located plan. What cannot be read or may not be averaged costs its own row only.

    `failed` says what went wrong in running, by fingerprint.
    """
    lines, faults, used = list[Line](), list[str](), list[Run]()
    known: dict[str, Run] = {}
    for row in table.rows.values():
        own, name = [job for job in jobs if job.row == row.key], table.called(row)
        lost: dict[str, list[int]] = {}  # seeds, by what went wrong
        for job in own:
            if failed and not job.finished and job.fingerprint in failed:
                lost.setdefault(failed[job.fingerprint], []).append(job.seed)
        try:
            found = {job.seed: read(job.finished, row.selection) for job in own if job.finished}
            check_alike(list(found.values()))
            if found:
                first = found[min(found)]  # the others are like it
                check_alike([known.setdefault(_data(first), first), first])
            line = _line(table, row, found, scale, bool(lost))
        except ValueError as error:
            faults.append(f"{name}: {error}")
            found = {}
            line = _line(table, row, found, scale, True)
        for said, seeds_lost in lost.items():
            which = f"seed{'s' * (len(seeds_lost) > 1)} {', '.join(map(str, seeds_lost))}"
            faults.append(f"{name}, {which}: failed: {said}")
        lines.append(line)
        used += found.values()
    missing = len({job.fingerprint for job in jobs if not job.finished})
    return Filled(table, lines, seeds, scale, faults, missing, runs.made_of(run.report for run in used))


def _line(table: Table, row: Row, found: Mapping[int, Run], scale: str | None, broken: bool) -> Line:
    stand_in = bool(scale) or any(run.report["data"].get("fixture") for run in found.values())
    cells = {name: _cell(column, row, found, stand_in, broken) for name, column in table.columns.items()}
    return Line(row, cells, {seed: run.folder for seed, run in found.items()}, stand_in)


def _cell(column: PaperColumn, row: Row, found: Mapping[int, Run], stand_in: bool, broken: bool) -> Cell:
    """A cell; no published number stands beside made-up data."""
    published = None if stand_in and row.experiment else row.published.get(column.name)
    if column.metric is None or row.experiment is None:
        return Cell(column, published)
    for run in found.values():
        if run.metrics(row.selection).get(column.metric, 0.0) is None:
            raise ValueError(f"{shown(run.folder)}: {column.metric} is not a number")
    values = column.values(found, row.selection)
    if values:
        return Cell(column, published, values, STAND_IN if stand_in else "")
    return Cell(column, published, state=NOT_MEASURED if found else FAILED if broken else "")


def check_alike(members: Sequence[Run]) -> None:
    """Refuses what was measured on different data; that it was measured alike, the fingerprints of the runs say."""
    for run in members[1:]:
        was, now = (of.report["data"].get("fingerprint") for of in (members[0], run))
        if was != now:
            raise ValueError(
                f"{shown(members[0].folder)} and {shown(run.folder)} may not be averaged or compared: they were run on "
                f"different data (fingerprints {was} and {now}); delete the older"
            )


def _data(run: Run) -> str:
    """The settings of its data, which tell rows on other data from those on another version of the data."""
    apart = (*SPEED, *PLACE, *ORDER)
    return json.dumps(shaping({"data": run.report["config"].get("data")}, apart), sort_keys=True, default=str)
