"""Records: the images of a part of a detection data set, their objects in the form that everything else uses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.data.rows import Rows
from rambo.detection.annotations import Annotation, Box, Thing, image_size

CUT, OTHER, BROKEN = "boxes_cut_at_the_border", "objects_of_other_classes_dropped", "broken_boxes_dropped"


@dataclass(frozen=True)
class Rules:
    """What is done with annotations that are not as they should be.

    Attributes:
        broken_boxes: "refuse" raises an error, "drop" leaves the box out and counts it.
        smallest_box: A box is broken if its width or height, counted in pixels with both ends as Pascal VOC does, is
            less than this. 1 lets a box of one pixel pass, as the devkit does; 2 asks that max is more than min.
        other_classes: What is done with objects of classes that are not in the list: "refuse" or "drop".
    """

    broken_boxes: str
    smallest_box: float
    other_classes: str

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
        names: What each image is called: the folder and the file's name without its ending.
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


def annotated_images(
    annotations: Sequence[Annotation], classes: Sequence[str], rules: Rules, upright: bool = False
) -> AnnotatedImages:
    """Converts and checks what the annotations say; opens the head of every image.

    Boxes in the files count pixels from 1 and include both ends, so (xmin, ymin, xmax, ymax) becomes
    [xmin - 1, ymin - 1, xmax, ymax]: the width is xmax - xmin + 1, and plain intersection over union is the devkit's.
    What reaches beyond the image, by an annotator's slip or a tool that counts from 0, is cut off and counted: the
    object is there, and a detector's boxes end at the border too. A box that is wholly outside is broken.

    Raises:
        OSError: If an image is unreadable.
        ValueError: If the sizes of image and annotation differ, a box is broken, or a class is not in the list.
    """
    notes = dict.fromkeys((BROKEN, CUT, OTHER), 0)
    objects = [_objects(annotation, classes, rules, upright, notes) for annotation in annotations]
    names, paths = [one.name for one in annotations], [one.image for one in annotations]
    return AnnotatedImages(names, paths, objects, list(classes), notes, upright=upright)


def _objects(
    annotation: Annotation, classes: Sequence[str], rules: Rules, upright: bool, notes: dict[str, int]
) -> dict[str, Tensor]:
    width, height = size = image_size(annotation.image, upright)
    if annotation.size not in (None, size):
        told = " x ".join(map(str, annotation.size or ()))
        raise ValueError(
            f"{annotation.path} is for an image of {told} (width x height), but {annotation.image.name} has"
            f" {width} x {height}; annotate it as it is stored, or set data.upright=true if its EXIF data turn it"
        )
    boxes: list[Box] = []
    kept: list[Thing] = []
    for thing in annotation.things:
        left, top, right, bottom = thing.corners
        box = (max(left - 1, 0.0), max(top - 1, 0.0), min(right, float(width)), min(bottom, float(height)))
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
                f" {_how_broken(thing.corners, size)}; correct it, or set data.broken_boxes=drop"
            )
            rule, count = rules.broken_boxes, BROKEN
        else:
            notes[CUT] += box != (left - 1, top - 1, right, bottom)
            boxes.append(box)
            kept.append(thing)
            continue
        if rule == "refuse":
            raise ValueError(f"{annotation.path}: {fault}")
        notes[count] += 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([1 + classes.index(thing.name) for thing in kept], dtype=torch.int64),
        "difficult": torch.tensor([thing.difficult for thing in kept], dtype=torch.bool),
    }


def _how_broken(corners: Box, size: tuple[int, int]) -> str:
    left, top, right, bottom = corners
    if right < left or bottom < top:
        return "is inverted"
    if right < 1 or bottom < 1 or left > size[0] or top > size[1]:
        return f"lies outside the image of {size[0]} x {size[1]}"
    return "is empty or too small"
