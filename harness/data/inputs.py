"""What a command is told to read: a picture, all below a folder, or those that a text or a table lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.images import files_below
from harness.data.spreadsheet import Spreadsheet, read_spreadsheet, read_text

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
TABLES = {".csv", ".tsv", ".tab"}
COLUMNS = ("path", "image", "file", "filename")  # in which a table names pictures, the first that it has


def pictures(given: str | Path) -> list[Path]:
    """The pictures that a path means, whether they can be read or not.

    A file with the ending of a picture is that picture; a folder means all below it in the order of their names, hidden
    ones passed over; a text (.txt) has a path on each line; a table (.csv, .tsv) has them in one of `COLUMNS`. Listed
    paths are absolute, or relative to the list.

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
        found = [given.parent / line.strip() for line in read_text(given).splitlines() if line.strip()]
    elif kind in TABLES:
        found = listed(read_spreadsheet(given))
    else:
        raise ValueError(
            f"{given} is no picture ({', '.join(sorted(EXTENSIONS))}), no folder, and no .txt or .csv list"
        )
    if not found:
        raise ValueError(f"{given} has no picture; they end in {', '.join(sorted(EXTENSIONS))}")
    return found


def listed(sheet: Spreadsheet) -> list[Path]:
    """The pictures that the rows of a table name, one a row; a ValueError if a column or a path is missing."""
    column = next((found for name in COLUMNS if (found := sheet.column(name))), None) or sheet.needed(COLUMNS[0])
    for number, row in enumerate(sheet.rows, start=1):
        if not row[column]:
            raise ValueError(f"{sheet.path}, row {number} names no image; name one, or leave the row out")
    return [sheet.path.parent / row[column].replace("\\", "/") for row in sheet.rows]


def told(skipped: Mapping[int, str], inputs: Sequence[object]) -> list[str]:
    """A line for each input that was left out, with the reason, and one that counts them; none if none was.

    Args:
        skipped: As `harness.record.standalone.Trained.answers` fills it.
        inputs: All that were given.
    """
    lines = [f"left out: {reason}" for reason in skipped.values()]
    return [*lines, f"{len(skipped):,} of {len(inputs):,} inputs could not be read and were left out"] if lines else []
