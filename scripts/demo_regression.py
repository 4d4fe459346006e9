"""Imbalanced regression on turned digits: vanilla, LDS, RankSim and both, with pictures: make demo-regression."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from rich.console import Console
from torch import Tensor

from harness.record import places
from harness.record.restored import UNTRAINED, restored
from harness.show import sheet
from harness.show.report_tables import means
from harness.show.sheet import Sheet
from harness.study.results import Run, find_runs, group_by_method
from harness.study.several import train_seeds
from ranksim.evaluation import predict
from ranksim.figures import targets as figures
from ranksim.figures.similarity import similarity_matrices
from ranksim.imbalance import smoothed_density

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "demo_regression"
METHODS = {
    "vanilla": [],
    "LDS": ["weighting=sqrt_inverse", "lds=gaussian"],
    "RankSim": ["regularizer=ranksim"],
    "LDS + RankSim": ["weighting=sqrt_inverse", "lds=gaussian", "regularizer=ranksim"],
}
SHOTS = {"": "all", "_many": "many shot", "_medium": "medium shot", "_few": "few shot"}
console = Console()


def by_method(folder: Path, overrides: list[str]) -> dict[str, list[Run]]:
    """The runs below `folder` under the names that the table has."""
    labelled = {frozenset(label.split()): members for label, members in group_by_method(find_runs([folder])).items()}
    always = {EXPERIMENT, *(o.lstrip("+") for o in overrides)}
    always = {word for word in always if any(word in label for label in labelled)}
    return {name: labelled[frozenset({*always, *chosen})] for name, chosen in METHODS.items()}


def table(groups: dict[str, list[Run]], metric: str, title: str) -> Sheet:
    """An error by shot of every method, and of the untrained network, over the seeds."""
    rows = [("untrained", groups["vanilla"], "untrained")]
    rows += [(name, members, "last") for name, members in groups.items()]
    columns = {f"test/{metric}{shot}": head for shot, head in SHOTS.items()}
    return means(f"{title}, degrees, after the last epoch", rows, columns)


def pictures(folder: Path, groups: dict[str, list[Run]]) -> list[Path]:
    """Targets, errors and predictions of the first seed of each method, similarities before and after training."""
    before = restored(groups["vanilla"][0].folder, UNTRAINED)
    density = before.data.density
    results: dict[str, tuple[Tensor, Tensor]] = {}
    features = {"before training": predict(before.model, before.data.evaluation["test"]).features}
    for name, members in groups.items():
        run = restored(members[0].folder)
        found = predict(run.model, run.data.evaluation["test"])
        results[name] = (found.predictions, found.targets)
        if name in ("vanilla", "RankSim"):
            features[f"after: {name}"] = found.features
    smoothed = {f"LDS, {kernel}": smoothed_density(density, kernel, 5, 2.0)[1] for kernel in ("gaussian", "laplace")}
    paths = [folder / f"{name}.png" for name in ("targets", "errors", "similarity", "predictions")]
    named = {"quantity": "angle", "unit": "degrees"}
    figures.target_density(paths[0], density, smoothed, **named)
    figures.error_by_target(paths[1], results, density, **named)
    similarity_matrices(paths[2], features, found.targets, **named)
    figures.predicted_against_true(paths[3], results, **named)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    default = places.outputs() / EXPERIMENT / time.strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("--folder", type=Path, default=default)
    parser.add_argument("overrides", nargs="*", help="changes of the experiment, such as trainer.epochs=2")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    train_seeds(EXPERIMENT, METHODS, arguments.seeds, folder, arguments.overrides, ROOT / "train.py", console.print)
    groups = by_method(folder, arguments.overrides)
    console.print("the angles of real digits, turned by us: a constructed target")
    sheet.show(table(groups, "mae", "mean absolute error"))
    sheet.show(table(groups, "gmean", "geometric mean error"))
    print("one run, with everything it recorded:", os.path.relpath(groups["RankSim"][0].folder))
    for path in pictures(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
