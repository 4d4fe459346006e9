"""Anybody's data with annotations as those of COCO: one JSON file for all images of a part."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.data.fixtures import stand_in
from rambo.detection.annotations import Annotation, Thing, check_lost, check_once, name_below
from rambo.detection.data import DetectionData
from rambo.detection.fixture import SHAPES, write_coco

Entries = Iterator[tuple[str, Mapping[str, Any]]]
_MARKS = ("iscrowd", "ignore", "difficult")
_BEYOND = 2**31  # pixels: no image, and no number that a tensor cannot hold; also refuses nan
_WORDS: dict[tuple[type, ...], str] = {
    (int, str): "an id",
    (str,): "a name",
    (int, float): "a number",
    (list,): "a list",
}


class COCOStyle(DetectionData):
    """Data with annotations as those of COCO: a JSON file with `images`, `annotations` and `categories`.

    An image set is a pair of a folder of images and a JSON file, both below `root`; a JSON file alone has its images
    beside it. A box is [x, y, width, height] in pixels, where the left upper corner of the image is 0, 0, so that the
    box of the whole image is [0, 0, width, height]. `iscrowd`, `ignore` or `difficult` of 1 marks an object as
    difficult. Arguments are those of `DetectionData`.
    """

    title = "COCO-style data"
    remedy = "check data.root and the image sets"
    default_sets = {  # noqa: RUF012
        "train": [["train2017", "annotations/instances_train2017.json"]],
        "test": [["val2017", "annotations/instances_val2017.json"]],
    }

    def annotations(self, where: str | int, name: str) -> list[Annotation]:
        """From the JSON file."""
        path = self.root / name
        if not path.is_file():
            raise FileNotFoundError(f"no {self.title} in {self.root} ({name} is missing); {self.remedy}")
        folder = self.root / str(where) if where else path.parent
        said = _read_json(path)
        names = {
            _value(entry, "id", (int, str), at): _name(entry, at) for at, entry in _entries(said, "categories", path)
        }
        self.declared = (*self.declared, *names.values())
        images, sizes = _images(said, path)
        things: dict[int | str, list[Thing]] = {id_: [] for id_ in images}
        for at, entry in _entries(said, "annotations", path):
            image, category = (_value(entry, f"{what}_id", (int, str), at) for what in ("image", "category"))
            for what, id_, known in (("images", image, images), ("categories", category, names)):
                if id_ not in known:
                    raise ValueError(f"{at} is of {id_!r}, which is not among the {what} of the file; correct it")
            things[image].append(_thing(entry, names[category], at, f"{path}"))
        lost = [file for file in images.values() if not os.path.isfile(folder / file)]
        check_lost(lost, f"{len(images):,} images of {name}", self.title, folder, self.remedy)
        return [
            Annotation(name_below(self.root, folder / file), folder / file, path, sizes[id_], things[id_], first=0)
            for id_, file in images.items()
        ]

    def write_fixture(self, root: Path) -> Path:
        """10 images for each part, whatever image sets were named."""
        self.sets = {part: [(part, f"annotations/{part}.json")] for part, sets in self.sets.items() if sets}
        counts = dict.fromkeys(self.sets, 10)
        return stand_in(lambda base: write_coco(base, counts, self.classes or SHAPES))(root)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # also of the encoding
        raise ValueError(f"{path} is not JSON that can be read ({error}); repair it") from error
    if not isinstance(said, dict):
        raise ValueError(f"{path} holds no object with images, annotations and categories, as COCO's files do")
    return said


def _entries(said: Mapping[str, Any], key: str, path: Path) -> Entries:
    """The entries of a list of the file, each with how to name it."""
    if not isinstance(said.get(key), list):
        raise ValueError(f"{path} has no list of {key}; a file as those of COCO has images, annotations and categories")
    for place, entry in enumerate(said[key]):
        at = f"{path}: {key}[{place}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{at} should be an object in braces, got {entry!s:.40}")
        yield at, entry


def _value(entry: Mapping[str, Any], key: str, kinds: tuple[type, ...], at: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        got = json.dumps(value) if key in entry else "nothing"
        raise ValueError(f"{at} has {got:.40} for {key} where {_WORDS[kinds]} should stand")
    return value


def _name(entry: Mapping[str, Any], at: str, key: str = "name") -> str:
    name: str = _value(entry, key, (str,), at).strip()
    if not name:
        raise ValueError(f"{at} has an empty {key}; give it one")
    return name


def _images(
    said: Mapping[str, Any], path: Path
) -> tuple[dict[int | str, str], dict[int | str, tuple[int, int] | None]]:
    """The file and, where it is told, width and height of each image by its id."""
    files: dict[int | str, str] = {}
    sizes: dict[int | str, tuple[int, int] | None] = {}
    for at, entry in _entries(said, "images", path):
        id_, file = _value(entry, "id", (int, str), at), _name(entry, at, "file_name").replace("\\", "/")
        if id_ in files:
            raise ValueError(f"{at} has the id {id_!r}, and so has {files[id_]}; give each image its own")
        files[id_] = file
        width, height = (_value({key: 0, **entry}, key, (int, float), at) for key in ("width", "height"))
        sizes[id_] = (int(width), int(height)) if 0 < width < math.inf and 0 < height < math.inf else None
    if not files:
        raise ValueError(f"{path} lists no image")
    check_once(list(files.values()), path)
    return files, sizes


def _thing(entry: Mapping[str, Any], name: str, at: str, path: str) -> Thing:
    box = _value(entry, "bbox", (list,), at)
    if len(box) != 4 or not all(type(number) in (int, float) and abs(number) < _BEYOND for number in box):
        raise ValueError(f"{at}, {name!r}, has the bbox {box!s:.60} where [x, y, width, height] should stand")
    marks = {key: entry[key] for key in _MARKS if entry.get(key)}
    if wrong := [key for key, value in marks.items() if value != 1]:
        raise ValueError(f"{at}, {name!r}, must have 0 or 1 for {wrong[0]}, got {marks[wrong[0]]!s:.40}")
    x, y, width, height = box
    return Thing(name, (x, y, x + width, y + height), bool(marks), at.removeprefix(path))
