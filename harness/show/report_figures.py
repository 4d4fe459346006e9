"""The figures of a report: those drawn from the records of runs, and the pictures that the runs made."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from harness.show.figures import COLOURS, GRID, INK, PAPER, learning_curves, recorded_curve
from harness.show.sweep_figures import heat_map, sensitivity
from harness.study.results import Run, Say, cell, log
from harness.study.studies import SELECTED, Study, slug
from harness.study.swept import Sweep, find_sweeps, shown, varied

MOST_METHODS = len(COLOURS)  # in one figure
MOST_PICTURES = 6  # of one kind
MOST_SWEEPS = 8
WIDE = 2.2  # width to height of a picture that takes a whole row
SEEDS_FOR_INTERVAL = 3  # with two, an interval is six times as wide as the seeds are apart and hides the means
KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
# In place of which the page has variables, so that a figure can be read on a dark page as well.
PAGE_COLOURS = {
    INK: "var(--ink)", GRID: "var(--grid)", f"fill: {PAPER}": "fill: none",
    COLOURS[0]: "var(--blue)", COLOURS[3]: "var(--purple)", COLOURS[5]: "var(--sky)",
}  # fmt: skip
# What pictures of these names show. A picture of another name may say it itself, as PNG metadata "Description".
PICTURES = {
    "retrievals": "Queries, evenly spread over the data, and what the model finds nearest: right (✓) and wrong (✗)",
    "detections": "Images, evenly spread over the data, with right and wrong detections and missed objects",
    "precision_recall": "Precision against recall for each class",
    "error_by_target": "Error along the target, and how many training samples each target has (many, medium, few shot)",
    "predicted_against_true": "Predicted against true targets",
    "similarity": "Similarity of features between targets: smooth along the diagonal where the order was learned",
    "landscape": "A rank loss over a plane of scores, for growing lambda",
    "batch_map": "Mean average precision to expect of a mini-batch, against its size",
    "scores": "Scores of positives and negatives",
    "sparsity": "Share of scores that have a gradient, against lambda and over training",
    "ties": "How often scores tie, against the length of rows and over training",
    "embedding": "Images of some classes where the model puts them, brought into a plane",
    "targets": "Training samples by target (many, medium, few shot)",
    "errors": "Error by target (many, medium, few shot)",
    "predictions": "Predicted against true targets",
}


@dataclass(frozen=True)
class Drawn:
    """A figure on disk: how it is called, what is under it and what it says to those who do not see it."""

    path: Path
    title: str
    caption: str
    alt: str


def draw(study: Study, folder: Path, stem: str, suffix: str = ".svg") -> tuple[list[Drawn], list[str]]:
    """Draws what the runs of a study hold enough for: learning curves, heat maps and sensitivity curves.

    Args:
        study: The runs.
        folder: Where the figures go.
        stem: How their names begin.
        suffix: .svg or .png.

    Returns:
        The figures, and a sentence for each that could not be drawn, or that leaves a run out.
    """
    figures: list[Drawn] = []
    failures: list[str] = []

    def attempt(make: Callable[[], Drawn]) -> None:
        try:
            figures.append(make())
        except (ValueError, OSError) as error:
            failures.append(f"a figure of {study.data} was left out: {error}")

    attempt(lambda: _curves(study, folder / f"{stem}_curves{suffix}", failures.append))
    sweeps = find_sweeps(study.runs)
    for sweep in sweeps[:MOST_SWEEPS]:
        fixed = _place(study, sweep) if len(sweeps) > 1 else ""
        name = "_".join([stem, *(slug(setting) for setting in sweep.settings), *([slug(fixed)] if fixed else [])])
        if len(sweep.settings) == 2:
            attempt(lambda s=sweep, n=name, f=fixed: _map(study, s, folder / f"{n}_map{suffix}", f))  # type: ignore[misc]
        for setting in sweep.settings:
            if _has_curve(sweep, setting):
                path = folder / f"{name}_{slug(setting.rpartition('.')[2])}_curve{suffix}"
                attempt(lambda s=sweep, k=setting, p=path, f=fixed: _sensitivity(study, s, k, p, f))  # type: ignore[misc]
    if len(sweeps) > MOST_SWEEPS:
        failures.append(
            f"{len(sweeps) - MOST_SWEEPS} further sweeps of {study.data} are not drawn; report fewer folders"
        )
    return figures, failures


def pictures(study: Study, say: Say = log.warning) -> dict[str, list[Drawn]]:
    """What the runs drew of themselves on the test split, by kind: of the first seed of the leading methods.

    Args:
        study: The runs.
        say: Receives a sentence for each picture that cannot be read.
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
                described = _description(path)
            except OSError as error:
                say(f"left out: the picture {path} cannot be read ({error})")
                continue
            text = described or PICTURES.get(kind, kind.replace("_", " ").capitalize())
            found.setdefault(kind, []).append(Drawn(path, kind.replace("_", " "), who, f"{text}. {who}."))
    return found


def about(kind: str, drawn: list[Drawn]) -> str:
    """The sentence above the pictures of one kind."""
    return (_description(drawn[0].path) or PICTURES.get(kind, kind.replace("_", " ").capitalize())).rstrip(".") + "."


def inline_svg(path: Path, alt: str, prefix: str) -> str:
    """An SVG of matplotlib as part of a page: its ink follows the page's, and its ids begin with `prefix`.

    The page defines the variables of `PAGE_COLOURS`; the paper becomes transparent.
    """
    text = path.read_text()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    for colour, variable in PAGE_COLOURS.items():
        body = body.replace(colour, variable)
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", body).replace("xlink:href", "href")
    words = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg {box.group() if box else ""} role="img" aria-label="{words}">{body}'


def data_uri(path: Path) -> str:
    """A picture as part of a page."""
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def is_wide(path: Path) -> bool:
    """Whether a picture needs a whole row to be read."""
    if path.suffix != ".png":
        return False
    with Image.open(path) as picture:
        return bool(picture.width > WIDE * picture.height)


def _curves(study: Study, path: Path, say: Say) -> Drawn:
    labels = study.leading(MOST_METHODS)
    metric, measure = study.monitor, study.measure(study.monitor)
    readable = {label: [run for run in study.methods[label] if _has_record(run, metric, say)] for label in labels}
    readable = {label: members for label, members in readable.items() if members}
    spread = _spread(list(readable.values()))
    folders = {study.short[label]: [run.folder for run in members] for label, members in readable.items()}
    percent, label = measure.kind == "share", measure.axis(metric)
    learning_curves(path, folders, metric, label, spread=spread, percent=percent, shared_epochs=True)
    more = f" The {len(labels)} best of {len(study.methods)} methods." if len(labels) < len(study.methods) else ""
    ends = [f"{study.short[label]} {found.shown(measure)}" for label in labels
            if (found := cell(study.methods[label], "last", metric)) is not None]  # fmt: skip
    over = " (mean ± half of the 95 % interval over seeds)" if any("±" in end for end in ends) else ""
    return Drawn(
        path, "Learning curves", f"{label}, against the epoch; epoch 0 is before training.{more}",
        f"Lines of {label} against the epoch. After the last epoch{over}: {'; '.join(ends)}.",
    )  # fmt: skip


def _map(study: Study, sweep: Sweep, path: Path, fixed: str) -> Drawn:
    x, y = sweep.settings
    metric, label = study.monitor, study.measure(study.monitor).axis(study.monitor)
    grid = heat_map(path, sweep.runs, x, y, metric, selection=study.selection, label=label)
    good = grid.mean if study.higher_is_better else -grid.mean
    row, column = divmod(int(_nan_least(good).argmax()), len(grid.x))
    best = f"{x} {shown(grid.x[column])} and {y} {shown(grid.y[row])}"
    few, many = int(grid.seeds[grid.seeds > 0].min()), int(grid.seeds.max())
    seeds = f"{few} to {many} seeds" if few < many else f"{few} seed" + ("s" if few > 1 else "")
    return Drawn(
        path, f"{x} and {y}",
        f"Mean {label} ({SELECTED[study.selection]}) over {seeds}{_with(fixed)}; light is better.",
        f"Heat map of {label} over {x} and {y}{_with(fixed)}. The best cell is at {best}.",
    )  # fmt: skip


def _sensitivity(study: Study, sweep: Sweep, setting: str, path: Path, fixed: str) -> Drawn:
    measure = study.measure(study.monitor)
    label = measure.axis(study.monitor)
    cells: dict[str, list[Run]] = {}
    for run in sweep.runs:
        cells.setdefault(run.label, []).append(run)
    spread = _spread(list(cells.values()))
    lines = sensitivity(
        path, sweep.runs, setting, study.monitor, selection=study.selection, spread=spread, label=label
    )  # fmt: skip
    factor, digits = measure.factor, 1 if measure.kind == "share" else 3
    words = [
        f"{name}: " + ", ".join(f"{factor * sum(v) / len(v):.{digits}f} at {at:g}" for at, v in points.items())
        for name, points in lines.items()
    ]
    return Drawn(
        path, f"Sensitivity to {setting}", f"{label} ({SELECTED[study.selection]}) against {setting}{_with(fixed)}.",
        f"Curves of {label} against {setting}. {'; '.join(words)}.",
    )  # fmt: skip


def _spread(groups: list[list[Run]]) -> str:
    return "interval" if min(map(len, groups), default=0) >= SEEDS_FOR_INTERVAL else "range"


def _has_record(run: Run, metric: str, say: Say) -> bool:
    """Whether a run has a learning curve; says so if not, as that must not cost the others theirs."""
    try:
        if recorded_curve(run.folder / "metrics.jsonl", metric):
            return True
        reason = f"metrics.jsonl has no {metric}"
    except (ValueError, OSError) as error:
        reason = str(error)
    say(f"{run.folder} is left out of the learning curves: {reason}")
    return False


def _has_curve(sweep: Sweep, setting: str) -> bool:
    values = varied(sweep.runs)
    lines = max((len(set(v)) for key, v in values.items() if key in sweep.settings and key != setting), default=1)
    return len(set(values[setting])) >= 3 and lines <= MOST_METHODS


def _place(study: Study, sweep: Sweep) -> str:
    """What the runs of one of several sweeps have in common and the study's others have not."""
    words = [set(study.short[run.label].split()) for run in sweep.runs]
    swept = tuple(f"{setting}=" for setting in sweep.settings)
    return " ".join(sorted(w for w in set.intersection(*words) if not w.startswith(swept)))


def _with(fixed: str) -> str:
    return f", with {fixed}" if fixed else ""


def _nan_least(values: Any) -> Any:
    import numpy as np

    return np.where(np.isnan(values), -np.inf, values)


def _description(path: Path) -> str:
    """What a PNG says of itself."""
    if path.suffix != ".png":
        return ""
    with Image.open(path) as picture:
        return str(picture.info.get("Description", ""))
