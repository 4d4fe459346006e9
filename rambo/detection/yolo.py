"""Anybody's data as YOLO keeps them: `data.yaml`, and beside the images a text file with the boxes of each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.data.fixtures import stand_in
from harness.data.images import files_below
from harness.data.spreadsheet import read_text
from harness.yaml_text import from_yaml
from rambo.detection.annotations import ENDINGS, Annotation, Thing, check_lost, check_once, name_below
from rambo.detection.data import DetectionData
from rambo.detection.fixture import SHAPES, write_yolo


class YOLOStyle(DetectionData):
    """Data as YOLO keeps them: `data.yaml` tells the names of the classes, and where the images of each part are.

    An image set is an entry of `data.yaml` in `root`, such as train or val, which names a folder of images, a text file
    that lists images, or several of these; or a pair of a folder below `root` that has a `data.yaml`, and the entry.
    The boxes of `images/a.jpg` are in `labels/a.txt`, or in `a.txt` beside it where no folder above is called images:
    a line for each of `class x y width height`, x and y of the centre, as shares of the width and height of the image,
    classes numbered from 0. An image without such a file has no object. There is no mark for difficult objects.
    Arguments are those of `DetectionData`.
    """

    title = "YOLO-style data"
    remedy = "check data.root, which should hold data.yaml, and the image sets"
    default_sets = {"train": ["train"], "test": ["test"]}  # noqa: RUF012

    def annotations(self, where: str | int, name: str) -> list[Annotation]:
        """From the text files of the images that an entry of `data.yaml` names."""
        path = self.root / str(where) / "data.yaml"
        if not path.is_file():
            raise FileNotFoundError(f"no {self.title} in {self.root} ({path} is missing); {self.remedy}")
        said = _read_yaml(path)
        names = _names(said, path)
        self.declared = (*self.declared, *names.values())
        images = _images(said, name, path)
        lost = [name_below(self.root, image) for image in images if not os.path.isfile(image)]
        check_lost(lost, f"{len(images):,} images of {name}", self.title, self.root, self.remedy)
        labels = [_label_file(image) for image in images]
        if not any(map(os.path.isfile, labels)):
            raise FileNotFoundError(
                f"{path}: no image of {name} has a file of boxes ({labels[0]} is missing); {self.remedy}"
            )
        return [
            Annotation(name_below(self.root, image), image, label, None, _things(label, names), first=0, shares=True)
            for image, label in zip(images, labels, strict=True)
        ]

    def write_fixture(self, root: Path) -> Path:
        """10 images for each part, whatever image sets were named."""
        self.sets = {part: [("", part)] for part, sets in self.sets.items() if sets}
        counts = dict.fromkeys(self.sets, 10)
        return stand_in(lambda base: write_yolo(base, counts, self.classes or SHAPES))(root)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    text = read_text(path)
    try:
        said = from_yaml(text, yaml.safe_load)
    except ValueError as error:
        raise ValueError(f"{path} is not YAML that can be read ({error}); repair it") from error
    if not isinstance(said, dict):
        raise ValueError(f"{path} should tell the names of the classes and where the images of each part are")
    return said


def _names(said: Mapping[str, Any], path: Path) -> dict[int, str]:
    """The class of each number."""
    names = said.get("names")
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    whole = isinstance(numbered, dict) and all(type(number) is int for number in numbered)
    if not numbered or not whole or not all(str(name).strip() for name in numbered.values()):
        raise ValueError(f"{path} should have names, a list or 0: name, 1: name, ..., got {names!s:.60}")
    if said.get("nc", len(numbered)) != len(numbered):
        raise ValueError(f"{path} has nc: {said['nc']} and {len(numbered)} names; correct one of the two")
    return {number: str(name).strip() for number, name in numbered.items()}


def _images(said: Mapping[str, Any], name: str, path: Path) -> list[Path]:
    """The images of an entry, in the order of its lists, or of their names in a folder."""
    given = said.get(name)
    entries = [str(entry) for entry in (given if isinstance(given, list) else [given]) if entry]
    if not entries:
        there = ", ".join(key for key in said if key in ("train", "val", "valid", "validation", "test")) or "none"
        raise ValueError(f"{path} does not say where the images of {name} are (there: {there}); name another image set")
    found = [image for entry in entries for image in _listed(entry, said, path)]
    if not found:
        raise ValueError(f"{path}: there is no image in {', '.join(entries)}, the images of {name}")
    check_once(list(map(str, found)), path)
    return found


def _listed(entry: str, said: Mapping[str, Any], path: Path) -> Iterator[Path]:
    """The images in a folder or in a list; below `path:` of the file, or else beside the file."""
    bases = [path.parent / str(said.get("path") or ""), path.parent]
    below = entry
    while below.startswith("../"):  # as some tools write it, of the folder beside the file
        below = below.removeprefix("../")
    places = [Path(os.path.normpath(base / one)) for one in (entry, below) for base in bases]
    place = next((place for place in places if os.path.exists(place)), None)
    if place is None:
        raise FileNotFoundError(f"{path} names {entry}, which is not there (looked for as {places[0]}); correct it")
    if place.is_dir():
        images = (file for file in files_below(place) if file.suffix in ENDINGS and not file.name.startswith("."))
        yield from sorted(images)
        return
    for line in filter(None, map(str.strip, read_text(place).splitlines())):
        options = [place.parent / line, *(base / line for base in bases)]
        found = next((one for one in options if os.path.isfile(one)), options[0])
        yield Path(os.path.normpath(found))


def _label_file(image: Path) -> Path:
    """The file of an image's boxes: below `labels` instead of the last folder called `images`."""
    folders = list(image.parts)
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders).with_suffix(".txt")


def _things(path: Path, names: Mapping[int, str]) -> list[Thing]:
    things = []
    for number, line in enumerate(read_text(path).splitlines() if os.path.isfile(path) else (), start=1):
        if not line.strip():
            continue
        try:
            kind, *box = map(float, line.split())
        except ValueError:
            kind, box = math.nan, []
        at = f"{path}, line {number}"
        if len(box) != 4:
            raise ValueError(f"{at}: wanted class x y width height of a box, got {line.strip()!r:.80}; correct it")
        if kind not in names:
            raise ValueError(f"{at} has class {line.split()[0]}, and data.yaml names 0 to {max(names)}; correct one")
        if not all(-0.001 <= share <= 1.001 for share in box):  # also refuses nan
            raise ValueError(
                f"{at} has {line.strip()!r:.80}, and x y width height should be shares of the image's width and height,"
                " 0 to 1; divide pixels by these"
            )
        x, y, width, height = box
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        things.append(Thing(names[int(kind)], corners, False, f", line {number}"))
    return things
