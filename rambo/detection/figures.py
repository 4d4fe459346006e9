"""Pictures of detectors: precision against recall, and images with what was found. Each call writes a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from harness.show.figures import COLOURS, RIGHT, WRONG, line_style

MISSED = "#f0e442"  # yellow; with blue and vermilion told apart by the colour-blind, and by their lines as well
BOX_STYLES: dict[str, tuple[str, Any]] = {"right": (RIGHT, "-"), "wrong": (WRONG, "--"), "missed": (MISSED, ":")}
_PANEL_COLUMNS, _IMAGE_COLUMNS = 5, 4


def precision_recall(path: Path, curves: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, np.ndarray]]:
    """Draws precision against recall, a panel for every class and in it a line for every method.

    Args:
        path: The PNG to write.
        curves: By class and by method the recall and precision after each detection, (2, detections), as
            `rambo.detection.average_precision.precision_recall` gives them.

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
    figure.savefig(path, dpi=110)
    return drawn


def detections(
    path: Path,
    images: Sequence[Tensor],
    boxes: Sequence[Mapping[str, Mapping[str, Tensor]]],
    classes: Sequence[str],
) -> dict[str, int]:
    """Draws images with their right and wrong detections and the objects that were missed.

    Args:
        path: The PNG to write.
        images: uint8 (3, height, width) each.
        boxes: For each image `right`, `wrong` and `missed`, each with `boxes` (n, 4) in pixels and `labels` (n,), as
            `rambo.detection.metrics.judged` gives them.
        classes: The name of label 1, of label 2, and so on.

    Returns:
        How many boxes of each kind were drawn.

    Raises:
        ValueError: If there is no image, or not one set of boxes for each.
    """
    if not images or len(images) != len(boxes):
        raise ValueError(f"needs images and one set of boxes for each, got {len(images)} and {len(boxes)}")
    columns = min(len(images), _IMAGE_COLUMNS)
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(max(4.2, 2.7 * columns), 2.7 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    counts = dict.fromkeys(BOX_STYLES, 0)
    for axes, image, kinds in zip(panels.flat, images, boxes, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        for kind in BOX_STYLES:
            for box, label in zip(kinds[kind]["boxes"].tolist(), kinds[kind]["labels"].tolist(), strict=True):
                _draw_box(axes, box, classes[label - 1], kind)
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
    figure.savefig(path, dpi=110)
    return counts


def _draw_box(axes: Any, box: Sequence[float], name: str, kind: str) -> None:
    """One box; a pixel's middle has whole coordinates in matplotlib, its left and upper edge half a pixel less."""
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
