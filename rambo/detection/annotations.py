"""Image sets and annotations as Pascal VOC keeps them: text lists, and XML that is read by tag name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image

from harness.data.images import decode
from harness.data.spreadsheet import read_text

Box = tuple[float, float, float, float]
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LISTS = "ImageSets/Main"
_FLAGGED = re.compile(r"\S+\s+(-1|0|1)")
_EXIF_ORIENTATION = 0x0112
_FORMATS = ("jpg", "jpeg", "png", "bmp", "webp")
_ENDINGS = [f".{ending}" for name in _FORMATS for ending in (name, name.upper(), name.capitalize())]


class Thing(NamedTuple):
    """An object as an annotation has it: corners in the file's own coordinates, which count pixels from 1."""

    name: str
    corners: Box
    difficult: bool


class Annotation(NamedTuple):
    """An image by name, its file, and what the XML file at `path` says: its size, if that is there, and its objects."""

    name: str
    image: Path
    path: Path
    size: tuple[int, int] | None
    things: list[Thing]


def listed(folder: Path, name: str, title: str, remedy: str) -> list[str]:
    """The ids of an image set, in the order of its list."""
    lists = folder / LISTS
    path = lists / f"{name}.txt"
    if not lists.is_dir():
        raise FileNotFoundError(f"no {title} in {folder} ({LISTS} is missing); {remedy}")
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)) or "none"
        raise FileNotFoundError(
            f"{title} in {folder} has no image set {name} ({path} is missing; there: {there}); {remedy}"
        )
    ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not ids:
        raise ValueError(f"{path} lists no image; {remedy}")
    if all(_FLAGGED.fullmatch(id_) for id_ in ids):
        raise ValueError(
            f"{path} is the list of one class, which has 1, 0 or -1 behind each image; name an image set such as"
            f" {name.rpartition('_')[2]}, or write the ids alone into a list of their own"
        )
    if len(set(ids)) < len(ids):
        twice = next(id_ for place, id_ in enumerate(ids) if id_ in ids[:place])
        raise ValueError(f"{path} lists {twice} twice; take one of the two out")
    return ids


def image_file(path: Path) -> Path | None:
    """The image at a path without its ending; where there are several, the first of the endings counts."""
    files = (path.with_name(path.name + ending) for ending in _ENDINGS)
    return next((file for file in files if file.is_file()), None)


def read_annotation(name: str, image: Path, path: Path) -> Annotation:
    """Reads the XML file of an image.

    Only direct children count: in Pascal VOC an object of class person can have `<part>` elements with a name and a box
    of their own. The order of tags differs between the years, and some boxes of 2012 are decimal numbers.

    Raises:
        ValueError: If it does not parse, or an object lacks a name or a box, or a number is none.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two: an unknown encoding
        raise ValueError(
            f"{path} is not XML that can be read ({error}); repair it, or take its image off the list"
        ) from error
    if root.tag != "annotation":
        raise ValueError(
            f"{path} holds <{root.tag}> where <annotation> was wanted; repair it, or take its image off the list"
        )
    things = [_thing(element, f"{path}: object {number}") for number, element in enumerate(root.findall("object"), 1)]
    size = None
    if root.find("size/width") is not None and root.find("size/height") is not None:
        what = f"{path}: the size of the image"
        width, height = (int(_number(root, f"size/{side}", what)) for side in ("width", "height"))
        size = (width, height) if width > 0 and height > 0 else None  # some tools write zeros
    return Annotation(name, image, path, size, things)


def _thing(element: ElementTree.Element, what: str) -> Thing:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{what} has no <name>; give it one, or remove the object")
    what = f"{what}, {name!r},"
    if element.find("bndbox") is None:
        raise ValueError(f"{what} has no <bndbox>; give it one, or remove the object")
    left, top, right, bottom = (_number(element, f"bndbox/{tag}", what) for tag in CORNERS)
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{what} must have 0 or 1 for <difficult>, got {difficult!r}")
    return Thing(name, (left, top, right, bottom), difficult == "1")


def _number(element: ElementTree.Element, where: str, what: str) -> float:
    text, tag = element.findtext(where), where.rpartition("/")[2]
    if text is None:
        raise ValueError(f"{what} has no <{tag}>; it needs {', '.join(CORNERS)}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} has {text.strip()!r} for <{tag}> where a number should stand")
    return number


def image_size(path: Path, upright: bool = False) -> tuple[int, int]:
    """Width and height, from the head of the file alone.

    Raises:
        OSError: If it holds no picture.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            turned = upright and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        picture = decode(path, upright)  # raises the sentence that names the file
        return picture.shape[2], picture.shape[1]
