"""The figures of a report: those drawn from the records of runs, and the pictures that the runs made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.files import WriteError
from harness.show.figures import COLOURS, learning_curves, recorded_curve
from harness.show.sheet import data_uri
from harness.show.sweep_figures import heat_map, sensitivity
from harness.study.results import SELECTED, Run, Say, Study, cell, log, slug
from harness.study.swept import CURVE_POINTS, Sweep, find_sweeps, settings_of, shown
from harness.words import numbered

MOST_METHODS = len(COLOURS)  # in one figure
MOST_PICTURES = 6  # of one kind
MOST_SWEEPS = 8
WIDE = 2.2  # width to height of a picture that takes a whole row
SEEDS_FOR_INTERVAL = 3  # with two, an interval is six times as wide as the seeds are apart and hides the means
KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
PICTURES = {  # what the pictures that runs make show, by name
    "retrievals": "Queries, evenly spread over the data, and what the model finds nearest: right (✓) and wrong (✗)",
    "detections": "Images, evenly spread over the data, with right and wrong detections and missed objects",
    "precision_recall": "Precision against recall for each class",
    "error_by_target": "Error along the target, and how many training samples each target has (many, medium, few shot)",
    "predicted_against_true": "Predicted against true targets",
    "similarity": "Similarity of features between targets: smooth along the diagonal where the order was learned",
}


@dataclass(frozen=True)
class Drawn:
    """A figure on disk: how it is called, what is under it and what it says to those who do not see it."""

    path: Path
    title: str
    caption: str
    alt: str
    wide: bool = False

    @property
    def uri(self) -> str:
        """The picture as part of a page."""
        return data_uri(KINDS[self.path.suffix], self.path.read_bytes())


def draw(
    study: Study, folder: Path, stem: str, suffix: str = ".svg", settings: Sequence[str] = ()
) -> tuple[list[Drawn], list[str]]:
    """Draws what the runs of a study hold enough for: learning curves, heat maps and sensitivity curves.

    Args:
        study: The runs.
        folder, stem, suffix: Where the figures go, how their names begin and end (.svg or .png).
        settings: One or two over which the runs are drawn, instead of the sweeps on record.

    Returns:
        The figures, and a sentence for each that could not be drawn, or that leaves a run out.
    """
    figures: list[Drawn] = []
    failures: list[str] = []

    def attempt(make: Callable[..., Drawn], name: str, *arguments: Any) -> None:
        try:
            figures.append(make(study, folder / f"{stem}_{name}{suffix}", *arguments))
        except WriteError:
            raise
        except (ValueError, OSError) as error:
            failures.append(f"a figure of {study.data} was left out: {error}")

    attempt(_curves, "curves", failures.append)
    sweeps = [Sweep(tuple(settings), tuple(study.runs))] if settings else find_sweeps(study.runs)
    for sweep in sweeps[:MOST_SWEEPS]:
        fixed = sweep.fixed if len(sweeps) > 1 else ""
        name, of = "_".join(map(slug, filter(None, [*sweep.settings, fixed]))), f", of {fixed}" if fixed else ""
        if len(sweep.settings) == 2:
            attempt(_map, f"{name}_map", sweep, of)
        for setting in sweep.settings:
            if _has_curve(sweep, setting):
                attempt(_sensitivity, f"{name}_{slug(setting.rpartition('.')[2])}_curve", sweep, setting, of)
    if len(sweeps) > MOST_SWEEPS:
        failures.append(
            f"{len(sweeps) - MOST_SWEEPS} further sweeps of {study.data} are not drawn; report fewer folders"
        )
    return figures, failures


def pictures(study: Study, say: Say = log.warning) -> dict[str, list[Drawn]]:
    """What the runs drew of themselves on the test split, by kind: of the first seed of the leading methods.

    `say` receives a sentence for each picture that cannot be read.
    """
    found: dict[str, list[Drawn]] = {}
    for label in study.leading(MOST_PICTURES):
        run = min(study.methods[label], key=lambda run: int(run.report["seed"]))
        paths = sorted(path for path in (run.folder / "pictures").glob("*") if path.suffix in KINDS)
        for path in paths:
            if path.suffix == ".svg" and path.with_suffix(".png") in paths:
                continue  # the same again
            kind, _, split = path.stem.rpartition("_")
            if split == "validation" and path.with_stem(f"{kind}_test") in paths:
                continue  # the test split's says the same in less room
            if split not in ("test", "validation"):
                kind, split = path.stem, ""
            who = f"{study.short[label]}, seed {run.report['seed']}" + (f", {split}" if split else "")
            try:
                wide = _is_wide(path)
            except OSError as error:
                say(f"left out: the picture {path} cannot be read ({error})")
                continue
            drawn = Drawn(path, kind.replace("_", " "), who, f"{about(kind)} {who}.", wide)
            found.setdefault(kind, []).append(drawn)
    return found


def about(kind: str) -> str:
    """The sentence above the pictures of one kind."""
    return PICTURES.get(kind, kind.replace("_", " ").capitalize()) + "."


def _is_wide(path: Path) -> bool:
    """Whether a picture needs a whole row to be read."""
    if path.suffix != ".png":
        return False
    with Image.open(path) as picture:
        return bool(picture.width > WIDE * picture.height)


def _curves(study: Study, path: Path, say: Say) -> Drawn:
    labels, metric = study.leading(MOST_METHODS), study.monitor
    measure, label = study.measure(metric), study.measure(metric).axis(metric)
    readable = {name: [run for run in study.methods[name] if _has_record(run, metric, say)] for name in labels}
    readable = {name: members for name, members in readable.items() if members}
    folders = {study.short[name]: [run.folder for run in members] for name, members in readable.items()}
    percent, spread = measure.kind == "share", _spread(readable.values())
    learning_curves(path, folders, metric, label, spread=spread, percent=percent, shared_epochs=True)
    more = f" The {len(labels)} best of {len(study.methods)} methods." if len(labels) < len(study.methods) else ""
    cells = {study.short[name]: cell(study.methods[name], "last", metric, measure) for name in labels}
    ends = [f"{name} {mean}" for name, mean in cells.items() if mean]
    over = " (mean ± half of the 95 % interval over seeds)" if any("±" in end for end in ends) else ""
    return Drawn(
        path, "Learning curves", f"{label}, against the epoch; epoch 0 is before training.{more}",
        f"Lines of {label} against the epoch. After the last epoch{over}: {'; '.join(ends)}.",
    )  # fmt: skip


def _map(study: Study, path: Path, sweep: Sweep, of: str) -> Drawn:
    x, y = sweep.settings
    label = study.measure(study.monitor).axis(study.monitor)
    grid = heat_map(path, sweep.runs, x, y, study.monitor, study.selection)
    good = grid.mean if study.higher_is_better else -grid.mean
    row, column = divmod(int(np.nanargmax(good)), len(grid.x))
    best = f"{x} {shown(grid.x[column])} and {y} {shown(grid.y[row])}"
    few, many = int(grid.seeds[grid.seeds > 0].min()), int(grid.seeds.max())
    seeds = f"{few} to {many} seeds" if few < many else numbered(few, "seed")
    return Drawn(
        path, f"{x} and {y}", f"Mean {label} ({SELECTED[study.selection]}) over {seeds}{of}; light is better.",
        f"Heat map of {label} over {x} and {y}{of}. The best cell is at {best}.",
    )  # fmt: skip


def _sensitivity(study: Study, path: Path, sweep: Sweep, setting: str, of: str) -> Drawn:
    measure = study.measure(study.monitor)
    cells: dict[str, list[Run]] = {}
    for run in sweep.runs:
        cells.setdefault(run.label, []).append(run)
    lines = sensitivity(path, sweep.runs, setting, study.monitor, study.selection, _spread(cells.values()))
    label, factor, digits = measure.axis(study.monitor), measure.factor, 1 if measure.kind == "share" else 3
    words = [
        f"{name}: " + ", ".join(f"{factor * sum(v) / len(v):.{digits}f} at {at:g}" for at, v in points.items())
        for name, points in lines.items()
    ]
    return Drawn(
        path, f"Sensitivity to {setting}", f"{label} ({SELECTED[study.selection]}) against {setting}{of}.",
        f"Curves of {label} against {setting}. {'; '.join(words)}.",
    )  # fmt: skip


def _spread(groups: Iterable[Sequence[Run]]) -> str:
    return "interval" if min(map(len, groups), default=0) >= SEEDS_FOR_INTERVAL else "range"


def _has_record(run: Run, metric: str, say: Say) -> bool:
    """Whether a run has a learning curve; says so if not, as that must not cost the others theirs."""
    if "evaluated" in run.report:  # by harness.train.evaluated, which has none
        return False
    try:
        if recorded_curve(run.folder, metric):
            return True
        reason = f"metrics.jsonl has no {metric}"
    except (ValueError, OSError) as error:
        reason = str(error)
    say(f"{run.folder} is left out of the learning curves: {reason}")
    return False


def _has_curve(sweep: Sweep, setting: str) -> bool:
    """Whether a setting has values enough, and the other one not too many for a line each."""
    if len(sweep.settings) == 1:
        return True
    counts = {key: len({settings_of(run).get(key) for run in sweep.runs}) for key in sweep.settings}
    return counts.pop(setting) >= CURVE_POINTS and max(counts.values()) <= MOST_METHODS
