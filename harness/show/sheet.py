"""A table as text, whatever it is about, and its writers: terminal, Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined
from markupsafe import Markup, escape
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

OF_LINES = {"group": "bold", "published": "dim", "difference": "dim", "told apart": "bold"}  # styles, by kind
OF_CELLS = {"reproduced": "green", "below": "yellow", "above": "yellow", "failed": "red"}  # by what they say
LATEX = {  # what means something to LaTeX, or that its plain fonts lack
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≤": r"$\le$", "≥": r"$\ge$", "–": "--", "—": "---", "“": "``", "”": "''",
    "’": "'", "α": r"$\alpha$", "γ": r"$\gamma$", "λ": r"$\lambda$", "τ": r"$\tau$",
}  # fmt: skip
LINES_OF_A_PAGE = 30  # with the notes below


@dataclass(frozen=True)
class Line:
    """A line of a table: a text for every column, or for the first alone the name of a group.

    Its `kind` says what it is, for its looks: group, published, ours, difference, verdict, ...; `apart` asks for room
    above it.
    """

    cells: Sequence[str]
    kind: str = ""
    apart: bool = False


@dataclass(frozen=True)
class Sheet:
    """The texts of a table.

    Attributes:
        columns: Their heads.
        lines: As they are printed.
        words: How many columns at the start hold words; the others hold numbers, which are set to the right.
        title: Above all.
        banner: A warning that no reader may miss.
        above: Sentences that a reader needs before the table.
        below: Sources and remarks.
        command: What makes the table.
        name: For links to it.
    """

    columns: Sequence[str]
    lines: Sequence[Line]
    words: int = 1
    title: str = ""
    banner: str = ""
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    command: str = ""
    name: str = ""

    @property
    def introduction(self) -> list[str]:
        """What stands above the table, with the command that makes it."""
        return [*self.above, *([f"Made by: {self.command}"] if self.command else [])]


def show(*sheets: Sheet, title: str = "", banner: str = "", notes: Sequence[str] = ()) -> None:
    """Prints tables between what is said of all; as wide as they are where the output is no terminal but a file."""
    console = Console(highlight=False)
    shown: list[Group | Text] = [*_head(title, banner), *map(terminal, sheets), *map(Text, notes)]
    if not console.is_terminal:
        unlimited = console.options.update(max_width=1000)
        console.width = max(100, *(console.measure(part, options=unlimited).maximum for part in shown))
    for part in shown:
        console.print(part)


def _head(title: str, banner: str) -> list[Text]:
    titles = [Text(title, style="bold")] if title else []
    return [*titles, *([Text(banner, style="bold reverse")] if banner else [])]


def terminal(sheet: Sheet) -> Group:
    """What a rich console prints."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for k, column in enumerate(sheet.columns):
        table.add_column(Text(column), justify="left" if k < sheet.words else "right", overflow="fold")
    for line in sheet.lines:
        if line.apart:
            table.add_section()
        style = OF_LINES.get(line.kind, "")
        first = Text(line.cells[0], style=style if line.kind == "group" else "")
        table.add_row(first, *(Text(cell, style=OF_CELLS.get(cell, style)) for cell in line.cells[1:]))
    return Group(*_head(sheet.title, sheet.banner), *map(Text, sheet.introduction), table, *map(Text, sheet.below))


def markdown(sheet: Sheet) -> str:
    """A page that begins with its title and the command that makes it."""
    banner = [f"**{sheet.banner}**"] if sheet.banner else []
    return markdown_page(sheet.title, sheet.command, [*banner, *sheet.above, markdown_table(sheet)], sheet.below)


def markdown_page(title: str, command: str, parts: Sequence[str], notes: Sequence[str]) -> str:
    """A page of tables and texts, with the notes as a list at its end."""
    head = [f"# {title}", f"```bash\n{command}\n```"]
    return "\n\n".join(filter(None, [*head, *parts, "\n".join(f"* {note}" for note in notes)])) + "\n"


def markdown_table(sheet: Sheet) -> str:
    """The table alone, as GitHub shows it."""
    rule = ["---" if k < sheet.words else "---:" for k in range(len(sheet.columns))]
    rows = [list(map(_markdown, sheet.columns)), rule]
    for line in sheet.lines:
        first, *rest = map(_markdown, line.cells)
        rows.append([f"**{first}**" if line.kind == "group" else first, *rest])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def latex(sheet: Sheet) -> str:
    """A table, or a longtable where it has too many lines for a page; needs \\usepackage{booktabs,longtable}."""
    text: str = template("table.tex.j2").render(sheet=sheet, long=len(sheet.lines) > LINES_OF_A_PAGE)
    return text


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Records under the names of the first; numbers are not rounded, and None is an empty cell."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def html(sheet: Sheet) -> str:
    """A page that needs nothing beside it."""
    text: str = template("table.html.j2").render(sheet=sheet)
    return text


def data_uri(kind: str, content: bytes) -> str:
    """A file, such as an `image/png`, as part of a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def template(name: str) -> Any:
    """A template of this package; `sheet.html.j2` is how a Sheet looks on all pages."""
    environment = Environment(
        loader=PackageLoader("harness.show"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if name.endswith(".tex.j2"):  # where braces and % mean something
        environment = environment.overlay(
            block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
            comment_start_string="<#", comment_end_string="#>", autoescape=False, keep_trailing_newline=True,
        )  # fmt: skip
    if name.endswith(".md.j2"):
        environment = environment.overlay(autoescape=False, undefined=Undefined)  # much may be unknown
    environment.filters |= {"breakable": _breakable, "latex": _latex, "markdown": _escaped}
    return environment.get_template(name)


def _escaped(text: str) -> str:
    """On one line of Markdown, as nothing but text."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(str(text).split()))


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _breakable(text: str) -> Markup:
    """Between its words, and inside one that is too long after a sign."""
    words = (re.sub(r"([_=,/]|\.(?!\d))", r"\1<wbr>", str(escape(word))) for word in text.split(" "))
    return Markup(" ".join(f'<span class="word">{word}</span>' for word in words))
