"""Detection data in the layout of Pascal VOC with rendered scenes, for tests and trial runs with `data.fixture=true`.

Names of files, lists and tags and the oddities are those of the real thing: nested parts of persons, another order of
tags and a decimal box in 2012, in each set an image without objects and one whose only object is difficult, in BCCD a
box of a single pixel. Everything follows from one seed, to the byte for one version of Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.data.fixtures import beside
from rambo.detection.rendering import SHAPES, Drawn, Look, render

__all__ = ["LAYOUTS", "SHAPES", "VOC_CLASSES", "write_bccd", "write_flat", "write_sets", "write_voc"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BCCD_CLASSES = ("RBC", "WBC", "Platelets")
_SMALL = Look(width=120, height=90, radius=(0.14, 0.3))
_SPECIAL = {2: "empty", 3: "difficult"}  # place in its set -> what is special about an image


def write_sets(
    base: Path,
    sets: Mapping[str, int],
    classes: Sequence[str],
    look: Look,
    seed: int = 0,
    unions: Mapping[str, Sequence[str]] | None = None,
    name: Callable[[int], str] = "{:06d}".format,
    edit: Callable[[int, str], str] = lambda number, text: text,
) -> None:
    """Writes `Annotations`, `JPEGImages` and `ImageSets/Main` into `base`.

    Args:
        base: The folder; it may be there already.
        sets: Image set -> number of images; no image is in two.
        classes: Names of the classes.
        look: How the scenes look.
        seed: Decides everything.
        unions: Further image sets made of some of `sets`, such as trainval.
        name: Number of an image, from 1 -> its id.
        edit: Number of an image and its XML -> the XML that is written.
    """
    ids: dict[str, list[str]] = {}
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    number = shown = 0
    for part, count in sets.items():
        ids[part] = []
        for place in range(count):
            number, special = number + 1, _SPECIAL.get(place, "")
            chance = np.random.default_rng([seed, number])
            picture, objects = render(look, chance, len(classes), shown % len(classes), special)
            shown += not special  # so that each class comes first in turn
            id_ = name(number)
            picture.save(base / "JPEGImages" / f"{id_}.jpg", format="JPEG", quality=90)
            text = edit(number, _xml(base.name, id_, look, objects, classes))
            (base / "Annotations" / f"{id_}.xml").write_text(text, encoding="utf-8")
            ids[part].append(id_)
    for union, members in (unions or {}).items():
        ids[union] = sorted(id_ for part in members for id_ in ids[part])
    for part, listed in ids.items():
        path = base / "ImageSets" / "Main" / f"{part}.txt"
        path.write_text("".join(f"{id_}\n" for id_ in listed), encoding="utf-8")


def _xml(folder: str, id_: str, look: Look, objects: Sequence[Drawn], classes: Sequence[str]) -> str:
    lines = [
        "<annotation>",
        f"\t<folder>{folder}</folder>",
        f"\t<filename>{id_}.jpg</filename>",
        f"\t<size>\n\t\t<width>{look.width}</width>\n\t\t<height>{look.height}</height>\n\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for drawn in objects:
        box = "".join(
            f"\t\t\t<{tag}>{corner}</{tag}>\n"
            for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), drawn.corners, strict=True)
        )
        lines.append(
            f"\t<object>\n\t\t<name>{classes[drawn.kind]}</name>\n\t\t<pose>Unspecified</pose>\n"
            f"\t\t<truncated>{int(drawn.truncated)}</truncated>\n\t\t<difficult>{int(drawn.difficult)}</difficult>\n"
            f"\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>"
        )
    return "\n".join([*lines, "</annotation>"]) + "\n"


def write_voc(root: Path) -> Path:
    """Pascal VOC: 2007 with 20 images in trainval and 20 in test, 2012 with 12 in trainval."""
    unions = {"trainval": ("train", "val")}

    def write(folder: Path) -> None:
        write_sets(
            folder / "VOCdevkit" / "VOC2007", {"train": 10, "val": 10, "test": 20}, VOC_CLASSES, _SMALL, 2007, unions,
            edit=_with_parts,
        )  # fmt: skip
        write_sets(
            folder / "VOCdevkit" / "VOC2012", {"train": 6, "val": 6}, VOC_CLASSES, _SMALL, 2012, unions,
            name="2008_{:06d}".format, edit=_as_in_2012,
        )  # fmt: skip

    return beside(root, write)


def write_bccd(root: Path) -> Path:
    """BCCD: 16 images in trainval, 8 in test, with a box of a single pixel among them."""

    def write(folder: Path) -> None:
        write_sets(
            folder / "BCCD", {"train": 10, "val": 6, "test": 8}, BCCD_CLASSES, _SMALL, 364,
            {"trainval": ("train", "val")}, name=lambda number: f"BloodImage_{number - 1:05d}", edit=_with_a_click,
        )  # fmt: skip

    return beside(root, write)


def write_flat(root: Path, folders: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Path:
    """Somebody's own data: 10 images in each image set of each folder below `root`."""

    def write(base: Path) -> None:
        for seed, (folder, sets) in enumerate(folders.items()):
            write_sets(base / folder, dict.fromkeys(sets, 10), classes, _SMALL, seed)

    return beside(root, write)


def _with_parts(number: int, text: str) -> str:
    """Persons of Pascal VOC can have parts with names and boxes of their own."""
    person, part = (
        "<name>person</name>",
        (
            "\t\t<part>\n\t\t\t<name>head</name>\n\t\t\t<bndbox>\n\t\t\t\t<xmin>1</xmin>\n\t\t\t\t<ymin>1</ymin>\n"
            "\t\t\t\t<xmax>9</xmax>\n\t\t\t\t<ymax>9</ymax>\n\t\t\t</bndbox>\n\t\t</part>\n"
        ),
    )
    return "\t</object>".join(
        f"{piece}{part}" if person in piece and number % 2 else piece for piece in text.split("\t</object>")
    )


def _as_in_2012(number: int, text: str) -> str:
    """The name comes after the box there, and a few corners are decimal numbers."""
    pieces = text.split("\t\t<name>")
    for place, piece in enumerate(pieces[1:], 1):
        name, rest = piece.split("</name>\n", 1)
        before, after = rest.split("\t\t</bndbox>\n", 1)
        pieces[place] = f"{before}\t\t</bndbox>\n\t\t<name>{name}</name>\n{after}"
    joined = "".join(pieces)
    return joined.replace("</xmin>", ".70000076293945</xmin>", 1) if number == 1 else joined


def _with_a_click(number: int, text: str) -> str:
    """Two boxes of BCCD are a single point."""
    click = (
        "\t<object>\n\t\t<name>RBC</name>\n\t\t<bndbox>\n\t\t\t<xmin>50</xmin>\n\t\t\t<ymin>40</ymin>\n"
        "\t\t\t<xmax>50</xmax>\n\t\t\t<ymax>40</ymax>\n\t\t</bndbox>\n\t</object>\n"
    )
    return text.replace("</annotation>", f"{click}</annotation>") if number == 2 else text


LAYOUTS: dict[str, Callable[[Path], Path]] = {"voc": write_voc, "bccd": write_bccd}
