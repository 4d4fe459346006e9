"""JPEGs decoded by libjpeg-turbo without a detour (simplejpeg): the pixels of Pillow, sooner, or a reduced picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

try:
    import simplejpeg
except ImportError:  # Pillow decodes
    simplejpeg = None

_COLOURS = ("YCbCr", "Gray", "RGB")  # Pillow has rules of its own for the others
_LEAST = 8  # pixels of a side to which a picture is reduced


def available() -> bool:
    """Whether JPEGs can be decoded here to the pixels that Pillow makes of them."""
    # Pillow may have been built with another library, whose pixels differ
    return simplejpeg is not None and bool(features.check_feature("libjpeg_turbo"))


@dataclass(frozen=True)
class Jpeg:
    """A JPEG of which the head has been read; its size is that of the upright picture, where that is asked for."""

    content: bytes
    height: int
    width: int
    orientation: int  # of EXIF, 1 to 8

    @classmethod
    def opened(cls, content: bytes, upright: bool) -> Jpeg | None:
        """What a file holds, if that is a usual JPEG; None leaves the file to Pillow, and what is wrong with it too."""
        if not available():
            return None
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError:
            return None
        if colours not in _COLOURS or height * width > (Image.MAX_IMAGE_PIXELS or height * width):
            return None
        orientation = _orientation(content) if upright else 1
        return cls(content, *((width, height) if orientation >= 5 else (height, width)), orientation)

    def pixels(self, least: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """The picture as uint8 (height, width, 3), or None if the file is damaged, for Pillow to judge.

        `least` are the height and width that will do, if not all are needed: the picture is then decoded at an eighth,
        a quarter or half of its size, the first that has as many, by leaving frequencies out.
        """
        wanted = {} if least is None else self._reduced(*least)
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(self.content, **wanted)
        except ValueError:
            return None
        return _turned(pixels, self.orientation)

    def _reduced(self, height: int, width: int) -> dict[str, int]:
        parts = min(self.height // max(height, _LEAST), self.width // max(width, _LEAST))
        if parts < 2:
            return {}
        part = next(part for part in (8, 4, 2) if part <= parts)
        sides = -(-self.height // part), -(-self.width // part)
        return dict(zip(("min_height", "min_width"), sides[::-1] if self.orientation >= 5 else sides, strict=True))


def _orientation(content: bytes) -> int:
    """What EXIF or XMP says, as Pillow reads them; without either, which begin with a marker of their own, 1."""
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] not in (b"\xda", b"\xe1", b"\xff"):
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    if content[place : place + 2] == b"\xff\xda":  # the pixels follow
        return 1
    with Image.open(io.BytesIO(content)) as image:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == 1:
        return pixels
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    down, right = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    copied: NDArray[np.uint8] = turned[::down, ::right].copy()
    return copied
