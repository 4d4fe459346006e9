"""Imbalanced regression on turned digits: vanilla, LDS, RankSim and both, with pictures: make demo-regression."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from torch import Tensor

from harness.record.restored import UNTRAINED, restored
from harness.show import sheet
from harness.show.demo import table, trained
from harness.study.results import Run
from ranksim.evaluation import predict
from ranksim.figures import targets as figures
from ranksim.figures.similarity import similarity_matrices
from ranksim.imbalance import smoothed_density

METHODS = {
    "vanilla": [],
    "LDS": ["weighting=sqrt_inverse", "lds=gaussian"],
    "RankSim": ["regularizer=ranksim"],
    "LDS + RankSim": ["weighting=sqrt_inverse", "lds=gaussian", "regularizer=ranksim"],
}
SHOTS = {"": "all", "_many": "many shot", "_medium": "medium shot", "_few": "few shot"}


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
    folder, groups = trained(__doc__, "demo_regression", METHODS)
    print("the angles of real digits, turned by us: a constructed target")
    for metric, title in (("mae", "mean absolute error"), ("gmean", "geometric mean error")):
        metrics = {f"test/{metric}{shot}": name for shot, name in SHOTS.items()}
        sheet.show(table(groups, f"{title}, degrees", metrics, untrained=True))
    print("one run, with everything it recorded:", os.path.relpath(groups["RankSim"][0].folder))
    for path in pictures(folder, groups):
        print("picture:", os.path.relpath(path))


if __name__ == "__main__":
    main()
