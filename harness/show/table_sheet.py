"""A filled table as text: what stands above it, in every cell, and below; the same for every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.record.measures import ARROWS
from harness.record.runs import STAND_IN
from harness.study.table_cells import FAILED, NOT_MEASURED, Cell, Filled, Line
from harness.study.tables import READ, SELECTIONS, Table

NONE = "–"  # where there is no number


@dataclass(frozen=True)
class Entry:
    """A line of a block: published, ours, difference or verdict, with a text for every column."""

    kind: str
    label: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Block:
    """What is said of one method."""

    method: str
    group: str | None
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Sheet:
    """The texts of a table. `columns` are those of the numbers; before them stand the method and an entry's label."""

    name: str
    title: str
    command: str
    banner: Sequence[str]
    about: Sequence[str]
    columns: Sequence[str]
    blocks: Sequence[Block]
    below: Sequence[str]

    @property
    def above(self) -> list[str]:
        """What stands above the table, with the command that makes it."""
        return [*self.about, f"Made by: {self.command}"]


class Flat(NamedTuple):
    """A printed line: an entry (`kind`), or the name of a group; `apart` where room above it helps the eye."""

    kind: str
    method: str
    label: str
    texts: Sequence[str]
    apart: bool


def flat(page: Sheet) -> list[Flat]:
    """The printed lines in their order; a method is named on its first line only."""
    lines: list[Flat] = []
    group, before = None, 1
    for block in page.blocks:
        if block.group != group:
            group, before = block.group, 1
            lines.append(Flat("group", group or "", "", [""] * len(page.columns), bool(lines)))
        apart = max(before, len(block.entries)) > 1 and bool(lines) and lines[-1].kind != "group"
        for k, entry in enumerate(block.entries):
            lines.append(Flat(entry.kind, "" if k else block.method, entry.label, entry.texts, apart and k == 0))
        before = len(block.entries)
    return lines


def sheet(filled: Filled) -> Sheet:
    """Everything a reader has to be told to judge the numbers; published numbers never stand beside stand-in data."""
    table = filled.table
    lines = [line for line in filled.lines if not (filled.scale and line.row.experiment is None)]
    used = [cell.published.source for line in lines for cell in line.cells.values() if cell.published]
    sources = {name: f"[{number}]" for number, name in enumerate(dict.fromkeys(used), start=1)}
    notes = [] if filled.scale else _notes(lines, table)  # they are about the real thing
    blocks = [Block(line.row.name, line.row.group, _entries(line, table, sources)) for line in lines]
    entries = [entry for block in blocks for entry in block.entries]
    return Sheet(
        name=table.name,
        title=table.title,
        command=command(filled),
        banner=[STAND_IN] if filled.stand_in else [],
        about=_about(filled, entries),
        columns=[f"{name} {ARROWS[column.better]}" for name, column in table.columns.items()],
        blocks=blocks,
        below=[
            *_sources(table, sources),
            *notes,
            *([] if filled.stand_in else [f"Made of: {made}." for made in filled.made_of]),
            *filled.faults,
            *_missing(filled),
        ],
    )


def command(filled: Filled) -> str:
    """What makes the table."""
    scale = f" SCALE={filled.scale}" if filled.scale else ""
    return f"make table-{filled.table.name.replace('_', '-')} SEEDS={filled.seeds}{scale}"


def _about(filled: Filled, entries: Sequence[Entry]) -> list[str]:
    table = filled.table
    unit = f", in {table.unit}" if table.unit else ""
    about = [
        f"Data: {table.data}{unit}. Arrows tell which way is better.",
    ]
    if any(row.experiment for row in table.rows.values()):
        several = any("±" in text for entry in entries for text in entry.texts)
        half = "; mean ± half-width of the 95 % t-interval over seeds" if several else ""
        about.append(f"Ours: {SELECTIONS[table.selection]}{half}.")
    if any(entry.kind == "difference" for entry in entries):
        about.append(
            "Verdict: reproduced, if the interval holds the published number and is narrow enough to say so; "
            "not enough seeds, if it is too wide; else below or above, where our mean lies."
        )
    return about


def _entries(line: Line, table: Table, sources: Mapping[str, str]) -> list[Entry]:
    cells = list(line.cells.values())
    entries = []
    if any(cell.published for cell in cells):
        usual = Counter(cell.published.source for cell in cells if cell.published).most_common(1)[0][0]
        seeds = f", {_seeds(line.row.seeds)}" if line.row.seeds else ""
        texts = [_published(cell, usual, sources) for cell in cells]
        entries.append(Entry("published", f"published {sources[usual]}{seeds}", texts))
    if line.row.experiment is None:
        return entries
    label = f"ours, {_seeds(len(line.folders))}" if line.folders else "ours"
    if line.row.selection != table.selection:
        label += f", {SELECTIONS[line.row.selection].partition(',')[0]}"
    ours = [_ours(cell, len(line.folders)) for cell in cells]
    if (
        len(said := {text for text, cell in zip(ours, cells, strict=True) if cell.column.metric}) == 1
        and not line.folders
    ):
        label, ours = f"{label}: {said.pop()}", [""] * len(cells)  # once is enough
    entries.append(Entry("ours", label, ours))
    if any(cell.difference is not None for cell in cells):
        entries.append(Entry("difference", "difference", [_difference(cell) for cell in cells]))
    if any(cell.values for cell in cells) and any(cell.verdict for cell in cells):
        entries.append(Entry("verdict", "verdict", [cell.verdict or NONE for cell in cells]))
    return entries


def _published(cell: Cell, usual: str, sources: Mapping[str, str]) -> str:
    if cell.published is None:
        return NONE
    mark = "" if cell.published.source == usual else f" {sources[cell.published.source]}"
    return number(cell.published.value, cell.published.decimals(cell.column)) + mark


def _ours(cell: Cell, runs: int) -> str:
    if cell.mean is None:
        if cell.column.metric is None:
            return NONE
        return cell.state if cell.state in (FAILED, NOT_MEASURED) else "not run"
    decimals = cell.column.decimals
    words = [number(cell.mean, decimals)]
    if cell.interval is not None:
        half = cell.interval.half
        words.append(f"± {half:.{decimals + (0 < half < 0.5 * 10**-decimals)}f}")
    if len(cell.values) != runs:
        words.append(f"({_seeds(len(cell.values))})")
    return " ".join(words)


def _difference(cell: Cell) -> str:
    return NONE if cell.difference is None else number(cell.difference, cell.column.decimals, plus=True)


def number(value: float, decimals: int, plus: bool = False) -> str:
    """Rounded, with a true minus sign, and none for a zero that rounding made."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' if plus and rounded else ''}.{decimals}f}".replace("-", "−")


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _sources(table: Table, sources: Mapping[str, str]) -> list[str]:
    return [f"{mark} {table.sources[name].text} ({READ[table.sources[name].read]})" for name, mark in sources.items()]


def _notes(lines: Sequence[Line], table: Table) -> list[str]:
    """Those of the rows, each beginning with the methods that it is about, then those of the whole table."""
    by_note: dict[str, list[str]] = {}
    for line in lines:
        if line.row.note:
            by_note.setdefault(line.row.note, []).append(table.called(line.row))
    return [*(f"{'; '.join(dict.fromkeys(names))}: {note}" for note, names in by_note.items()), *table.notes]


def _missing(filled: Filled) -> list[str]:
    if not filled.missing:
        return []
    are = "1 run is" if filled.missing == 1 else f"{filled.missing} runs are"
    return [f"{are} missing; to run what is missing: {command(filled)}"]
