"""The pictures that a detection run leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rambo.detection import figures
from rambo.detection.average_precision import Boxes, precision_recall, voc_outcomes
from rambo.detection.metrics import collect, judged


class DetectionPictures:
    """Precision against recall of every class, and what is found in some images.

    `loader.dataset` is as in `DetectionMetrics`, and has `image(index)`, uint8 (3, height, width).

    Args:
        shown: Images in the picture of detections.

    Raises:
        ValueError: If `shown` is not positive.
    """

    def __init__(self, shown: int = 12) -> None:
        if shown < 1:
            raise ValueError(f"shown must be at least 1 image, got {shown}")
        self.shown = shown

    def __call__(self, model: nn.Module, loader: Any, folder: Path, split: str) -> dict[str, Path]:
        """Draws into `folder`; returns the files by name."""
        found = collect(model, loader)
        paths = {name: folder / f"{name}_{split}.png" for name in ("precision_recall", "detections")}
        curves = {name: {split: curve} for name, curve in class_curves(found, loader.dataset).items()}
        figures.precision_recall(paths["precision_recall"], curves)
        some_detections(paths["detections"], found, loader.dataset, self.shown)
        return paths


def class_curves(found: Sequence[Boxes], data: Any) -> dict[str, Tensor]:
    """Precision against recall of every class of which an object counts, as `precision_recall` gives it."""
    outcomes = voc_outcomes(found, data.ground_truth)
    return {
        name: precision_recall(outcomes, label)
        for label, name in enumerate(data.classes, start=1)
        if label < outcomes.objects.shape[1] and outcomes.objects[:, label].any()
    }


def some_detections(path: Path, found: Sequence[Boxes], data: Any, shown: int = 12) -> None:
    """Draws what is found in images that are spread evenly over the data set, so that nobody chose them."""
    boxes = judged(found, data.ground_truth)
    some = torch.linspace(0, len(boxes) - 1, min(shown, len(boxes))).round().long().tolist()
    figures.detections(path, [data.image(image) for image in some], [boxes[image] for image in some], data.classes)
