"""Trains RaMBO and a triplet loss on rendered letters and shows what they learned: make demo."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from rich.console import Console

from harness.record import places
from harness.record.restored import UNTRAINED, restored
from harness.show import sheet
from harness.show.figures import learning_curves
from harness.show.report_tables import means
from harness.show.sheet import Sheet
from harness.study.results import Run, find_runs, group_by_method
from harness.study.several import train_seeds
from rambo.figures import loss_landscape, retrieval_grid

ROOT = Path(__file__).resolve().parent.parent
LOSSES = {"triplet": "triplet", "recall": "RaMBO (recall, log log)"}
METRICS = {"test/recall@1": "recall@1", "test/r_precision": "R-precision", "test/map_at_r": "MAP@R"}
console = Console()


def table(groups: dict[str, list[Run]]) -> Sheet:
    """Untrained and each loss after its last epoch, mean and interval over the seeds."""
    rows = [("untrained", next(iter(groups.values())), "untrained")]
    rows += [(name, members, "last") for name, members in groups.items()]
    return means("letters never seen in training (rendered glyphs), %, after the last epoch", rows, METRICS)


def pictures(folder: Path, groups: dict[str, list[Run]]) -> list[Path]:
    """Curves, the retrievals of the first RaMBO model before and after training, and the paper's landscape."""
    paths = [folder / f"{name}.png" for name in ("curves", "retrievals_untrained", "retrievals_rambo", "landscape")]
    learning_curves(
        paths[0], {name: [run.folder for run in members] for name, members in groups.items()}, "test/recall@1",
        "recall@1, unseen letters",
    )  # fmt: skip
    for path, weights in ((paths[1], UNTRAINED), (paths[2], "last")):
        run = restored(groups[LOSSES["recall"]][0].folder, weights)
        retrieval_grid(path, run.model, run.data.evaluation["test"])
    loss_landscape(paths[3])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=places.outputs() / "demo" / time.strftime("%Y-%m-%d_%H-%M-%S"))
    parser.add_argument("overrides", nargs="*", help="changes of the experiment, such as trainer.epochs=2")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    methods = {name: [f"loss={loss}"] for loss, name in LOSSES.items()}
    train_seeds("demo_rambo", methods, arguments.seeds, folder, arguments.overrides, ROOT / "train.py", console.print)
    by_label = group_by_method(find_runs([folder]))
    groups = {
        name: next(members for label, members in by_label.items() if f"loss={loss}" in label.split())
        for loss, name in LOSSES.items()
    }
    sheet.show(table(groups))
    print("one run, with everything it recorded:", os.path.relpath(groups[LOSSES["recall"]][0].folder))
    for path in pictures(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
