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
from rambo.detection import figures
from rambo.detection.average_precision import precision_recall, voc_outcomes
from rambo.detection.metrics import collect, judged

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


def pictures(folder: Path, groups: dict[str, list[Run]]) -> list[Path]:
    """Precision against recall of both methods by class, and images with the boxes of each; first seeds."""
    curves: dict[str, dict[str, torch.Tensor]] = {}
    paths = [folder / "precision_recall.png"]
    for name, members in groups.items():
        run = restored(members[0].folder)
        loader = run.data.evaluation["test"]
        found, truth, classes = collect(run.model, loader), loader.dataset.ground_truth, loader.dataset.classes
        outcomes = voc_outcomes(found, truth)
        for label, what in enumerate(classes, start=1):
            curves.setdefault(what, {})[name] = precision_recall(outcomes, label)
        boxes = judged(found, truth, 0.5)
        some = torch.linspace(0, len(truth) - 1, min(SHOWN, len(truth))).long().tolist()
        paths.append(folder / f"detections_{run.config['loss']['classification'].split('.')[-1]}.png")
        figures.detections(paths[-1], [loader.dataset.image(i) for i in some], [boxes[i] for i in some], classes)
    figures.precision_recall(paths[0], curves)
    return paths


def main() -> None:
    folder, groups = trained(__doc__, "demo_detection", METHODS, seeds=1)
    sheet.show(table(groups, "rendered scenes, %", METRICS))
    for path in pictures(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
