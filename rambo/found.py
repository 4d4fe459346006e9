"""What was found for queries in a gallery: as records, as a table and as a page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from harness.data.image_list import ImageList
from harness.show import neighbours_page
from harness.show.neighbours_page import Pictured
from harness.show.sheet import Line, Sheet
from harness.words import numbered

IN_TERMINAL, ON_PAGE = 20, 200  # queries that are shown


@dataclass(frozen=True)
class Found:
    """What was found, best first.

    Attributes:
        queries, gallery: The images.
        similarities: float32 (queries, k).
        places: Where they stand in the gallery, int64 (queries, k).
    """

    queries: ImageList
    gallery: ImageList
    similarities: Tensor
    places: Tensor

    def _rows(self, most: int | None = None) -> Iterator[tuple[int, list[tuple[float, int]]]]:
        """The number of each query, and similarity and place of what was found for it."""
        for number, (values, places) in enumerate(zip(self.similarities[:most], self.places[:most], strict=True)):
            yield number, list(zip(values.tolist(), places.tolist(), strict=True))

    def _shortened(self, most: int, where: str) -> list[str]:
        over = len(self.queries) - most
        return [f"the first {most} of {len(self.queries):,} queries; --csv FILE {where}"] if over > 0 else []

    def records(self) -> list[dict[str, object]]:
        """Files of query and found image, the rank of this, the similarity, and what the gallery says of the image."""
        asking, there = self.queries.paths, self.gallery.paths
        return [
            {"query": asking[number], "rank": rank, "similarity": round(value, 6), "found": there[place]}
            | {name: texts[place] for name, texts in self.gallery.columns.items()}
            for number, found in self._rows()
            for rank, (value, place) in enumerate(found, start=1)
        ]

    def sheet(self) -> Sheet:
        """The first queries, for the terminal."""
        asking, there = self.queries.titles, self.gallery.titles
        heads, lines = ["query", "found", *self.gallery.columns, "similarity"], list[Line]()
        for number, found in self._rows(IN_TERMINAL):
            for rank, (value, place) in enumerate(found):
                said = [texts[place] for texts in self.gallery.columns.values()]
                cells = ["" if rank else asking[number], there[place], *said, f"{value:.3f}"]
                lines.append(Line(cells, apart=bool(lines) and not rank))
        below = self._shortened(IN_TERMINAL, "has all")
        return Sheet(heads, lines, words=len(heads) - 1, below=below)

    def write_page(self, path: Path, facts: Mapping[str, str], root: Path | None = None) -> Sequence[str]:
        """Writes the page of the first queries.

        Args:
            path: The HTML file.
            facts: What was searched, and by what.
            root: Folder below which the images of the gallery are now, if elsewhere than when they were embedded.

        Returns:
            A sentence for each thing that is not on it.
        """
        moved = replace(self.gallery, root=root or self.gallery.root)
        rows = [
            (
                _pictured(self.queries, number, "query"),
                [_pictured(moved, place, f"{rank}. {value:.3f}") for rank, (value, place) in enumerate(found, start=1)],
            )
            for number, found in self._rows(ON_PAGE)
        ]
        notes = self._shortened(ON_PAGE, "has all")
        pictures = [p for query, found in rows for p in (query, *found)]
        if gone := {p.path for p in pictures if not os.path.isfile(p.path)}:
            notes.append(
                f"{numbered(len(gone), 'picture')} not found, such as {min(gone)}; --root FOLDER says where those of"
                " the gallery are now"
            )
        title = f"What {numbered(len(rows), 'query').replace('querys', 'queries')} found"
        neighbours_page.write(path, title, facts, rows, notes)
        return notes


def _pictured(images: ImageList, place: int, heading: str) -> Pictured:
    one = images.some([place])
    said = {name: texts[0] for name, texts in one.columns.items() if texts[0]}
    return Pictured(one.paths[0], heading, one.titles[0], said, one.crops[0] if one.crops else None)
