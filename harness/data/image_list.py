"""Images by name, below one folder, with what a table says of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.images import Crop
from harness.data.inputs import TABLES, column_of_pictures, listed, pictures
from harness.data.rows import is_lost
from harness.data.spreadsheet import read_spreadsheet
from harness.words import numbered


@dataclass(frozen=True)
class ImageList:
    """Images in order, and what a table says of each.

    Attributes:
        root: A folder, absolute.
        names: Their paths below it, or absolute where they lie elsewhere.
        columns: A text for each image, by the name of the column; of a table all columns but that of the paths.
        crops: What of each image is meant, None: all of it; or None, if that is so of every one.
    """

    root: Path
    names: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)
    crops: list[Crop | None] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paths(self) -> list[str]:
        """Their files, absolute."""
        root = str(self.root)
        return [os.path.join(root, name) for name in self.names]

    @property
    def entries(self) -> list[str | tuple[str, Crop]]:
        """Each as `harness.data.reading.Images` reads it: the file, or a pair of file and crop."""
        pairs = zip(self.paths, self._crops(), strict=True)
        return [path if crop is None else (path, crop) for path, crop in pairs]

    @property
    def titles(self) -> list[str]:
        """The name of each, with its crop."""
        pairs = zip(self.names, self._crops(), strict=True)
        return [name if crop is None else f"{name} {crop}" for name, crop in pairs]

    def _crops(self) -> list[Crop | None]:
        return self.crops or [None] * len(self)

    def some(self, which: Sequence[int]) -> ImageList:
        """Those at the places `which`."""
        columns = {name: [texts[i] for i in which] for name, texts in self.columns.items()}
        crops = None if self.crops is None else [self.crops[i] for i in which]
        return ImageList(self.root, [self.names[i] for i in which], columns, crops)

    def followed_by(self, others: ImageList) -> ImageList:
        """These and others, below the folder of both; a column that one of them lacks is "" for its images."""
        names = list(dict.fromkeys([*self.columns, *others.columns]))
        both = ((one.columns.get(name, [""] * len(one)) for one in (self, others)) for name in names)
        columns = {name: [*first, *second] for name, (first, second) in zip(names, both, strict=True)}
        root = Path(os.path.commonpath([self.root, others.root]))
        crops = [*self._crops(), *others._crops()] if self.crops or others.crops else None
        return _below(root, [*self.paths, *others.paths], columns, crops)

    def not_among(self, others: ImageList) -> ImageList:
        """Those that are not among others."""
        known = set(others.entries)
        return self.some([i for i, entry in enumerate(self.entries) if entry not in known])

    def check(self) -> None:
        """Refuses files that are missing or empty, all at once."""
        lost = [path for path in self.paths if is_lost(path)]
        if lost:
            more = ", ..." if len(lost) > 3 else ""
            raise FileNotFoundError(
                f"{len(lost):,} of {len(self):,} images are missing or empty ({', '.join(lost[:3])}{more})"
            )


def image_list(*given: str | Path, column: str | None = None) -> ImageList:
    """The images that `harness.data.inputs.pictures` finds in one or several files and folders.

    Of a table that is given alone, `column` holds the paths (None: see there), the others are kept, and crops hold.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there is no image or no such column, one is there twice, or has a name that cannot be written.
    """
    told = " ".join(map(str, given))
    places = [Path(os.path.abspath(Path(one).expanduser())) for one in given]
    columns, crops = dict[str, list[str]](), None
    if len(places) == 1 and places[0].suffix.lower() in TABLES and places[0].is_file():
        sheet = read_spreadsheet(places[0])
        name = column_of_pictures(sheet) if column is None else sheet.needed(column)
        paths, crops = listed(sheet, name), sheet.crops([name])
        columns = {other: [row[other] for row in sheet.rows] for other in sheet.header if other != name}
    elif column is not None:
        raise ValueError(f"a column is chosen in a table ({', '.join(sorted(TABLES))}), and {told} is none")
    else:
        paths = [path for place in places for path in pictures(place)]
    root = os.path.commonpath([place if place.is_dir() else place.parent for place in places])
    found = _below(Path(root), paths, columns, crops)
    if twice := len(found) - len(set(found.entries)):
        raise ValueError(f"{told} names {numbered(twice, 'image')} more than once; leave one of each")
    try:
        "\n".join(found.names).encode()
    except UnicodeEncodeError as error:
        name = error.object[: error.end].splitlines()[-1]
        raise ValueError(f"{told} has an image whose name is no text, {name!r} ...; rename it") from error
    return found


def _below(
    root: Path, paths: Sequence[str | Path], columns: dict[str, list[str]], crops: list[Crop | None] | None
) -> ImageList:
    plain = [os.path.normpath(path) for path in paths]
    inside = os.path.join(root, "")
    return ImageList(root, [path.removeprefix(inside) for path in plain], columns, crops)
