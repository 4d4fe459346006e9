"""Detection data in the layouts of Pascal VOC, COCO and YOLO with rendered scenes, for tests and trial runs.

Names of files, lists and tags and the oddities are those of the real thing: nested parts of persons, another order of
tags and a decimal box in 2012, in each set an image without objects and one whose only object is difficult, in BCCD a
box of a single pixel. Everything follows from one seed, to the byte for one version of Pillow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from PIL import Image

from harness.data.fixtures import save, stand_in
from rambo.detection.rendering import SHAPES, Drawn, Look, render
from rambo.detection.voc_xml import LISTS, add_box, filled

__all__ = [
    "LAYOUTS",
    "SHAPES",
    "VOC_CLASSES",
    "write_bccd",
    "write_coco",
    "write_flat",
    "write_sets",
    "write_voc",
    "write_yolo",
]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BCCD_CLASSES = ("RBC", "WBC", "Platelets")
_SMALL = Look(width=120, height=90, radius=(0.14, 0.3))
_SPECIAL = {2: "empty", 3: "difficult"}  # place in its set -> what is special about an image


def scenes(
    sets: Mapping[str, int], classes: Sequence[str], look: Look = _SMALL, seed: int = 0
) -> Iterator[tuple[str, int, Image.Image, list[Drawn]]]:
    """The image set of each scene, its number, from 1, its picture and its objects; arguments as of `write_sets`."""
    number = shown = 0
    for part, count in sets.items():
        for place in range(count):
            number, special = number + 1, _SPECIAL.get(place, "")
            chance = np.random.default_rng([seed, number])
            yield part, number, *render(look, chance, len(classes), shown % len(classes), special)
            shown += not special  # so that each class comes first in turn


def write_sets(
    base: Path,
    sets: Mapping[str, int],
    classes: Sequence[str],
    look: Look = _SMALL,
    seed: int = 0,
    name: Callable[[int], str] = "{:06d}".format,
    edit: Callable[[int, Element], None] = lambda number, root: None,
) -> None:
    """Writes `Annotations`, `JPEGImages` and `ImageSets/Main` into `base`; trainval is train and val, if any.

    Args:
        base: The folder; it may be there already.
        sets: Image set -> number of images; no image is in two.
        classes: Names of the classes.
        look: How the scenes look.
        seed: Decides everything.
        name: Number of an image, from 1 -> its id.
        edit: Changes the annotation of an image, whose number it is given.
    """
    ids: dict[str, list[str]] = {part: [] for part in sets}
    for folder in ("Annotations", "JPEGImages", LISTS):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for part, number, picture, objects in scenes(sets, classes, look, seed):
        id_ = name(number)
        save(picture, base / "JPEGImages" / f"{id_}.jpg")
        root = _annotation(base.name, id_, look, objects, classes)
        edit(number, root)
        ElementTree.indent(root, "\t")
        text = ElementTree.tostring(root, "unicode") + "\n"
        (base / "Annotations" / f"{id_}.xml").write_text(text, encoding="utf-8")
        ids[part].append(id_)
    if "train" in ids and "trainval" not in ids:
        ids["trainval"] = sorted(ids["train"] + ids.get("val", []))
    for part, listed in ids.items():
        (base / LISTS / f"{part}.txt").write_text("".join(f"{id_}\n" for id_ in listed), encoding="utf-8")


def _annotation(folder: str, id_: str, look: Look, objects: Sequence[Drawn], classes: Sequence[str]) -> Element:
    root = filled(Element("annotation"), folder=folder, filename=f"{id_}.jpg", size="", segmented=0)
    filled(root[2], width=look.width, height=look.height, depth=3)
    for drawn in objects:
        flags = {"truncated": int(drawn.truncated), "difficult": int(drawn.difficult)}
        element = filled(SubElement(root, "object"), name=classes[drawn.kind], pose="Unspecified", **flags)
        add_box(element, drawn.corners)
    return root


def _with_parts(number: int, root: Element) -> None:
    """Persons of Pascal VOC can have parts with names and boxes of their own."""
    for element in root.findall("object[name='person']") if number % 2 else ():
        add_box(filled(SubElement(element, "part"), name="head"), (1, 1, 9, 9))


def _as_in_2012(number: int, root: Element) -> None:
    """The name comes after the box there, and a few corners are decimal numbers."""
    for element in root.findall("object"):
        element.append(element[0])
        del element[0]
    for left in root.findall("object[1]/bndbox/xmin") if number == 1 else ():
        left.text = f"{left.text}.70000076293945"


def _with_a_click(number: int, root: Element) -> None:
    """Two boxes of BCCD are a single point."""
    if number == 2:
        add_box(filled(SubElement(root, "object"), name="RBC"), (50, 40, 50, 40))


def write_coco(base: Path, sets: Mapping[str, int], classes: Sequence[str], look: Look = _SMALL, seed: int = 0) -> None:
    """The scenes of `write_sets` in COCO's layout: `<set>/<number>.jpg` and `annotations/<set>.json`."""
    said: dict[str, dict[str, list[dict[str, Any]]]] = {}
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    for part, number, picture, objects in scenes(sets, classes, look, seed):
        here = said.setdefault(part, {"images": [], "annotations": [], "categories": categories})
        (base / part).mkdir(parents=True, exist_ok=True)
        save(picture, base / part / f"{number:06d}.jpg")
        size = {"width": look.width, "height": look.height}
        here["images"].append({"id": number, "file_name": f"{number:06d}.jpg", **size})
        for drawn in objects:
            left, top, right, bottom = drawn.corners
            box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            entry = {"id": len(here["annotations"]) + 1, "image_id": number, "category_id": drawn.kind + 1, "bbox": box}
            here["annotations"].append({**entry, "area": box[2] * box[3], "iscrowd": int(drawn.difficult)})
    (base / "annotations").mkdir(parents=True, exist_ok=True)
    for part, content in said.items():
        (base / "annotations" / f"{part}.json").write_text(json.dumps(content), encoding="utf-8")


def write_yolo(base: Path, sets: Mapping[str, int], classes: Sequence[str], look: Look = _SMALL, seed: int = 0) -> None:
    """The scenes of `write_sets` in YOLO's layout, which has no mark for difficult objects."""
    for part, number, picture, objects in scenes(sets, classes, look, seed):
        for folder in ("images", "labels"):
            (base / folder / part).mkdir(parents=True, exist_ok=True)
        save(picture, base / "images" / part / f"{number:06d}.jpg")
        lines = []
        for drawn in objects:
            left, top, right, bottom = drawn.corners
            across, down = (left - 1 + right) / 2 / look.width, (top - 1 + bottom) / 2 / look.height
            sides = (right - left + 1) / look.width, (bottom - top + 1) / look.height
            lines.append(f"{drawn.kind} {across!r} {down!r} {sides[0]!r} {sides[1]!r}\n")
        (base / "labels" / part / f"{number:06d}.txt").write_text("".join(lines), encoding="utf-8")
    names = [f"  {number}: {name}" for number, name in enumerate(classes)]
    parts = [f"{part}: images/{part}" for part in sets]
    (base / "data.yaml").write_text("\n".join([*parts, "names:", *names, ""]), encoding="utf-8")


@stand_in
def write_voc(folder: Path) -> None:
    """Pascal VOC: 2007 with 20 images in trainval and 20 in test, 2012 with 12 in trainval."""
    first, second = (folder / "VOCdevkit" / f"VOC{year}" for year in (2007, 2012))
    write_sets(first, {"train": 10, "val": 10, "test": 20}, VOC_CLASSES, seed=2007, edit=_with_parts)
    name = "2008_{:06d}".format
    write_sets(second, {"train": 6, "val": 6}, VOC_CLASSES, seed=2012, name=name, edit=_as_in_2012)


@stand_in
def write_bccd(folder: Path) -> None:
    """BCCD: 16 images in trainval, 8 in test, with a box of a single pixel among them."""

    def name(number: int) -> str:
        return f"BloodImage_{number - 1:05d}"

    sets = {"train": 10, "val": 6, "test": 8}
    write_sets(folder / "BCCD", sets, BCCD_CLASSES, seed=364, name=name, edit=_with_a_click)


def write_flat(root: Path, folders: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Path:
    """Somebody's own data: 10 images in each image set of each folder below `root`."""

    @stand_in
    def write(base: Path) -> None:
        for seed, (folder, sets) in enumerate(folders.items()):
            write_sets(base / folder, dict.fromkeys(sets, 10), classes, seed=seed)

    return write(root)


LAYOUTS: dict[str, Callable[[Path], Path]] = {"voc": write_voc, "bccd": write_bccd}
