"""A small detector on rendered scenes, with cross-entropy and with RaMBO's loss, with pictures: make demo-detection."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

import torch

from harness.record.restored import restored
from harness.show import sheet
from harness.show.demo import table, trained
from harness.study.results import Run
from rambo.detection import pictures
from rambo.detection.metrics import collect

METHODS = {
    "cross-entropy": ["loss=detection_cross_entropy"],
    "RaMBO (average precision)": ["loss=detection_average_precision"],
}
METRICS = {
    "test/ap50_all_point": "AP50 all-point",
    "test/ap50_11_point": "AP50 11-point",
    "test/ap75_all_point": "AP75 all-point",
    "test/coco_ap": "AP COCO",
}
SHOWN = 8


def drawn(folder: Path, groups: dict[str, list[Run]]) -> list[Path]:
    """Precision against recall of both methods by class, and images with the boxes of each; first seeds."""
    curves: dict[str, dict[str, torch.Tensor]] = {}
    paths = [folder / "precision_recall.png"]
    for name, members in groups.items():
        run = restored(members[0].folder)
        loader = run.data.evaluation["test"]
        found = collect(run.model, loader)
        for what, curve in pictures.class_curves(found, loader.dataset).items():
            curves.setdefault(what, {})[name] = curve
        paths.append(folder / f"detections_{run.config['loss']['classification'].split('.')[-1]}.png")
        pictures.detections(paths[-1], found, loader.dataset, SHOWN)
    pictures.precision_recall(paths[0], curves)
    return paths


def main() -> None:
    folder, groups = trained(__doc__, "demo_detection", METHODS, seeds=1)
    sheet.show(table(groups, "rendered scenes, %", METRICS))
    for path in drawn(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
