"""Trains RaMBO and a triplet loss on rendered letters and shows what they learned: make demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.record.restored import UNTRAINED, restored
from harness.show import sheet
from harness.show.demo import table, trained
from harness.show.figures import learning_curves
from harness.study.results import Run
from rambo.figures import loss_landscape, retrieval_grid

RAMBO = "RaMBO (recall, log log)"
METHODS = {"triplet": ["loss=triplet"], RAMBO: ["loss=recall"]}
METRICS = {"test/recall@1": "recall@1", "test/r_precision": "R-precision", "test/map_at_r": "MAP@R"}


def pictures(folder: Path, groups: dict[str, list[Run]]) -> list[Path]:
    """Curves, the retrievals of the first RaMBO model before and after training, and the paper's landscape."""
    paths = [folder / f"{name}.png" for name in ("curves", "retrievals_untrained", "retrievals_rambo", "landscape")]
    learning_curves(
        paths[0], {name: [run.folder for run in members] for name, members in groups.items()}, "test/recall@1",
        "recall@1, unseen letters",
    )  # fmt: skip
    for path, weights in ((paths[1], UNTRAINED), (paths[2], "last")):
        run = restored(groups[RAMBO][0].folder, weights)
        retrieval_grid(path, run.model, run.data.evaluation["test"])
    loss_landscape(paths[3])
    return paths


def main() -> None:
    folder, groups = trained(__doc__, "demo_rambo", METHODS)
    title = "letters never seen in training (rendered glyphs), %"
    sheet.show(table(groups, title, METRICS, untrained=True))
    print("one run, with everything it recorded:", os.path.relpath(groups[RAMBO][0].folder))
    for path in pictures(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
