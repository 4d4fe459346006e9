"""Objects in images as annotations have them, checked and made the rows of a data set."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from harness.data.images import decode
from harness.data.rows import Rows

Box = tuple[float, float, float, float]
CUT, OTHER, BROKEN = "boxes_cut_at_the_border", "objects_of_other_classes_dropped", "broken_boxes_dropped"
_EXIF_ORIENTATION = 0x0112
_FORMATS = ("jpg", "jpeg", "png", "bmp", "webp")
ENDINGS = [f".{ending}" for name in _FORMATS for ending in (name, name.upper(), name.capitalize())]


class Thing(NamedTuple):
    """An object as an annotation has it: left, top, right and bottom as its `Annotation` counts, and its `entry`."""

    name: str
    corners: Box
    difficult: bool
    entry: str = ""  # where it is in the file, as a sentence says it


class Annotation(NamedTuple):
    """An image by name, its file, and what the file at `path` says: its size, if that is there, and its objects."""

    name: str
    image: Path
    path: Path
    size: tuple[int, int] | None
    things: list[Thing]
    first: int = 1  # what the first pixel is called: 1 by Pascal VOC, whose boxes include both ends; 0: edges of pixels
    shares: bool = False  # whether corners are shares of the width and the height


def name_below(root: Path, image: Path) -> str:
    """What an image is called that may lie anywhere: its path from `root`."""
    return Path(os.path.relpath(image, root)).as_posix()


def check_once(images: Sequence[str], path: Path) -> None:
    """Refuses a list of images in the file `path` that has one of them twice."""
    if twice := [image for image, count in Counter(images).items() if count > 1]:
        raise ValueError(f"{path} lists {twice[0]} twice; take one of the two out")


def check_lost(lost: Sequence[str], of: str, title: str, folder: Path, remedy: str) -> None:
    """Refuses data of which files are lost, such as some `of` "6 images of trainval"."""
    if lost:
        first = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        raise FileNotFoundError(
            f"{title} in {folder} is incomplete: {len(lost):,} of {of} are missing ({first}); {remedy}"
        )


def _image_size(path: Path, upright: bool) -> tuple[int, int]:
    """Width and height, from the head of the file alone; an OSError if it holds no picture."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            turned = upright and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        picture = decode(path, upright)  # raises the sentence that names the file
        return picture.shape[2], picture.shape[1]


@dataclass(frozen=True)
class Rules:
    """What is done with annotations that are not as they should be; see `rambo.detection.data.DetectionData`."""

    broken_boxes: str
    smallest_box: float
    other_classes: str
    upright: bool

    def __post_init__(self) -> None:
        for name in ("broken_boxes", "other_classes"):
            if getattr(self, name) not in ("refuse", "drop"):
                raise ValueError(f"{name} must be refuse or drop, got {getattr(self, name)!r}")
        if not 1 <= self.smallest_box < math.inf:
            raise ValueError(f"smallest_box must be at least 1 pixel, got {self.smallest_box}")


@dataclass(frozen=True)
class AnnotatedImages(Rows):
    """One part of a detection data set: n images and the objects in them.

    Attributes:
        names: What each image is called: the folder and the file's name, for Pascal VOC without its ending.
        paths: Where the images are.
        objects: For each image `boxes` float32 (objects, 4), left, top, right, bottom in continuous pixel coordinates,
            so that the box of the whole image is 0, 0, width, height; `labels` int64 (objects,), 1 for the first class,
            as 0 is left to the background; `difficult` bool (objects,).
        classes: Names of the classes, without a background.
        notes: Counts of what was changed on reading.
    """

    paths: list[Path]
    objects: list[dict[str, Tensor]]
    classes: list[str]
    notes: Mapping[str, int]

    columns = (*Rows.columns, "paths", "objects")

    def path(self, index: int) -> Path:
        """The image file at `index`."""
        return self.paths[index]

    @property
    def pictured(self) -> bool:
        """The samples are images."""
        return True

    def described(self) -> Iterator[object]:
        """Classes, then the name of every image and its objects."""
        yield f"{len(self)} {self.classes}"
        for name, found in zip(self.names, self.objects, strict=True):
            yield " ".join([name, *(str(found[key].tolist()) for key in ("boxes", "labels", "difficult"))])

    def counts(self) -> dict[str, int]:
        """Class -> number of its objects that are not difficult."""
        labels = Counter(label for found in self.objects for label in found["labels"][~found["difficult"]].tolist())
        return {name: labels[number] for number, name in enumerate(self.classes, 1)}

    def describe(self) -> dict[str, object]:
        """Counts for the run record; `objects` and `per_class` leave the difficult ones out."""
        per_class = self.counts()
        return {
            "images": len(self),
            "classes": len(self.classes),
            "objects": sum(per_class.values()),
            "difficult": sum(int(found["difficult"].sum()) for found in self.objects),
            "images_without_objects": sum(not len(found["labels"]) for found in self.objects),
            **self.notes,
            "per_class": per_class,
        }


def annotated_images(annotations: Sequence[Annotation], classes: Sequence[str], rules: Rules) -> AnnotatedImages:
    """Converts and checks what the annotations say; opens the head of every image.

    Where pixels count from 1 and boxes include both ends, (xmin, ymin, xmax, ymax) becomes
    [xmin - 1, ymin - 1, xmax, ymax]: the width is xmax - xmin + 1, and plain intersection over union is the devkit's.
    What reaches beyond the image, by an annotator's slip or a tool that counts from 0, is cut off and counted: the
    object is there, and a detector's boxes end at the border too; of a hundredth of a pixel, by which decimals round,
    nothing is said. A box that is wholly outside is broken.

    Raises:
        OSError: If an image is unreadable.
        ValueError: If the sizes of image and annotation differ, a box is broken, or a class is not in the list.
    """
    notes = dict.fromkeys((BROKEN, CUT, OTHER), 0)
    objects = [_objects(annotation, classes, rules, notes) for annotation in annotations]
    names, paths = [one.name for one in annotations], [one.image for one in annotations]
    return AnnotatedImages(names, paths, objects, list(classes), notes, upright=rules.upright)


def _objects(annotation: Annotation, classes: Sequence[str], rules: Rules, notes: dict[str, int]) -> dict[str, Tensor]:
    width, height = size = _image_size(annotation.image, rules.upright)
    if annotation.size not in (None, size):
        told = " x ".join(map(str, annotation.size or ()))
        raise ValueError(
            f"{annotation.path} is for an image of {told} (width x height), but {annotation.image.name} has"
            f" {width} x {height}; annotate it as it is stored, or set data.upright=true if its EXIF data turn it"
        )
    boxes: list[Box] = []
    kept: list[Thing] = []
    for thing in annotation.things:
        corners = [n * side for n, side in zip(thing.corners, (width, height) * 2, strict=True)]
        left, top, right, bottom = corners if annotation.shares else thing.corners
        whole = (left - annotation.first, top - annotation.first, right, bottom)
        box = (max(whole[0], 0.0), max(whole[1], 0.0), min(right, float(width)), min(bottom, float(height)))
        if thing.name not in classes:
            known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
            fault = (
                f"{thing.name!r} is not among the classes ({known}); correct it, add it to data.classes, or set"
                " data.other_classes=drop"
            )
            rule, count = rules.other_classes, OTHER
        elif min(box[2] - box[0], box[3] - box[1]) < rules.smallest_box:
            fault = (
                f"the box of {thing.name!r} from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
                f" {_how_broken(whole, size)}; correct it, or set data.broken_boxes=drop"
            )
            rule, count = rules.broken_boxes, BROKEN
        else:
            notes[CUT] += any(abs(a - b) > 0.01 for a, b in zip(box, whole, strict=True))
            boxes.append(box)
            kept.append(thing)
            continue
        if rule == "refuse":
            raise ValueError(f"{annotation.path}{thing.entry}: {fault}")
        notes[count] += 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([1 + classes.index(thing.name) for thing in kept], dtype=torch.int64),
        "difficult": torch.tensor([thing.difficult for thing in kept], dtype=torch.bool),
    }


def _how_broken(box: Box, size: tuple[int, int]) -> str:
    left, top, right, bottom = box
    if right < left or bottom < top:
        return "is inverted"
    if right <= 0 or bottom <= 0 or left >= size[0] or top >= size[1]:
        return f"lies outside the image of {size[0]} x {size[1]}"
    return "is empty or too small"
