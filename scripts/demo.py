"""Trains the methods of a toy, shows their table and draws what they learned: python scripts/demo.py letters."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.device import cores
from harness.record.composition import CONFIGS, place
from harness.record.reproducibility import CODE
from harness.record.restored import UNTRAINED, restored
from harness.show import sheet, table_page
from harness.show.figures import learning_curves
from harness.study.jobs import Outputs, plan, to_do
from harness.study.table_cells import fill
from harness.study.tables import Table
from harness.words import numbered
from rambo.detection.metrics import collect
from rambo.detection.pictures import class_curves, detections, precision_recall
from rambo.figures import loss_landscape, retrieval_grid
from ranksim.evaluation import predict
from ranksim.figures import error_by_target, predicted_against_true, similarity_matrices, target_density
from ranksim.imbalance import smoothed_density

Runs = Mapping[str, list[Path]]  # the folders of every row of the table, seed by seed


def letters(runs: Runs, folder: Path) -> None:
    """Curves, what RaMBO's first model finds before and after training, and the paper's landscape."""
    curves = {"triplet": runs["triplet"], "RaMBO (recall, log log)": runs["recall"]}
    learning_curves(folder / "curves.png", curves, "test/recall@1", "recall@1, unseen letters")
    for name, weights in {"untrained": UNTRAINED, "rambo": "last"}.items():
        run = restored(runs["recall"][0], weights)
        retrieval_grid(folder / f"retrievals_{name}.png", run.model, run.data.evaluation["test"])
    loss_landscape(folder / "landscape.png")


def digits(runs: Runs, folder: Path) -> None:
    """Targets, errors and predictions of the first seed of each method, similarities before and after training."""
    before = restored(runs["vanilla"][0], UNTRAINED)
    test, density, axes = before.data.evaluation["test"], before.data.density, before.config["pictures"]
    axes = {"quantity": axes["quantity"], "unit": axes["unit"]}
    names = {"vanilla": "vanilla", "lds": "LDS", "ranksim": "RankSim", "lds_ranksim": "LDS + RankSim"}
    found = {name: predict(restored(runs[row][0]).model, test) for row, name in names.items()}
    results = {name: (data.predictions, data.targets) for name, data in found.items()}
    features = {"before training": predict(before.model, test).features}
    features |= {f"after: {name}": found[name].features for name in ("vanilla", "RankSim")}
    smoothed = {f"LDS, {kernel}": smoothed_density(density, kernel, 5, 2.0)[1] for kernel in ("gaussian", "laplace")}
    target_density(folder / "targets.png", density, smoothed, **axes)
    error_by_target(folder / "errors.png", results, density, **axes)
    predicted_against_true(folder / "predictions.png", results, **axes)
    similarity_matrices(folder / "similarity.png", features, found["vanilla"].targets, **axes)


def scenes(runs: Runs, folder: Path) -> None:
    """Precision against recall of both methods by class, and scenes with the boxes of each; first seeds."""
    curves: dict[str, dict[str, object]] = {}
    for row, name in {"cross_entropy": "cross-entropy", "rambo": "RaMBO (average precision)"}.items():
        run = restored(runs[row][0])
        test = run.data.evaluation["test"]
        found = collect(run.model, test)
        for what, curve in class_curves(found, test.dataset).items():
            curves.setdefault(what, {})[name] = curve
        detections(folder / f"detections_{row}.png", found, test.dataset, shown=8)
    precision_recall(folder / "precision_recall.png", curves)


DEMOS = {"letters": ("demo", 3, letters), "digits": ("demo-regression", 3, digits),
         "scenes": ("demo-detection", 1, scenes)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", choices=DEMOS)
    parser.add_argument("--seeds", type=int, help="how many: 0, 1, ... (default: 3; of the scenes 1)")
    parser.add_argument("--folder", type=Path, help="where runs are found and go; default: paths.outputs of the config")
    parser.add_argument("overrides", nargs="*", help="changes of the experiment, such as trainer.epochs=2")
    given = parser.parse_intermixed_args()  # options may stand between the demo and the overrides
    name, seeds, draw = DEMOS[given.demo]
    table = Table.named(name, CONFIGS / "table")
    changed = {
        key: row.model_copy(update={"overrides": (*row.overrides, *given.overrides)}) for key, row in table.rows.items()
    }
    table = table.model_copy(update={"rows": changed})
    try:
        outputs = Outputs((given.folder or CODE / place("outputs")).absolute(), cores())  # too small to fill a GPU
        jobs = outputs.locate(plan(table, given.seeds or seeds))
        if left := to_do(jobs):
            rows = "; ".join(dict.fromkeys(table.rows[job.row].name for job in jobs if not job.finished))
            print(
                f"trains {numbered(len(left), 'run')} ({rows}), {min(outputs.at_once, len(left))} beside each other;"
                f" one takes up to two minutes on one core, and gets a line when it is done",
                flush=True,
            )
        failed = outputs.run(left)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    jobs = outputs.locate(jobs)
    filled = fill(table, jobs, given.seeds or seeds, failed=failed)
    sheet.show(replace(table_page.table_sheet(filled), command=""))
    if filled.faults:
        raise SystemExit(1)
    runs: dict[str, list[Path]] = {}
    for job in jobs:
        runs.setdefault(job.row, []).append(job.finished)
    print("one run, with everything it recorded:", os.path.relpath(jobs[-1].finished))
    folder = outputs.folder / name
    folder.mkdir(exist_ok=True)
    draw(runs, folder)
    for path in sorted(folder.glob("*.png")):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
