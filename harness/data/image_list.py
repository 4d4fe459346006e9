"""Images by name, below one folder, with what a table says of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.inputs import TABLES, column_of_pictures, listed, pictures
from harness.data.rows import is_lost
from harness.data.spreadsheet import read_spreadsheet


@dataclass(frozen=True)
class ImageList:
    """Images in order, and what a table says of each.

    Attributes:
        root: A folder, absolute.
        names: Their paths below it, or absolute where they lie elsewhere.
        columns: A text for each image, by the name of the column; of a table all columns but that of the paths.
    """

    root: Path
    names: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paths(self) -> list[Path]:
        """Their files, absolute."""
        return [self.root / name for name in self.names]

    def some(self, which: Sequence[int]) -> ImageList:
        """Those at the places `which`."""
        columns = {name: [texts[i] for i in which] for name, texts in self.columns.items()}
        return ImageList(self.root, [self.names[i] for i in which], columns)

    def followed_by(self, others: ImageList) -> ImageList:
        """These and others, below the folder of both; a column that one of them lacks is "" for its images."""
        names = list(dict.fromkeys([*self.columns, *others.columns]))
        both = ((one.columns.get(name, [""] * len(one)) for one in (self, others)) for name in names)
        columns = {name: [*first, *second] for name, (first, second) in zip(names, both, strict=True)}
        return _below(Path(os.path.commonpath([self.root, others.root])), [*self.paths, *others.paths], columns)

    def not_among(self, others: ImageList) -> ImageList:
        """Those whose file is not among others."""
        known = set(others.paths)
        return self.some([i for i, path in enumerate(self.paths) if path not in known])

    def check(self) -> None:
        """Refuses files that are missing or empty, all at once."""
        lost = [str(path) for path in self.paths if is_lost(str(path))]
        if lost:
            more = ", ..." if len(lost) > 3 else ""
            raise FileNotFoundError(
                f"{len(lost):,} of {len(self):,} images are missing or empty ({', '.join(lost[:3])}{more})"
            )


def image_list(given: str | Path, column: str | None = None) -> ImageList:
    """The images that `harness.data.inputs.pictures` finds; of a table, `column` holds the paths, None: see there.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there is no image or no such column, one is there twice, or has a name that cannot be written.
    """
    where = Path(os.path.abspath(Path(given).expanduser()))
    columns: dict[str, list[str]] = {}
    if where.suffix.lower() in TABLES and where.is_file():
        sheet = read_spreadsheet(where)
        name = column_of_pictures(sheet) if column is None else sheet.needed(column)
        paths = listed(sheet, name)
        columns = {other: [row[other] for row in sheet.rows] for other in sheet.header if other != name}
    elif column is not None:
        raise ValueError(f"a column is chosen in a table ({', '.join(sorted(TABLES))}), and {given} is none")
    else:
        paths = pictures(where)
    found = _below(where if where.is_dir() else where.parent, paths, columns)
    twice = len(found) - len(set(found.names))
    if twice:
        raise ValueError(f"{given} names {twice:,} images more than once; leave one of each")
    strange = next((name for name in found.names if not name.isprintable()), None)
    if strange is not None:
        raise ValueError(f"{given} has an image with the name {strange!r}, which cannot be written; rename it")
    return found


def _below(root: Path, paths: Sequence[Path], columns: dict[str, list[str]]) -> ImageList:
    plain = [os.path.normpath(path) for path in paths]
    inside = os.path.join(root, "")
    return ImageList(root, [path.removeprefix(inside) for path in plain], columns)
