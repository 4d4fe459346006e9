"""A filled table for the terminal, and in files: Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from harness.checkpoint import write_whole
from harness.show.table_sheet import flat, sheet
from harness.show.table_typeset import html, latex
from harness.study.table_cells import Cell, Filled, Line, shown
from harness.study.tables import READ

STYLES = {"reproduced": "green", "below": "yellow", "above": "yellow", "failed": "red"}  # of words, which say it too


def write(filled: Filled, folder: Path, formats: Collection[str]) -> list[Path]:
    """Writes <name>.md, .tex, .csv and .html into `folder`, as asked; of another scale with that in the name.

    Raises:
        ImportError: As `check_formats`, and so ValueError.
    """
    check_formats(formats)
    name = f"{filled.table.name}_{filled.scale}" if filled.scale else filled.table.name
    paths = []
    for kind in formats:
        ending, make = FILES[kind]
        content, path = make(filled).encode(), folder / f"{name}{ending}"
        write_whole(path, lambda file, content=content: file.write(content))
        paths.append(path)
    return paths


def check_formats(formats: Collection[str]) -> None:
    """Refuses, before anything is trained, what could not be written after it.

    Raises:
        ImportError: If a library is missing, with the way to get it.
        ValueError: If a format is unknown.
    """
    if unknown := [name for name in formats if name not in FILES]:
        raise ValueError(f"a format is one of {', '.join(FILES)}; got {unknown[0]}")
    if not formats:
        return
    try:
        import jinja2  # noqa: F401
        import pandas  # noqa: F401
        import tabulate  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'tables in files need {error.name}; run: pip install "blackbox-ranking[tables]", or show the table '
            "without files: --formats none"
        ) from error


def show(filled: Filled) -> None:
    """Prints the table; as wide as it is where the output is no terminal but a file."""
    console, text = Console(highlight=False), terminal(filled)
    if not console.is_terminal:
        wide = console.measure(text, options=console.options.update(max_width=1000)).maximum
        console = Console(highlight=False, width=max(100, wide))
    console.print(text)


def terminal(filled: Filled) -> Group:
    """What a rich console prints."""
    page = sheet(filled)
    table = RichTable(box=box.SIMPLE, pad_edge=False)
    for name in ("method", ""):
        table.add_column(name)
    for name in page.columns:
        table.add_column(Text(name), justify="right")
    for line in flat(page):
        if line.apart:
            table.add_section()
        style = {"published": "dim", "difference": "dim", "group": "bold"}.get(line.kind, "")
        texts = [Text(text, style=STYLES.get(text, style)) for text in line.texts]
        table.add_row(
            Text(line.method, style=style if line.kind == "group" else ""), Text(line.label, style=style), *texts
        )
    above = [Text(page.title, style="bold"), *(Text(text, style="bold reverse") for text in page.banner)]
    above += [Text(text) for text in page.above]
    return Group(*above, table, *(Text(text) for text in page.below))


def markdown(filled: Filled) -> str:
    """Begins with the command that makes it; the table is of the kind that GitHub shows."""
    import pandas

    page = sheet(filled)
    rows = []
    for line in flat(page):
        method = f"**{line.method}**" if line.kind == "group" else line.method
        rows.append([_safe(text) for text in (method, line.label, *line.texts)])
    frame = pandas.DataFrame(rows, columns=["method", "", *map(_safe, page.columns)])
    align = ["left", "left", *["right"] * len(page.columns)]
    table: str = frame.to_markdown(index=False, disable_numparse=True, colalign=align if rows else None)
    banner = [f"**{text}**" for text in page.banner]
    head = [f"# {page.title}", f"```bash\n{page.command}\n```", *banner, *page.about]
    return "\n\n".join([*head, table, "\n".join(f"* {text}" for text in page.below)]) + "\n"


def _safe(text: str) -> str:
    return text.replace("|", "\\|")


def csv(filled: Filled) -> str:
    """One line per cell, unrounded, with everything that it was computed from."""
    import pandas

    lines = [line for line in filled.lines if not (filled.scale and line.row.experiment is None)]
    rows = [_record(filled, line, cell) for line in lines for cell in line.cells.values()]
    frame = pandas.DataFrame(rows, columns=list(rows[0]) if rows else None, dtype=object)  # whole numbers stay so
    text: str = frame.to_csv(index=False)
    return text


def _record(filled: Filled, line: Line, cell: Cell) -> dict[str, object]:
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
    "markdown": (".md", markdown),
    "latex": (".tex", latex),
    "csv": (".csv", csv),
    "html": (".html", html),
}
