"""A filled table as LaTeX and as HTML."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence

from harness.show.table_sheet import Flat, Sheet, command, flat, sheet
from harness.study.table_cells import Filled

LATEX = {  # what means something to LaTeX, or that its plain fonts lack
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≤": r"$\le$", "≥": r"$\ge$", "–": "--", "—": "---", "“": "``", "”": "''",
    "’": "'", "α": r"$\alpha$", "γ": r"$\gamma$", "λ": r"$\lambda$", "τ": r"$\tau$",
}  # fmt: skip
LINES_OF_A_PAGE = 30  # with the notes below
STYLE_SHEET = """
:root { color-scheme: light dark; --line: #8886; --quiet: #666; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
.banner { border: 2px solid; font-weight: bold; padding: .5rem 1rem; }
.wide { margin: 1.2rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { display: none; }
th, td { padding: .15rem .6rem; text-align: right; vertical-align: top; white-space: nowrap; }
th.col0, td.col0, th.col1, td.col1 { text-align: left; }
td.col0 { min-width: 8rem; white-space: normal; }
thead th { border-bottom: 2px solid var(--line); }
td.apart { border-top: 1px solid var(--line); }
td.group { font-style: italic; padding-top: .8rem; }
td.group.col0 { max-width: 0; overflow: visible; white-space: nowrap; }
td.published, td.difference { color: var(--quiet); }
td.published.col0 { color: inherit; }
td.reproduced { font-weight: bold; }
p.above, p.below { margin: .4rem 0; }
.below { color: var(--quiet); font-size: .85em; }
@media print { body { margin: 0; max-width: none; font-size: 9pt; } .wide { overflow: visible; } }
"""


def latex(filled: Filled) -> str:
    """A table, or a longtable where it has too many lines for a page; needs \\usepackage{booktabs,longtable}."""
    import pandas

    page = sheet(filled)
    lines = flat(page)
    long = len(lines) > LINES_OF_A_PAGE
    rows = [[_latex(line.method), _latex(line.label), *map(_latex, line.texts)] for line in lines]
    header = ["method", "", *map(_latex, page.columns)]
    floating = {} if long else {"position": "htbp", "position_float": "centering"}
    text: str = pandas.DataFrame(rows, columns=header).style.hide(axis="index").to_latex(
        hrules=True, column_format="ll" + "r" * len(page.columns), caption=_latex(page.title), label=f"tab:{page.name}",
        environment="longtable" if long else "table", **floating,
    )  # fmt: skip
    first, last = ("\\endlastfoot\n", "\\end{longtable}\n") if long else ("\\midrule\n", "\\bottomrule\n")
    begin, _, rest = text.partition(first)
    body, _, end = rest.partition(last)
    printed = [_spaced(line, row, len(header)) for line, row in zip(lines, body.splitlines(), strict=True)]
    notes = [f"{_latex(line)}\\par" for line in [*page.banner, *page.above, *page.below]]
    below = "\n".join(["\\par\\smallskip{\\raggedright\\footnotesize", *notes, "}"])
    parts = [begin + first.rstrip(), *printed, last.rstrip(), end.replace("\\end{table}", f"{below}\n\\end{{table}}")]
    small = "\\footnotesize\\setlength{\\tabcolsep}{4pt}"  # a float forgets what was set before it
    parts[0] = parts[0].replace("\\centering", f"\\centering{small}")
    if long:
        parts = [f"\\begingroup{small}", *parts, below, "\\endgroup\n"]
    return "\n".join([f"% {command(filled)}", *(part for part in parts if part)])


def _spaced(line: Flat, row: str, columns: int) -> str:
    """The printed row with room above a new method; of a group, its name across all columns."""
    if line.kind == "group":
        row = f"\\multicolumn{{{columns}}}{{l}}{{\\textit{{{_latex(line.method)}}}}} \\\\"
    return f"\\addlinespace\n{row}" if line.apart else row


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def html(filled: Filled) -> str:
    """A page that needs nothing beside it."""
    page = sheet(filled)
    title = escaping.escape(page.title)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            f'<head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE_SHEET}</style></head>",
            f"<body><h1>{title}</h1>",
            *_paragraphs("banner", page.banner),
            *_paragraphs("above", page.above),
            html_table(page),
            *_paragraphs("below", page.below),
            "</body></html>\n",
        ]
    )


def html_table(page: Sheet) -> str:
    """The table alone, for another page; its cells have the classes that `STYLE_SHEET` styles."""
    import pandas
    from pandas.io.formats.style import Styler

    lines, header = flat(page), ["method", "", *page.columns]
    frame = pandas.DataFrame([[line.method, line.label, *line.texts] for line in lines], columns=header)
    classes = pandas.DataFrame([_classes(line) for line in lines], columns=header)
    styler = Styler(frame, uuid=page.name, cell_ids=False).hide(axis="index")
    styler = styler.format(escape="html").format_index(escape="html", axis=1).set_td_classes(classes)
    return f'<div class="wide">{styler.to_html()}</div>'


def _classes(line: Flat) -> list[str]:
    """Of every cell: the kind of its line, and of a verdict what it says."""
    common = f"{line.kind} apart" if line.apart else line.kind
    said = [text.replace(" ", "_") if line.kind == "verdict" else "" for text in line.texts]
    return [common, common, *(f"{common} {word}".strip() for word in said)]


def _paragraphs(kind: str, lines: Sequence[str]) -> list[str]:
    return [f'<p class="{kind}">{escaping.escape(line)}</p>' for line in lines]
