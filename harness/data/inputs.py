"""What a command is told to read: a picture, all below a folder, or those that a text or a table lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.images import files_below
from harness.data.spreadsheet import Spreadsheet, read_spreadsheet, read_text

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
TABLES = {".csv", ".tsv", ".tab"}
COLUMNS = ("path", "image", "file", "filename")  # in which a table names pictures, the first that it has
TRIED = 100  # listed paths, to see where they begin


def pictures(given: str | Path) -> list[Path]:
    """The pictures that a path means, whether they can be read or not.

    A file with the ending of a picture is that picture; a folder means all below it in the order of their names, hidden
    ones passed over; a text (.txt) has a path on each line; a table (.csv, .tsv) has them in a column, see
    `column_of_pictures`. Listed paths are absolute, relative to the list or, if none is there, to the current folder.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it means no picture, or is none of these.
    """
    given = Path(given).expanduser()
    kind = given.suffix.lower()
    if given.is_dir():
        below = sorted(path.relative_to(given) for path in files_below(given) if path.suffix.lower() in EXTENSIONS)
        found = [given / path for path in below if not any(name.startswith(".") for name in path.parts)]
    elif not given.is_file():
        raise FileNotFoundError(f"there is no {given}; name a picture, a folder of pictures, or a list of them")
    elif kind in EXTENSIONS:
        return [given]
    elif kind == ".txt":
        found = _rooted(given, [line.strip() for line in read_text(given).splitlines() if line.strip()])
    elif kind in TABLES:
        found = listed(read_spreadsheet(given))
    else:
        raise ValueError(
            f"{given} is no picture ({', '.join(sorted(EXTENSIONS))}), no folder, and no .txt or .csv list"
        )
    if not found:
        raise ValueError(f"{given} has no picture; they end in {', '.join(sorted(EXTENSIONS))}")
    return found


def column_of_pictures(sheet: Spreadsheet) -> str:
    """The first of `COLUMNS` that a table has, else the only one whose texts end as pictures do, else a ValueError."""
    called = next((found for name in COLUMNS if (found := sheet.column(name))), None)
    ending = [n for n in sheet.header if all(Path(row[n]).suffix.lower() in EXTENSIONS for row in sheet.rows)]
    return called or (ending[0] if len(ending) == 1 else sheet.needed(COLUMNS[0]))


def listed(sheet: Spreadsheet, column: str | None = None) -> list[Path]:
    """The pictures that the rows of a table name, one a row; a ValueError if a column or a path is missing."""
    column = column or column_of_pictures(sheet)
    for number, row in enumerate(sheet.rows, start=1):
        if not row[column]:
            raise ValueError(f"{sheet.path}, row {number} names no image; name one, or leave the row out")
    return _rooted(sheet.path, [row[column].replace("\\", "/") for row in sheet.rows])


def _rooted(file: Path, names: list[str]) -> list[Path]:
    there = any(os.path.exists(file.parent / name) for name in names[:TRIED])  # false for what no file can be called
    here = not there and any(os.path.exists(name) for name in names[:TRIED])
    return [(Path.cwd() if here else file.parent) / name for name in names]


def told(skipped: Mapping[int, str], inputs: Sequence[object]) -> list[str]:
    """A line for each input that was left out, with the reason, and one that counts them; none if none was.

    Args:
        skipped: As `harness.record.standalone.Trained.answers` fills it.
        inputs: All that were given.
    """
    lines = [f"left out: {reason}" for reason in skipped.values()]
    return [*lines, f"{len(skipped):,} of {len(inputs):,} inputs could not be read and were left out"] if lines else []
