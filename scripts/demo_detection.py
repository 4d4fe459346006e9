"""A small detector on rendered scenes, with cross-entropy and with RaMBO's loss, with pictures: make demo-detection."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

import torch
from rich.console import Console

from harness.record import places
from harness.record.restored import restored
from harness.show import sheet
from harness.show.report_tables import means
from harness.show.sheet import Sheet
from harness.study.results import Run, find_runs, group_by_method
from harness.study.several import train_seeds
from rambo.detection import figures
from rambo.detection.average_precision import precision_recall, voc_outcomes
from rambo.detection.metrics import collect, judged

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "demo_detection"
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
console = Console()


def by_method(folder: Path) -> dict[str, list[Run]]:
    """The runs below `folder` under the names that the table has."""
    labelled = group_by_method(find_runs([folder]))
    return {
        name: next(members for label, members in labelled.items() if chosen[0] in label.split())
        for name, chosen in METHODS.items()
    }


def table(groups: dict[str, list[Run]]) -> Sheet:
    """Average precision of every method after its last epoch, over the seeds."""
    rows = [(name, members, "last") for name, members in groups.items()]
    return means("rendered scenes, %, after the last epoch", rows, METRICS)


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    default = places.outputs() / EXPERIMENT / time.strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("--folder", type=Path, default=default)
    parser.add_argument("overrides", nargs="*", help="changes of the experiment, such as trainer.epochs=2")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    train_seeds(EXPERIMENT, METHODS, arguments.seeds, folder, arguments.overrides, ROOT / "train.py", console.print)
    groups = by_method(folder)
    sheet.show(table(groups))
    for path in pictures(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
