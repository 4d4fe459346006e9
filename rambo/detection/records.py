"""Records: the images of a part of a detection data set, their objects in the form that everything else uses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.rows import Rows
from rambo.detection.annotations import Annotation, Box, Thing, image_size


@dataclass(frozen=True)
class Rules:
    """What is done with annotations that are not as they should be.

    Attributes:
        broken_boxes: "refuse" raises an error, "drop" leaves the box out and counts it.
        smallest_box: A box is broken if its width or height, counted in pixels with both ends as Pascal VOC does, is
            less than this. 1 lets a box of one pixel pass, as the devkit does; 2 asks that max is more than min.
        other_classes: What is done with objects of classes that are not in the list: "refuse" or "drop".
    """

    broken_boxes: str = "refuse"
    smallest_box: float = 2.0
    other_classes: str = "refuse"

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
        classes: Names of the classes, without a background.
        boxes: For each image float32 (objects, 4): left, top, right, bottom in continuous pixel coordinates, so that
            the box of the whole image is 0, 0, width, height.
        labels: For each image int64 (objects,), 1 for the first class; 0 is left to the background.
        difficult: For each image bool (objects,).
        notes: Counts of what was changed on reading.
    """

    paths: list[Path]
    classes: list[str]
    boxes: list[Tensor]
    labels: list[Tensor]
    difficult: list[Tensor]
    notes: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    columns = (*Rows.columns, "paths", "boxes", "labels", "difficult")

    @property
    def pictured(self) -> bool:
        """The samples are images."""
        return True

    def path(self, index: int) -> Path:
        """The image file at `index`."""
        return self.paths[index]

    def entries(self, index: int) -> dict[str, Tensor]:
        """The ground truth of the image at `index`."""
        return {"boxes": self.boxes[index], "labels": self.labels[index], "difficult": self.difficult[index]}

    def described(self) -> Iterator[object]:
        """Classes, then the name of every image and its objects."""
        yield f"{len(self)} {self.classes}"
        for name, *found in zip(self.names, self.boxes, self.labels, self.difficult, strict=True):
            yield " ".join([name, *(str(column.tolist()) for column in found)])

    def counts(self) -> dict[str, int]:
        """Class -> number of its objects that are not difficult."""
        kept = [labels[~difficult] for labels, difficult in zip(self.labels, self.difficult, strict=True)]
        counted = torch.cat(kept).bincount(minlength=len(self.classes) + 1) if kept else [0] * (len(self.classes) + 1)
        return {name: int(counted[number]) for number, name in enumerate(self.classes, 1)}

    def describe(self) -> dict[str, object]:
        """Counts for the run record; `objects` and `per_class` leave the difficult ones out."""
        per_class = self.counts()
        return {
            "images": len(self),
            "classes": len(self.classes),
            "objects": sum(per_class.values()),
            "difficult": sum(int(flags.sum()) for flags in self.difficult),
            "images_without_objects": sum(not len(labels) for labels in self.labels),
            **self.notes,
            "per_class": per_class,
        }


def together(parts: Sequence[AnnotatedImages]) -> AnnotatedImages:
    """Several parts of the same classes as one."""
    first = parts[0]
    notes = {name: sum(part.notes[name] for part in parts) for name in first.notes}
    columns: dict[str, Any] = {
        name: [item for part in parts for item in getattr(part, name)]
        for name in ("names", "paths", "boxes", "labels", "difficult")
    }
    return replace(first, **columns, notes=notes)


def annotated_images(
    names: Sequence[str],
    paths: Sequence[Path],
    annotations: Sequence[Annotation],
    classes: Sequence[str],
    rules: Rules,
    upright: bool = False,
) -> AnnotatedImages:
    """Converts and checks what the annotations of these images say; opens the head of every image.

    Boxes in the files count pixels from 1 and include both ends, so (xmin, ymin, xmax, ymax) becomes
    [xmin - 1, ymin - 1, xmax, ymax]: the width is xmax - xmin + 1, and plain intersection over union is the devkit's.
    What reaches beyond the image, by an annotator's slip or a tool that counts from 0, is cut off and counted: the
    object is there, and a detector's boxes end at the border too. A box that is wholly outside is broken.

    Raises:
        OSError: If an image is unreadable.
        ValueError: If the sizes of image and annotation differ, a box is broken, or a class is not in the list.
    """
    numbers = {name: number for number, name in enumerate(classes, 1)}
    notes = {"broken_boxes_dropped": 0, "boxes_cut_at_the_border": 0, "objects_of_other_classes_dropped": 0}
    columns: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for path, annotation in zip(paths, annotations, strict=True):
        size = image_size(path, upright)
        if annotation.size not in (None, size):
            raise ValueError(_sizes_differ(annotation, path, size))
        rows: list[tuple[Box, int, bool]] = []
        for thing in annotation.things:
            if thing.name not in numbers:
                if rules.other_classes == "refuse":
                    raise ValueError(_unknown_class(thing, annotation, classes))
                notes["objects_of_other_classes_dropped"] += 1
                continue
            box = _converted(thing.corners, size)
            if box[2] - box[0] < rules.smallest_box or box[3] - box[1] < rules.smallest_box:
                if rules.broken_boxes == "refuse":
                    raise ValueError(_broken_box(thing, annotation, size))
                notes["broken_boxes_dropped"] += 1
                continue
            left, top, right, bottom = thing.corners
            notes["boxes_cut_at_the_border"] += box != (left - 1, top - 1, right, bottom)
            rows.append((box, numbers[thing.name], thing.difficult))
        columns[0].append(torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4))
        columns[1].append(torch.tensor([row[1] for row in rows], dtype=torch.int64))
        columns[2].append(torch.tensor([row[2] for row in rows], dtype=torch.bool))
    return AnnotatedImages(list(names), list(paths), list(classes), *columns, upright=upright, notes=notes)


def _converted(corners: Box, size: tuple[int, int]) -> Box:
    (left, top, right, bottom), (width, height) = corners, size
    return max(left - 1, 0.0), max(top - 1, 0.0), min(right, float(width)), min(bottom, float(height))


def _broken_box(thing: Thing, annotation: Annotation, size: tuple[int, int]) -> str:
    left, top, right, bottom = thing.corners
    width, height = size
    if right < left or bottom < top:
        fault = "is inverted"
    elif right < 1 or bottom < 1 or left > width or top > height:
        fault = f"lies outside the image of {width} x {height}"
    else:
        fault = "is empty or too small"
    return (
        f"{annotation.path}: the box of {thing.name!r} from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) {fault};"
        " correct it, or set data.broken_boxes=drop"
    )


def _unknown_class(thing: Thing, annotation: Annotation, classes: Sequence[str]) -> str:
    known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    return (
        f"{annotation.path}: {thing.name!r} is not among the classes ({known}); correct it, add it to data.classes, or"
        " set data.other_classes=drop"
    )


def _sizes_differ(annotation: Annotation, path: Path, size: tuple[int, int]) -> str:
    assert annotation.size is not None
    told = f"{annotation.size[0]} x {annotation.size[1]}"
    return (
        f"{annotation.path} is for an image of {told} (width x height), but {path.name} has {size[0]} x {size[1]};"
        " annotate it as it is stored, or set data.upright=true if its EXIF data turn it"
    )
