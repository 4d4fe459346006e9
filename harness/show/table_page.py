"""A filled table of a paper: its Sheet, its record of every cell, and its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.files import shown, write_text
from harness.record.measures import ARROWS
from harness.record.runs import STAND_IN
from harness.show import sheet
from harness.show.sheet import Line, Sheet
from harness.study import table_cells
from harness.study.table_cells import FAILED, NOT_MEASURED, Cell, Filled
from harness.study.tables import READ, SELECTIONS, Table
from harness.words import numbered

NONE = "–"  # where there is no number


def write(filled: Filled, folder: Path, formats: Collection[str]) -> list[Path]:
    """Writes <name>.md, .tex, .csv and .html into `folder`, as asked; of another scale with that in the name."""
    name = f"{filled.table.name}_{filled.scale}" if filled.scale else filled.table.name
    paths = []
    for kind in formats:
        ending, make = FILES[kind]
        paths.append(folder / f"{name}{ending}")
        write_text(paths[-1], make(filled))
    return paths


def check_formats(formats: Collection[str]) -> None:
    """Refuses, before anything is trained, what could not be written after it.

    Raises:
        ValueError: If a format is unknown.
    """
    if unknown := [name for name in formats if name not in FILES]:
        raise ValueError(f"a format is one of {', '.join(FILES)}; got {unknown[0]}")


def table_sheet(filled: Filled) -> Sheet:
    """Everything a reader has to be told to judge the numbers; published numbers never stand beside stand-in data."""
    table, lines = filled.table, _lines(filled)
    used = [cell.published.source for line in lines for cell in line.cells.values() if cell.published]
    marks = {name: f"[{number}]" for number, name in enumerate(dict.fromkeys(used), start=1)}
    sources = [f"{mark} {table.sources[name].text} ({READ[table.sources[name].read]})" for name, mark in marks.items()]
    notes = [] if filled.scale else _notes(lines, table)  # they are about the real thing
    made_of = [] if filled.stand_in else [f"Made of: {made}." for made in filled.made_of]
    are = f"{numbered(filled.missing, 'run')} {'is' if filled.missing == 1 else 'are'}"
    missing = [f"{are} missing; to run what is missing: {command(filled)}"] if filled.missing else []
    printed = _with_groups([(line.row.group, _block(line, table, marks)) for line in lines])
    return Sheet(
        columns=["method", "", *(f"{name} {ARROWS[column.better]}" for name, column in table.columns.items())],
        lines=printed,
        words=2,
        title=table.title,
        banner=STAND_IN if filled.stand_in else "",
        above=_about(filled, printed),
        below=[*sources, *notes, *made_of, *filled.faults, *missing],
        command=command(filled),
        name=table.name,
    )


def command(filled: Filled) -> str:
    """What makes the table."""
    scale = f" SCALE={filled.scale}" if filled.scale else ""
    return f"make table-{filled.table.name.replace('_', '-')} SEEDS={filled.seeds}{scale}"


def _lines(filled: Filled) -> list[table_cells.Line]:
    """Those that are shown: of stand-in data what was run, as nothing published may stand beside it."""
    return [line for line in filled.lines if not (filled.scale and line.row.experiment is None)]


def _with_groups(blocks: Sequence[tuple[str | None, Sequence[Line]]]) -> list[Line]:
    """The lines of all methods, each under its group, with room where a method has several."""
    lines: list[Line] = []
    group, before = None, 1
    for of, block in blocks:
        if of != group:
            group, before = of, 1
            lines.append(Line([group or "", *[""] * (len(block[0].cells) - 1)], "group", bool(lines)))
        apart = max(before, len(block)) > 1 and bool(lines) and lines[-1].kind != "group"
        first, *rest = block
        lines += [replace(first, apart=apart), *rest]
        before = len(block)
    return lines


def _about(filled: Filled, lines: Sequence[Line]) -> list[str]:
    table = filled.table
    unit = f", in {table.unit}" if table.unit else ""
    about = [f"Data: {table.data}{unit}. Arrows tell which way is better."]
    if any(row.experiment for row in table.rows.values()):
        several = any("±" in cell for line in lines for cell in line.cells[2:])
        half = "; mean ± half-width of the 95 % t-interval over seeds" if several else ""
        about.append(f"Ours: {SELECTIONS[table.selection]}{half}.")
    if any(line.kind == "difference" for line in lines):
        about.append(
            "Verdict: reproduced, if the interval holds the published number and is narrow enough to say so; "
            "not enough seeds, if it is too wide; else below or above, where our mean lies."
        )
    return about


def _block(line: table_cells.Line, table: Table, marks: Mapping[str, str]) -> list[Line]:
    """What is said of one method, which is named on its first line only."""
    cells = list(line.cells.values())
    block: list[Line] = []

    def add(kind: str, label: str, texts: Sequence[str]) -> None:
        block.append(Line(["" if block else line.row.name, label, *texts], kind))

    if any(cell.published for cell in cells):
        usual = Counter(cell.published.source for cell in cells if cell.published).most_common(1)[0][0]
        seeds = f", {numbered(line.row.seeds, 'seed')}" if line.row.seeds else ""
        add("published", f"published {marks[usual]}{seeds}", [_published(cell, usual, marks) for cell in cells])
    if line.row.experiment is not None:
        add("ours", *_ours_of(line, table))
        if any(cell.difference is not None for cell in cells):
            add("difference", "difference", [_difference(cell) for cell in cells])
        if any(cell.values for cell in cells) and any(cell.verdict for cell in cells):
            add("verdict", "verdict", [cell.verdict or NONE for cell in cells])
    return block


def _ours_of(line: table_cells.Line, table: Table) -> tuple[str, list[str]]:
    label = f"ours, {numbered(len(line.folders), 'seed')}" if line.folders else "ours"
    if line.row.selection != table.selection:
        label += f", {SELECTIONS[line.row.selection].partition(',')[0]}"
    texts = [_ours(cell, len(line.folders)) for cell in line.cells.values()]
    said = {text for text, cell in zip(texts, line.cells.values(), strict=True) if cell.column.metric}
    if len(said) == 1 and not line.folders:
        return f"{label}: {said.pop()}", [""] * len(texts)  # once is enough
    return label, texts


def _published(cell: Cell, usual: str, marks: Mapping[str, str]) -> str:
    if cell.published is None:
        return NONE
    mark = "" if cell.published.source == usual else f" {marks[cell.published.source]}"
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
        words.append(f"({numbered(len(cell.values), 'seed')})")
    return " ".join(words)


def _difference(cell: Cell) -> str:
    return NONE if cell.difference is None else number(cell.difference, cell.column.decimals, plus=True)


def number(value: float, decimals: int, plus: bool = False) -> str:
    """Rounded, with a true minus sign, and none for a zero that rounding made."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' if plus and rounded else ''}.{decimals}f}".replace("-", "−")


def _notes(lines: Sequence[table_cells.Line], table: Table) -> list[str]:
    """Those of the rows, each beginning with the methods that it is about, then those of the whole table."""
    by_note: dict[str, list[str]] = {}
    for line in lines:
        if line.row.note:
            by_note.setdefault(line.row.note, []).append(table.called(line.row))
    return [*(f"{'; '.join(dict.fromkeys(names))}: {note}" for note, names in by_note.items()), *table.notes]


def csv(filled: Filled) -> str:
    """One line per cell, unrounded, with everything that it was computed from."""
    return sheet.csv_text([_record(filled, line, cell) for line in _lines(filled) for cell in line.cells.values()])


def _record(filled: Filled, line: table_cells.Line, cell: Cell) -> dict[str, object]:
    row, column, published, interval = line.row, cell.column, cell.published, cell.interval
    source = filled.table.sources[published.source] if published else None
    return {
        "table": filled.table.name,
        "group": row.group,
        "row": row.key,
        "method": row.name,
        "experiment": row.experiment,
        "overrides": " ".join(row.overrides),
        "selection": row.selection if row.experiment else None,
        "column": column.name,
        "metric": column.metric,
        "better": column.better,
        "published": published.value if published else None,
        "published_seeds": row.seeds if published else None,
        "source": source.text if source else None,
        "read": READ[source.read] if source else None,
        "ours": cell.mean,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "half_width": interval.half if interval else None,
        "seeds": len(cell.values),
        "values": ";".join(f"{seed}={value!r}" for seed, value in cell.values.items()),
        "difference": cell.difference,
        "verdict": cell.verdict,
        "stand_in_data": line.stand_in,
        "runs": ";".join(map(shown, line.folders.values())),
    }


FILES: dict[str, tuple[str, Callable[[Filled], str]]] = {
    "markdown": (".md", lambda filled: sheet.markdown(table_sheet(filled))),
    "latex": (".tex", lambda filled: sheet.latex(table_sheet(filled))),
    "csv": (".csv", csv),
    "html": (".html", lambda filled: sheet.html(table_sheet(filled))),
}
