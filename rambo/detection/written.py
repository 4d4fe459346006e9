"""Detections as files: XML of Pascal VOC, JSON of COCO, and pictures with the boxes in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib.font_manager import findfont
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from harness.files import write_json, writing
from harness.show.figures import COLOURS
from rambo.detection.voc_xml import add_box, filled

FORMATS = ("voc", "coco", "pictures")


class Written:
    """Writes the detections of one picture after the other.

    Args:
        folder: Receives `Annotations/<name>.xml`, `detections.json` and `pictures/<name>.jpg`.
        classes: The names of labels 1, 2, ...
        formats: Some of `FORMATS`.
    """

    def __init__(self, folder: Path, classes: Sequence[str], formats: Sequence[str] = FORMATS) -> None:
        self.folder, self.classes, self.formats = folder, list(classes), formats
        self.images: list[dict[str, Any]] = []
        self.boxes: list[dict[str, Any]] = []

    def add(self, name: str, path: Path, picture: Tensor, found: Mapping[str, Tensor]) -> None:
        """Writes what was found in a picture.

        Args:
            name: Of its files, such as `walk/IMG_1`.
            path: Its file.
            picture: As the detector's boxes mean it, uint8 (3, height, width).
            found: `boxes` (detections, 4) in its pixels, `scores` and `labels`.
        """
        height, width = picture.shape[1:]
        entries = [found[key].tolist() for key in ("boxes", "labels", "scores")]
        things = [(box, self.classes[label - 1], label, score) for box, label, score in zip(*entries, strict=True)]
        if "voc" in self.formats:
            file = self._place("Annotations", f"{name}.xml")
            with writing(file):
                _as_voc(path.name, width, height, things).write(file, encoding="utf-8")
        if "coco" in self.formats:
            image = len(self.images) + 1
            self.images.append({"id": image, "file_name": str(path), "width": width, "height": height})
            for (left, top, right, bottom), _, label, score in things:
                box = [left, top, right - left, bottom - top]
                said = {"id": len(self.boxes) + 1, "image_id": image, "category_id": label, "bbox": box}
                self.boxes.append({**said, "area": box[2] * box[3], "iscrowd": 0, "score": score})
        if "pictures" in self.formats:
            file = self._place("pictures", f"{name}.jpg")
            with writing(file):
                Image.fromarray(_drawn(picture, found, things).permute(1, 2, 0).numpy()).save(file, quality=92)

    def finish(self) -> None:
        """Writes what is of all pictures together."""
        if "coco" in self.formats:
            categories = [{"id": label, "name": name} for label, name in enumerate(self.classes, start=1)]
            together = {"images": self.images, "categories": categories, "annotations": self.boxes}
            write_json(self.folder / "detections.json", together)

    def _place(self, kind: str, name: str) -> Path:
        file = self.folder / kind / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def names_of(paths: Sequence[Path]) -> list[str]:
    """What to call each file, below the folder of all: without its ending, unless another is called so too."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    root = os.path.commonpath([path.parent for path in whole])
    inside = [path.relative_to(root) for path in whole]
    often = Counter(path.with_suffix("") for path in inside)
    return [(path.with_suffix("") if often[path.with_suffix("")] == 1 else path).as_posix() for path in inside]


def _as_voc(file: str, width: int, height: int, things: Sequence[tuple[Any, ...]]) -> Any:
    """Boxes in whole pixels, which VOC counts from 1, both ends included."""
    root = filled(ElementTree.Element("annotation"), filename=file)
    filled(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    for (left, top, right, bottom), name, _, score in things:
        one = filled(ElementTree.SubElement(root, "object"), name=name, difficult=0, score=f"{score:.6f}")
        x, y = min(round(left), width - 1) + 1, min(round(top), height - 1) + 1
        add_box(one, (x, y, max(x, round(right)), max(y, round(bottom))))
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _drawn(picture: Tensor, found: Mapping[str, Tensor], things: Sequence[tuple[Any, ...]]) -> Tensor:
    """The picture with its boxes, the colour that of the class; lines and letters grow with it."""
    if not things:
        return picture
    side = max(picture.shape[1:])
    colours = [COLOURS[(label - 1) % len(COLOURS)] for _, _, label, _ in things]
    said = [f"{name} {score:.2f}" for _, name, _, score in things]
    look: dict[str, Any] = {"fill_labels": True, "label_background_colors": colours, "label_colors": "white"}
    look |= {"width": max(2, side // 250), "font": findfont("DejaVu Sans"), "font_size": max(10, side // 45)}
    drawn: Tensor = draw_bounding_boxes(picture, found["boxes"], said, colours, **look)
    return drawn
