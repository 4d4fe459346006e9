"""A page of queries with what was found for each, complete in itself: small copies of the pictures are inside."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from harness.data.images import Crop, check_kind
from harness.files import write_text
from harness.show.sheet import data_uri, template

SIDE = 192  # of the small copies, in pixels
QUALITY = 85


@dataclass(frozen=True)
class Pictured:
    """A picture of the page.

    Attributes:
        path: Its file; where it cannot be read, the page says so.
        heading: Such as its similarity.
        name: What it is called.
        remarks: What else is known of it.
        crop: What of it is shown, None: all.
    """

    path: str
    heading: str
    name: str
    remarks: Mapping[str, str] = field(default_factory=dict)
    crop: Crop | None = None

    @property
    def uri(self) -> str:
        """The picture as people look at it, no larger than `SIDE`, as part of the page; "" if it cannot be read."""
        try:
            with Image.open(self.path) as image:
                check_kind(image)
                if self.crop is None:
                    image.draft("RGB", (2 * SIDE, 2 * SIDE))
                copy = ImageOps.exif_transpose(image).crop(self.crop).convert("RGB")
        except MemoryError:
            raise
        except Exception:  # whatever a damaged file makes its reader say
            return ""
        small = max(copy.size) <= SIDE
        copy.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        copy.save(file, "PNG" if small else "JPEG", quality=QUALITY)
        return data_uri(f"image/{'png' if small else 'jpeg'}", file.getvalue())


def write(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    rows: Sequence[tuple[Pictured, Sequence[Pictured]]],
    notes: Sequence[str] = (),
) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        title: Its heading.
        facts: What was searched, and by what.
        rows: Each query, and what was found for it.
        notes: Warnings.
    """
    text = template("neighbours.html.j2").render(title=title, facts=facts, rows=rows, notes=notes)
    write_text(path, text)
