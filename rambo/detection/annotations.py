"""Image sets and annotations as Pascal VOC keeps them: text lists, and XML that is read by tag name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image

from harness.data.images import decode, files_below
from harness.data.spreadsheet import read_text

Box = tuple[float, float, float, float]
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGGED = re.compile(r"\S+\s+(-1|0|1)")
_EXIF_ORIENTATION = 0x0112
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Thing(NamedTuple):
    """An object as an annotation has it: corners in the file's own coordinates, which count pixels from 1."""

    name: str
    corners: Box
    difficult: bool


class Annotation(NamedTuple):
    """What one XML file says: its objects, and width and height of the image if it gives them."""

    path: Path
    size: tuple[int, int] | None
    things: list[Thing]


def listed(folder: Path, list_folder: str, name: str, title: str, remedy: str) -> list[str]:
    """The ids of an image set, in the order of its list."""
    lists = folder / list_folder
    path = lists / f"{name}.txt"
    if not path.is_file():
        if not folder.is_dir() or not lists.is_dir():
            raise FileNotFoundError(f"no {title} in {folder} ({list_folder} is missing); {remedy}")
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


def stored_images(folder: Path) -> dict[str, Path]:
    """Id -> image file, for all of a folder at once; where an id has several files, the first of `ENDINGS` counts."""
    stored: dict[str, Path] = {}
    for path in files_below(folder) if folder.is_dir() else ():
        if path.suffix.lower() in ENDINGS and not path.name.startswith("._"):
            id_ = path.relative_to(folder).with_suffix("").as_posix()
            rival = stored.get(id_)
            if rival is None or _rank(path) < _rank(rival):
                stored[id_] = path
    return stored


def _rank(path: Path) -> tuple[int, str]:
    return ENDINGS.index(path.suffix.lower()), path.name


def incomplete(title: str, folder: Path, name: str, what: str, lost: list[str], of: int, remedy: str) -> str:
    """The sentence for files that are missing: how many, and the first names."""
    first = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
    return (
        f"{title} in {folder} is incomplete: {len(lost):,} of {of:,} {what} of {name} are missing ({first}); {remedy}"
    )


def read_annotation(path: Path) -> Annotation:
    """Reads one XML file.

    Only direct children count: in Pascal VOC an object of class person can have `<part>` elements with a name and a box
    of their own. The order of tags differs between the years, and some boxes of 2012 are decimal numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not parse, or an object lacks a name or a box, or a number is none.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise FileNotFoundError(f"no annotation {path}; the data are incomplete: check them") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two: an unknown encoding
        raise ValueError(
            f"{path} is not XML that can be read ({error}); repair it, or take its image off the list"
        ) from error
    if root.tag != "annotation":
        raise ValueError(
            f"{path} holds <{root.tag}> where <annotation> was wanted; repair it, or take its image off the list"
        )
    things = [_thing(element, number, path) for number, element in enumerate(root.findall("object"), 1)]
    return Annotation(path, _size(root, path), things)


def _thing(element: ElementTree.Element, number: int, path: Path) -> Thing:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{path}: object {number} has no <name>; give it one, or remove the object")
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"{path}: object {number}, {name!r}, has no <bndbox>; give it one, or remove the object")
    corners = tuple(_number(box, tag, f"{path}: the box of object {number}, {name!r},") for tag in _CORNERS)
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{path}: <difficult> of object {number}, {name!r}, must be 0 or 1, got {difficult!r}")
    return Thing(name, (corners[0], corners[1], corners[2], corners[3]), difficult == "1")


def _number(element: ElementTree.Element, tag: str, what: str) -> float:
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"{what} has no <{tag}>; it needs {', '.join(_CORNERS)}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} has {text.strip()!r} for <{tag}> where a number should stand")
    return number


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int] | None:
    """Width and height; None where the annotation has none, or zeros, as some tools write."""
    element = root.find("size")
    if element is None or element.find("width") is None or element.find("height") is None:
        return None
    width, height = (int(_number(element, tag, f"{path}: the size of the image")) for tag in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else None


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
