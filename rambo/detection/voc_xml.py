"""Pascal VOC's way to keep objects in images: text lists and XML, read, checked and written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from xml.parsers import expat

from harness.data.spreadsheet import read_text
from rambo.detection.annotations import ENDINGS, Annotation, Thing, check_lost, check_once

LISTS = "ImageSets/Main"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGGED = re.compile(r"\S+\s+(-1|0|1)")


def read_image_set(folder: Path, name: str, label: str, title: str, remedy: str) -> list[Annotation]:
    """The annotations of an image set in the order of its list; the names of images begin with `label`.

    Raises:
        FileNotFoundError: If the list is missing, or some file that it calls for.
        ValueError: If the list is no list of ids, or an annotation is faulty.
    """
    ids = _listed(folder, name, title, remedy)
    notes = {id_: path for id_ in ids if os.path.isfile(path := folder / "Annotations" / f"{id_}.xml")}
    images = {id_: image for id_ in ids if (image := _image_file(folder / "JPEGImages" / id_))}
    for what, found in (("annotations", notes), ("images", images)):
        check_lost([id_ for id_ in ids if id_ not in found], f"{len(ids):,} {what} of {name}", title, folder, remedy)
    return [_read(f"{label}{id_}", images[id_], notes[id_]) for id_ in ids]


def _listed(folder: Path, name: str, title: str, remedy: str) -> list[str]:
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
    check_once(ids, path)
    return ids


def _image_file(path: Path) -> Path | None:
    """The image at a path without its ending; where there are several, the first of the endings counts."""
    files = (Path(f"{path}{ending}") for ending in ENDINGS)
    return next((file for file in files if os.path.isfile(file)), None)


def _read(name: str, image: Path, path: Path) -> Annotation:
    """Reads direct children alone: in Pascal VOC a person can have `<part>` elements with a name and a box."""
    try:
        root = ElementTree.fromstring(_without_entities(path.read_bytes()))
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last of encodings
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


def _without_entities(content: bytes) -> bytes:
    """The same; a ValueError says if it declares entities: a few may stand for gigabytes, or for other files."""

    def refuse(*declared: object) -> Any:
        raise ValueError("it declares entities or refers to a DTD, which no annotation needs")

    reader = expat.ParserCreate()
    reader.EntityDeclHandler = reader.ExternalEntityRefHandler = refuse
    reader.StartDoctypeDeclHandler = lambda name, system, public, inside: refuse() if system or public else None
    reader.Parse(content, True)
    return content


def _thing(element: Element, what: str) -> Thing:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{what} has no <name>; give it one, or remove the object")
    what = f"{what}, {name!r},"
    if element.find("bndbox") is None:
        raise ValueError(f"{what} has no <bndbox>; give it one, or remove the object")
    left, top, right, bottom = (_number(element, f"bndbox/{tag}", what) for tag in _CORNERS)
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{what} must have 0 or 1 for <difficult>, got {difficult!r}")
    return Thing(name, (left, top, right, bottom), difficult == "1")


def _number(element: Element, where: str, what: str) -> float:
    text, tag = element.findtext(where), where.rpartition("/")[2]
    if text is None:
        raise ValueError(f"{what} has no <{tag}>; it needs {', '.join(_CORNERS)}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} has {text.strip()!r} for <{tag}> where a number should stand")
    return number


def filled(element: Element, **texts: object) -> Element:
    """The element, with another in it for each text."""
    for tag, text in texts.items():
        SubElement(element, tag).text = str(text)
    return element


def add_box(element: Element, corners: Sequence[int]) -> None:
    """Gives an object its box: xmin, ymin, xmax, ymax."""
    filled(SubElement(element, "bndbox"), **dict(zip(_CORNERS, corners, strict=True)))
