"""Pictures of imbalanced regression, as PNG, SVG or PDF by the suffix of the path: densities, errors, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from harness.show.figures import COLOURS, drawing, line_style
from ranksim.bins import SHOTS, Density
from ranksim.metrics import column

Results = Mapping[str, tuple[Tensor, Tensor]]
# Told apart by the colour-blind, and by lightness, hatching, marker or dashes as well.
LOOKS = {  # of a shot: the fill of its bars, their hatching, and the shade of its region
    "many": ("#56789c", "", "#e6edf4"),
    "medium": ("#e0b050", "////", "#faf1da"),
    "few": ("#d98c6c", "xxxx", "#f8e5dc"),
}
POINTS = 30  # of a curve, and rows of a matrix: as many as a column of a paper can show


def target_density(
    path: Path,
    density: Density,
    smoothed: Mapping[str, Tensor] | None = None,
    *,
    logarithmic: bool = False,
    shot_rule: str = "counts",
    many: int = 100,
    few: int = 20,
    quantity: str = "target",
    unit: str = "",
) -> dict[str, Tensor]:
    """Draws how many training samples each target has, the shots marked, and smoothed densities to choose from.

    A smoothed density is drawn with as many samples in all as there are, as only its shape decides the weights.

    Args:
        path: The file to write.
        density: Of the training targets.
        smoothed: Smoothed counts (bins,) by what the legend calls them.
        logarithmic: Whether heights are; then the tails show, whose weights the choice of a kernel changes most.
        shot_rule, many, few: As in `Density.shots`.
        quantity, unit: What is predicted, for the axes.

    Returns:
        The heights drawn, float64 (bins,): the training samples under `samples`, and each smoothed density.

    Raises:
        ValueError: If a smoothed density has not one count a bin, or nothing in it.
    """
    heights = {"samples": density.counts.double()}
    for name, counts in (smoothed or {}).items():
        if counts.shape != density.counts.shape or not float(counts.sum()) > 0:
            raise ValueError(
                f"the smoothed density {name} needs a count for each of {len(density.counts)} bins, not all 0; "
                f"got {tuple(counts.shape)} with sum {float(counts.sum())}"
            )
        counts = counts.cpu().double()
        heights[name] = counts * heights["samples"].sum() / counts.sum()
    shots = density.shots(shot_rule, many, few)
    top = max(float(height.max()) for height in heights.values())
    with drawing(path, (6.4, 3.6)) as figure:
        axes = figure.subplots()
        _bars(axes, density, shots, _occupied(density))
        for place, (name, height) in enumerate(list(heights.items())[1:]):
            look = {**line_style(place), "marker": "", "linewidth": 1.8}
            axes.plot(density.bins.centres.tolist(), height.tolist(), label=name, **look)
        for count in (few, many) if shot_rule == "counts" else ():
            if count < top:
                axes.axhline(count, color="#555555", linewidth=0.8, dashes=(2, 2))
        axes.set(xlabel=axis_label(quantity, unit), ylabel="training samples", ylim=(0, 1.05 * top))
        if logarithmic:
            axes.set(yscale="log", ylim=(0.5, 1.5 * top))
            axes.yaxis.set_major_formatter("{x:g}")
        _legend(figure, axes, _shot_patches(shots, shot_rule, many, few))
    return heights


def error_by_target(
    path: Path,
    results: Results,
    density: Density,
    *,
    shot_rule: str = "counts",
    many: int = 100,
    few: int = 20,
    quantity: str = "target",
    unit: str = "",
) -> dict[str, Tensor]:
    """Draws the mean absolute error of each method against the target, above the training samples at that target.

    Args:
        path: The file to write.
        results: Predictions and targets, each (samples,), by method.
        density: Of the training targets.
        shot_rule, many, few: As in `Density.shots`.
        quantity, unit: What is predicted, for the axes.

    Returns:
        Target and error of each point by method, float64 (points, 2). Neighbouring bins are joined to 30 points at
        most; the error is nan where no sample is.

    Raises:
        ValueError: If there is no method, or as `ranksim.metrics.regression_metrics`.
    """
    pairs = _pairs(results)
    first, end = _occupied(density, *(truth for _, truth in pairs.values()))
    joined = -(-(end - first) // POINTS)
    edges = density.bins.edges[[*range(first, end, joined), end]].double()
    curves = {}
    for name, (guess, truth) in pairs.items():
        places = (density.bins(truth.float()) - first) // joined
        errors = interval_means((guess - truth).abs(), places, edges)
        curves[name] = torch.stack([(edges[1:] + edges[:-1]) / 2, errors], dim=1)
    shots = density.shots(shot_rule, many, few)
    with drawing(path, (6.4, 4.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        _shade(upper, density, shots)
        for place, (name, curve) in enumerate(curves.items()):
            look = {**line_style(place), "linewidth": 1.6, "markersize": 4.5}
            upper.plot(*curve.T.tolist(), label=name, **look)
        _bars(lower, density, shots, (first, end))
        upper.set(ylabel=axis_label("mean absolute error", unit))
        upper.set_ylim(bottom=0)
        lower.set(xlabel=axis_label(quantity, unit), ylabel="training\nsamples")
        _legend(figure, upper, _shot_patches(shots, shot_rule, many, few))
    return curves


def predicted_against_true(
    path: Path, results: Results, *, quantity: str = "target", unit: str = ""
) -> dict[str, Tensor]:
    """Draws each prediction over its target, the diagonal of perfect ones, and the mean prediction along the targets.

    Args:
        path: The file to write.
        results: Predictions and targets, each (samples,), by method.
        quantity, unit: What is predicted, for the axes.

    Returns:
        Target and mean prediction by method, float64 (points, 2), over at most 30 intervals of the targets; the mean is
        nan where no sample is.

    Raises:
        ValueError: If there is no method, or as `ranksim.metrics.regression_metrics`.
    """
    pairs = _pairs(results)
    everything = torch.cat([torch.cat(pair) for pair in pairs.values()])
    margin = 0.03 * max(float(everything.max() - everything.min()), 1e-6)
    limits = (float(everything.min()) - margin, float(everything.max()) + margin)
    columns = min(len(pairs), 4)
    rows = -(-len(pairs) // columns)
    drawn = {}
    with drawing(path, (2.5 * columns + 0.5, 3.2 * rows + 0.4), "compressed") as figure:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, (guess, truth)) in zip(panels.flat, pairs.items(), strict=False):
            edges, places = intervals(truth)
            drawn[name] = torch.stack([interval_means(values, places, edges) for values in (truth, guess)], dim=1)
            opacity = min(0.6, max(0.05, 600 / len(truth)))
            axes.scatter(truth.tolist(), guess.tolist(), s=7, color=COLOURS[0], alpha=opacity, linewidths=0)
            axes.plot(limits, limits, color="black", linewidth=1, dashes=(4, 2), label="perfect")
            axes.plot(*drawn[name].T.tolist(), color=COLOURS[1], linewidth=2, label="mean prediction")
            axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=axis_label(f"true {quantity}", unit))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            error = float((guess - truth).abs().mean())
            axes.set_title(f"{name}\nMAE {error:.3g}{' ' + unit if unit else ''}", fontsize=10)
            axes.tick_params(labelbottom=True)
        for axes in panels[:, 0]:
            axes.set_ylabel(axis_label(f"predicted {quantity}", unit))
        for axes in panels.flat[len(pairs) :]:
            axes.remove()
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return drawn


def _pairs(results: Results) -> dict[str, tuple[Tensor, Tensor]]:
    """Predictions and targets by method, checked, float64 on the CPU."""
    if not results:
        raise ValueError("a picture of results needs the predictions and targets of one method at least, got none")
    pairs = {name: (column("predictions", a), column("targets", b)) for name, (a, b) in results.items()}
    for name, (guess, truth) in pairs.items():
        if guess.shape != truth.shape:
            raise ValueError(f"{name} has {len(guess)} predictions for {len(truth)} targets")
    return pairs


def intervals(truth: Tensor) -> tuple[Tensor, Tensor]:
    """At most 30 intervals of equal width that hold the targets: their edges, and in which one each target is."""
    groups = min(POINTS, len(torch.unique(truth)))
    edges = torch.linspace(float(truth.min()), float(truth.max()), groups + 1, dtype=torch.float64)
    return edges, torch.bucketize(truth, edges[1:-1], right=True)


def interval_means(values: Tensor, places: Tensor, edges: Tensor) -> Tensor:
    """The mean of the values at each place, nan where there are none: (edges - 1,)."""
    sums = torch.zeros(len(edges) - 1, dtype=torch.float64).index_add_(0, places, values)
    return sums / torch.bincount(places, minlength=len(edges) - 1)  # 0 / 0 is nan


def _occupied(density: Density, *targets: Tensor) -> tuple[int, int]:
    """The first bin with a training sample or one of the targets, and the bin behind the last such."""
    places = torch.cat([density.bins(values.float()) for values in (density.targets, *targets)])
    return int(places.min()), int(places.max()) + 1


def _bars(axes: Any, density: Density, shots: Tensor, shown: tuple[int, int]) -> None:
    """The training samples of each bin, filled as their shot; regions of a shot shaded behind."""
    edges = density.bins.edges.double()
    _shade(axes, density, shots)
    for place, name in enumerate(SHOTS):
        of_shot = (shots == place) & (density.counts > 0)
        starts, heights, widths = (x[of_shot].tolist() for x in (edges[:-1], density.counts, edges.diff()))
        axes.bar(starts, heights, widths, align="edge", **_fill(name))
    axes.set_xlim(float(edges[shown[0]]), float(edges[shown[1]]))


def _shade(axes: Any, density: Density, shots: Tensor) -> None:
    """Shades the regions of each shot, unless they are so many that they would be stripes."""
    starts = [0, *(shots.diff().nonzero()[:, 0] + 1).tolist()]
    if len(starts) > POINTS // 2:
        return
    edges = density.bins.edges.tolist()
    for start, stop in zip(starts, [*starts[1:], len(shots)], strict=True):
        axes.axvspan(edges[start], edges[stop], color=LOOKS[SHOTS[int(shots[start])]][2], linewidth=0)


def _shot_patches(shots: Tensor, shot_rule: str, many: int, few: int) -> list[Patch]:
    words = {"many": f"many (> {many})", "medium": f"medium ({few} to {many})", "few": f"few (< {few})"}
    present = [name for place, name in enumerate(SHOTS) if bool((shots == place).any())]
    return [Patch(**_fill(name), label=words[name] if shot_rule == "counts" else name) for name in present]


def _fill(name: str) -> dict[str, Any]:
    """How a shot's bars look."""
    colour, hatch, _ = LOOKS[name]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.3}


def _legend(figure: Figure, axes: Any, patches: list[Patch]) -> None:
    """Lines, then shots in a row of their own, above the picture, where they hide nothing."""
    columns, lines = 3, axes.get_legend_handles_labels()[0]
    nothing = Patch(visible=False, label="")
    cells = [*lines, *[nothing] * (-len(lines) % columns), *patches, *[nothing] * (columns - len(patches))]
    down = [cell for column in range(columns) for cell in cells[column::columns]]  # as matplotlib fills a legend
    figure.legend(handles=down, loc="outside upper center", ncols=columns, fontsize=9, handlelength=2.6)


def axis_label(quantity: str, unit: str) -> str:
    """A quantity with its unit, if it has one."""
    return f"{quantity} ({unit})" if unit else quantity
