"""The pictures that a detection run leaves: precision against recall, and images with what was found; PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from harness.show.figures import COLOURS, line_style, save
from rambo.detection import average_precision
from rambo.detection.average_precision import NOT_COUNTED, RIGHT, WRONG, Boxes, voc_outcomes
from rambo.detection.metrics import collect

# Blue, vermilion and yellow are told apart by the colour-blind, and by their lines as well
BOX_STYLES: dict[str, tuple[str, Any]] = {
    "right": (COLOURS[0], "-"),
    "wrong": (COLOURS[1], "--"),
    "missed": ("#f0e442", ":"),
}
_PANEL_COLUMNS, _IMAGE_COLUMNS = 5, 4


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
        precision_recall(paths["precision_recall"], curves)
        detections(paths["detections"], found, loader.dataset, self.shown)
        return paths


def class_curves(found: Sequence[Boxes], data: Any) -> dict[str, Tensor]:
    """Precision against recall of every class of which an object counts, (2, detections)."""
    outcomes = voc_outcomes(found, data.ground_truth)
    return {
        name: average_precision.precision_recall(outcomes, label)
        for label, name in enumerate(data.classes, start=1)
        if label < outcomes.objects.shape[1] and outcomes.objects[:, label].any()
    }


def precision_recall(path: Path, curves: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, np.ndarray]]:
    """Draws precision against recall, a panel for every class and in it a line for every method.

    Args:
        path: The PNG to write.
        curves: By class and by method the recall and precision after each detection, (2, detections).

    Returns:
        The points of every line, (2, detections + 1), by class and by method: the curve is led from recall 0 at the
        precision of the first detection. A method that detected nothing of a class has no line there, and no entry.

    Raises:
        ValueError: If there is no class, or a class has more methods than there are line styles.
    """
    if not curves:
        raise ValueError("there is no class to draw precision and recall of")
    methods = list(dict.fromkeys(method for lines in curves.values() for method in lines))
    if len(methods) > len(COLOURS):
        raise ValueError(f"{len(methods)} methods cannot be told apart in one panel, at most {len(COLOURS)} can")
    styles = {name: line_style(place) | {"marker": ""} for place, name in enumerate(methods)}
    columns = min(len(curves), _PANEL_COLUMNS)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(max(3.6, 2.4 * columns), 2.3 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for axes, (name, lines) in zip(panels.flat, curves.items(), strict=False):
        drawn[name] = {}
        for method, curve in lines.items():
            if not curve.shape[1]:
                continue
            recall, precision = curve.numpy()
            points = np.stack([np.append(0.0, recall), np.append(precision[0], precision)])
            axes.plot(*points, linewidth=1.4, **styles[method])
            drawn[name][method] = points
        axes.set_title(name, fontsize=9)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
        axes.grid(alpha=0.3)
    for axes in panels.flat[len(curves) :]:
        axes.set_axis_off()
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision", fontsize=10)
    handles = [Line2D([], [], label=name, **styles[name]) for name in methods]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    save(figure, path, dpi=110)
    return drawn


def detections(path: Path, found: Sequence[Boxes], data: Any, shown: int = 12) -> dict[str, int]:
    """Draws images with their right and wrong detections and the objects that were missed, see `judged`.

    Images are spread evenly over the data set, so that nobody chose them.

    Args:
        path: The PNG to write.
        found: For each image of the data set `boxes`, `scores` and `labels`.
        data: Has `ground_truth`, `classes` and `image`, as in `DetectionPictures`.
        shown: How many images.

    Returns:
        How many boxes of each kind were drawn.
    """
    boxes = judged(found, data.ground_truth)
    some = torch.linspace(0, len(boxes) - 1, min(shown, len(boxes))).round().long().tolist()
    columns = min(len(some), _IMAGE_COLUMNS)
    rows = math.ceil(len(some) / columns)
    figure = Figure(figsize=(max(4.2, 2.7 * columns), 2.7 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    counts = dict.fromkeys(BOX_STYLES, 0)
    for axes, image in zip(panels.flat, some, strict=False):
        axes.imshow(data.image(image).permute(1, 2, 0).numpy(), interpolation="nearest")
        for kind in BOX_STYLES:
            drawn = boxes[image][kind]
            for box, label in zip(drawn["boxes"].tolist(), drawn["labels"].tolist(), strict=True):
                _draw_box(axes, box, data.classes[label - 1], kind)
                counts[kind] += 1
    for axes in panels.flat:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=2, label=f"{kind} ({counts[kind]})")
        for kind, (colour, line) in BOX_STYLES.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), fontsize=10, facecolor="0.45", labelcolor="w"
    )
    save(figure, path, dpi=110)
    return counts


def _draw_box(axes: Any, box: Sequence[float], name: str, kind: str) -> None:
    """One box. A pixel's middle has whole coordinates in matplotlib, its left and upper edge half a pixel less."""
    left, top, right, bottom = (edge - 0.5 for edge in box)
    colour, line = BOX_STYLES[kind]
    size = (right - left, bottom - top)
    axes.add_patch(Rectangle((left, top), *size, fill=False, edgecolor="black", linewidth=2.8, alpha=0.35))
    axes.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=colour, linestyle=line, linewidth=1.7))
    shade = {"facecolor": colour, "alpha": 0.85, "pad": 0.6, "linewidth": 0}
    missed, height = kind == "missed", axes.get_ylim()[0]
    # outside of the box if there is room; and of missed ones below, so as not to lie on a detection of the same object
    outside = bottom < 0.95 * height if missed else top > 0.05 * height
    words = {"color": "black" if missed else "white", "va": "top" if missed == outside else "bottom"}
    axes.text(left, bottom if missed else top, name, fontsize=6, bbox=shade, clip_on=True, **words)


def judged(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], threshold: float = 0.5
) -> list[dict[str, dict[str, Tensor]]]:
    """The `boxes` and `labels` of every image that are `right`, `wrong` and `missed`, as VOC judges them.

    Scores of a ranking loss are no probabilities, so no fixed score says what to show. Of each class the best
    detections are taken, as many as there are objects of it that count: down to where precision equals recall.
    Difficult objects and detections of them are left out.
    """
    outcomes = voc_outcomes(detections, ground_truth, [threshold])
    verdicts, shown = outcomes.verdicts[0], torch.zeros(len(outcomes.order), dtype=torch.bool)
    for label, wanted in enumerate(outcomes.objects.sum(0).tolist()):
        own = ((outcomes.labels == label) & (verdicts != NOT_COUNTED)).nonzero()[:, 0]
        shown[own[:wanted]] = True
    missed = ~torch.cat([entry["difficult"].cpu().bool() for entry in ground_truth])
    missed[outcomes.found[0, shown & (verdicts == RIGHT)]] = False
    picked = {"missed": _picked(ground_truth, missed, ("boxes", "labels"))}
    for kind, verdict in (("right", RIGHT), ("wrong", WRONG)):
        chosen = torch.zeros_like(shown)
        chosen[outcomes.order[shown & (verdicts == verdict)]] = True
        picked[kind] = _picked(detections, chosen, ("boxes", "labels", "scores"))
    return [{kind: entries[image] for kind, entries in picked.items()} for image in range(len(detections))]


def _picked(entries: Sequence[Boxes], chosen: Tensor, keys: Sequence[str]) -> list[dict[str, Tensor]]:
    """The boxes chosen of all images' boxes put one after the other, by image again."""
    masks = torch.split(chosen, [len(entry["labels"]) for entry in entries])
    return [{key: entry[key].cpu()[mask] for key in keys} for entry, mask in zip(entries, masks, strict=True)]
