"""Draws the figures of the papers, and others of runs: python scripts/figures.py scores --run RUN_FOLDER.

Every figure is a function that can be called alone; this command finds what it needs in run folders.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import re
import sys
from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

import torch
from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from harness.checkpoint import CheckpointError
from harness.device import to_device
from harness.files import read_json
from harness.record import allowed, runs
from harness.record.composition import place
from harness.record.faults import sentence
from harness.record.restored import UNTRAINED, Restored, names_of, recorded, restored
from rambo.detection import pictures as detection_pictures
from rambo.detection.metrics import DetectionMetrics, collect
from rambo.evaluation import Embedded, RetrievalMetrics, embed
from rambo.figures import retrievals as retrieval_figures
from rambo.figures.gradients import Batch, gradient_sparsity, tie_rates
from rambo.figures.projection import METHODS, embedding_projection
from rambo.figures.scores import batch_map, score_distributions
from rambo.losses import BlackboxLoss
from ranksim.evaluation import RegressionMetrics, predict
from ranksim.figures import error_by_target, predicted_against_true, similarity_matrices, target_density

KINDS = {"retrieval": RetrievalMetrics, "regression": RegressionMetrics, "detection": DetectionMetrics}
LIKE_TRAINING = 4  # batches on which the gradient is tried


class Asked:
    """What the command line asked for; everything from run folders is read once, when it is first needed."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.folders: list[Path] = given.run
        self.written: list[Path] = []
        self.restored = cache(self._restored)
        self.seen = cache(self._seen)

    @cached_property
    def runs(self) -> dict[str, Path]:
        """The run folders by name."""
        names = self.given.names or names_of([runs.read_config(folder) for folder in self.folders])
        report = self.folders[0] / "report.json"
        if not self.given.names and len(self.folders) == 1 and report.is_file():
            names = [str(read_json(report)["experiment"])]
        if len(set(names)) != len(self.folders):
            raise ValueError(f"{len(self.folders)} runs need as many different names, got {', '.join(names)}")
        return dict(zip(names, self.folders, strict=True))

    def check(self, figure: str, kind: str) -> None:
        """Refuses to draw a figure of no run, or of one of another kind."""
        if not self.folders:
            raise ValueError(f"{figure} is drawn from a run: give --run and the folder of one")
        for folder in self.folders:
            found = self.kind_of(folder)
            if kind not in ("any", found):
                raise ValueError(f"{figure} is drawn from a {kind} run, but {folder} is a {found} run")

    def kind_of(self, folder: Path) -> str:
        """Retrieval, regression or detection, by what measures the run; else the name of that."""
        target, where = runs.read_config(folder)["metrics"]["_target_"], folder / "config.yaml: metrics._target_"
        measured = allowed.named(target, where, self.given.allow)
        is_kind = inspect.isclass(measured)
        found = (kind for kind, metrics in KINDS.items() if is_kind and issubclass(measured, metrics))
        return next(found, measured.__name__)

    def _restored(self, name: str, weights: str | None = None) -> Restored:
        """A run by name, with the weights that were asked for."""
        given = self.given
        run = restored(self.runs[name], weights or given.weights, given.device, given.data_root, given.allow)
        if run.data.describe().get("fixture"):
            print("stand-in data: these numbers mean nothing")
        return run

    def loader(self, name: str) -> Any:
        """The evaluation split of a run."""
        splits = self.restored(name).data.evaluation
        if self.given.split not in splits:
            raise ValueError(f"{self.runs[name]} has no split {self.given.split}; there are {', '.join(splits)}")
        return splits[self.given.split]

    def _seen(self, name: str, look: Callable[[torch.nn.Module, Any], Any]) -> Any:
        """What the model makes of the split: `embed`, `predict` or `collect`."""
        return look(self.restored(name).model, self.loader(name))

    def save(self, figure: str, draw: Callable[[Path], Any], run: str | None = None) -> None:
        """Draws into a file of each format; one of several runs has its name behind the figure's."""
        several = run is not None and len(self.folders) > 1
        stem = f"{figure}_{re.sub(r'[^A-Za-z0-9.]+', '_', run or '').strip('_')}" if several else figure
        self.given.out.mkdir(parents=True, exist_ok=True)
        for ending in self.given.formats:
            path = self.given.out / f"{stem}.{ending}"
            draw(path)
            self.written.append(path)


def landscape(asked: Asked) -> None:
    asked.save("landscape", retrieval_figures.loss_landscape)


def draw_batch_map(asked: Asked) -> None:
    for name in asked.runs:
        data: Embedded = asked.seen(name, embed)
        per_class = (asked.restored(name).config["data"].get("sampler") or {}).get("samples_per_class")
        draw = partial(batch_map, embeddings=data.embeddings, labels=data.labels, samples_per_class=per_class)
        asked.save("batch_map", draw, name)


def scores(asked: Asked) -> None:
    data = {name: asked.seen(name, embed) for name in asked.runs}
    pairs = {"" if len(data) == 1 else name: (d.embeddings, d.labels) for name, d in data.items()}
    asked.save("scores", partial(score_distributions, runs=pairs))


def sparsity(asked: Asked) -> None:
    kept = {name: recorded(folder, "step/gradient_share") for name, folder in asked.runs.items()}
    kept = {name: values for name, values in kept.items() if values}
    only = next(iter(asked.runs))
    lines: dict[str, tuple[str, str | None]] = {name: (name, None) for name in asked.runs}
    if len(asked.runs) == 1:
        lines = {"before training": (only, UNTRAINED), "after training": (only, None)}
    measured = {}
    for line, (name, weights) in lines.items():
        run = asked.restored(name, weights)
        loss = getattr(run.loss(), "loss", None)
        if isinstance(loss, BlackboxLoss):
            measured[line] = loss, training_batches(run)
    if not measured and not kept:
        raise ValueError(f"{asked.runs[only]} recorded no gradient_share, as its loss is no ranking loss")
    asked.save("sparsity", partial(gradient_sparsity, measured=measured, recorded=kept))


def training_batches(run: Restored) -> list[Batch]:
    """Embeddings and labels of the first training batches, as training sees them."""
    model = copy.deepcopy(run.model).train()  # a copy, as batch norm would learn from looking
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    run.data.train.set_epoch(0)
    found = []
    with torch.no_grad():
        for batch, _ in zip(run.data.train, range(LIKE_TRAINING), strict=False):
            there = to_device(batch, device)
            found.append((model(there), there["label"]))
    return found


def ties(asked: Asked) -> None:
    for name, folder in asked.runs.items():
        kept = recorded(folder, "step/tie_rate")
        found = asked.seen(name, embed).embeddings if asked.kind_of(folder) == "retrieval" else None
        if found is None and not kept:
            raise ValueError(f"{folder} recorded no tie_rate, as its loss is no ranking loss")
        lines = {name: kept} if kept else {}
        asked.save("ties", partial(tie_rates, embeddings=found, recorded=lines), name)


def embedding(asked: Asked) -> None:
    for name in asked.runs:
        data: Embedded = asked.seen(name, embed)
        records = getattr(asked.loader(name).dataset, "rows", None)
        names = getattr(records, "class_names", None)
        draw = partial(
            embedding_projection, embeddings=data.embeddings, labels=data.labels, names=names, method=asked.given.method
        )
        asked.save("embedding", draw, name)


def retrievals(asked: Asked) -> None:
    for name in asked.runs:
        image = asked.loader(name).dataset.image
        draw = partial(retrieval_figures.retrievals_of, data=asked.seen(name, embed), image=image)
        asked.save("retrievals", draw, name)


def regression(asked: Asked, figure: str) -> None:
    found = {name: asked.seen(name, predict) for name in asked.runs}
    data = [asked.restored(name).data for name in asked.runs]
    if len({str(d.describe().get("fingerprint")) for d in data}) > 1:
        raise ValueError("the runs were made on different data, so their errors do not belong in one picture")
    if data[0].density is None:
        raise ValueError(
            f"these figures are of one target, and the runs predict {', '.join(data[0].several)}; each is drawn in"
            " pictures/ of the run"
        )
    first = asked.restored(next(iter(asked.runs)))
    rule = {"shot_rule": first.metrics.shot_rule, "many": first.metrics.many, "few": first.metrics.few}
    axes = {key: value for key, value in (first.config.get("pictures") or {}).items() if key in ("quantity", "unit")}
    results = {name: (p.predictions, p.targets) for name, p in found.items()}
    features, truth = {name: p.features for name, p in found.items()}, next(iter(found.values())).targets
    draw = {
        "targets": partial(target_density, density=data[0].density, **rule, **axes),
        "errors": partial(error_by_target, results=results, density=data[0].density, **rule, **axes),
        "predictions": partial(predicted_against_true, results=results, **axes),
        "similarity": partial(similarity_matrices, features=features, targets=truth, **axes),
    }
    asked.save(figure, draw[figure])


def draw_precision_recall(asked: Asked) -> None:
    curves: dict[str, dict[str, torch.Tensor]] = {}
    for name in asked.runs:
        for what, curve in detection_pictures.class_curves(
            asked.seen(name, collect), asked.loader(name).dataset
        ).items():
            curves.setdefault(what, {})[name] = curve
    asked.save("precision_recall", partial(detection_pictures.precision_recall, curves=curves))


def detections(asked: Asked) -> None:
    for name in asked.runs:
        shown = (asked.restored(name).config.get("pictures") or {}).get("shown", 12)
        found, data = asked.seen(name, collect), asked.loader(name).dataset
        asked.save("detections", partial(detection_pictures.detections, found=found, data=data, shown=shown), name)


FIGURES: dict[str, tuple[str | None, Callable[[Asked], None], str]] = {
    "landscape": (None, landscape, "a rank loss over a plane of scores, for growing lambda (RaMBO, figure 1)"),
    "batch_map": ("retrieval", draw_batch_map, "mAP to expect of a mini-batch against its size (RaMBO, figure 2)"),
    "scores": ("retrieval", scores, "scores of positives and negatives, a panel for each run (RaMBO, figure 3)"),
    "retrievals": ("retrieval", retrievals, "queries and what is found (RaMBO, figure 4)"),
    "sparsity": ("any", sparsity, "share of scores with a gradient, against lambda and over training"),
    "ties": ("any", ties, "how often scores tie, against row length and over training"),
    "embedding": ("retrieval", embedding, "images of some classes in a plane; --method pca, tsne or umap"),
    "targets": ("regression", partial(regression, figure="targets"), "training samples by target, with shot regions"),
    "errors": (
        "regression",
        partial(regression, figure="errors"),
        "error by target, a line for each run, with shot regions",
    ),
    "predictions": (
        "regression",
        partial(regression, figure="predictions"),
        "prediction against truth, a panel for each run",
    ),
    "similarity": (
        "regression",
        partial(regression, figure="similarity"),
        "how alike targets and features are, a panel for each run",
    ),
    "precision_recall": ("detection", draw_precision_recall, "precision against recall, a line for each run"),
    "detections": ("detection", detections, "images with right, wrong and missed boxes"),
}


def main(words: list[str] | None = None) -> None:
    listed = "\n".join(f"  {name:18}{about}" for name, (_, _, about) in FIGURES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"figures:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("figures", nargs="+", choices=FIGURES, metavar="NAME", help="which to draw, listed below")
    add("--run", nargs="+", action="extend", type=Path, default=[], help="run folders, made by train.py")
    add("--out", type=Path, default=place("outputs") / "figures", help="where to put them (outputs/figures)")
    add("--formats", nargs="+", choices=("png", "svg"), default=["png", "svg"], help="png and svg if not given")
    add("--names", nargs="+", help="what to call the runs; default: the values in which they differ")
    add("--weights", default="last", help=f"last, best_on_test, best_on_validation or {UNTRAINED}")
    add("--split", default="test", help="which part of the data")
    add("--method", choices=METHODS, default="pca", help="of the embedding figure")
    add("--device", default="cpu", help="cpu, cuda or auto")
    add("--data-root", type=Path, help="where the data are now, if they have been moved since the run")
    add("--allow", **allowed.OPTION)
    asked = Asked(parser.parse_args(words))
    try:
        for name in asked.given.figures:
            kind, draw, _ = FIGURES[name]
            if kind is not None:
                asked.check(name, kind)
            draw(asked)
    except (InstantiationException, OmegaConfBaseException, CheckpointError, ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {sentence(error)}") from None
    for path in asked.written:
        print("picture:", path)


if __name__ == "__main__":
    main()
