"""Pictures of sweeps: how a metric depends on one setting or on two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from harness.record.measures import Measure
from harness.show.figures import COLOURS, band, drawing, legend_below, legend_height, line_style
from harness.study.results import Run, measure_of
from harness.study.swept import Value, is_number, settings_of, shown, varied

DECADES_FOR_LOG = 1.5  # that the values of a setting span before its axis is logarithmic
MOST_LINES = len(COLOURS)
BESIDE = 3.0  # points between the bars of two lines at one value, which would hide each other


@dataclass(frozen=True)
class Grid:
    """A metric over two settings: the mean over seeds (y values, x values), nan where nothing was run, and how many."""

    x: list[Value]
    y: list[Value]
    mean: np.ndarray
    seeds: np.ndarray


def heat_map(path: Path, runs: Sequence[Run], x: str, y: str, metric: str, selection: str = "last") -> Grid:
    """Draws the mean of a metric over the seeds for every pair of values of two settings, with the number in the cell.

    Light is good: the scale is turned round for an error.

    Args:
        path: The file to write.
        runs: Finished runs that differ in `x`, `y` and the seed alone.
        x, y: The settings along the axes, dotted names of the config, such as loss.interpolation.
        metric: Of the report, such as test/recall@1.
        selection: Which epoch's: last, best_on_validation, best_on_test.

    Returns:
        What was drawn.

    Raises:
        ValueError: If a setting or the metric is missing, does not vary, or a cell would mix other settings, data or
            one seed twice.
    """
    if x == y:
        raise ValueError(f"a heat map takes two settings, got {x} twice")
    cells = _by_values(runs, (x, y), metric, selection)
    wide, high = (sorted({cell[k] for cell in cells}, key=_order) for k in (0, 1))
    for name, values in ((x, wide), (y, high)):
        if len(values) < 2:
            raise ValueError(f"{name} is {shown(values[0])} in all of these runs, so there is no map over it")
    mean, seeds = np.full((len(high), len(wide)), np.nan), np.zeros((len(high), len(wide)), dtype=int)
    for (at_x, at_y), by_seed in cells.items():
        place = high.index(at_y), wide.index(at_x)
        mean[place], seeds[place] = np.mean(list(by_seed.values())), len(by_seed)
    if not np.isfinite(mean).any():
        raise ValueError(f"{metric} is not a number in any cell, so there is no map of it")
    with drawing(path, (max(4.2, 1.9 + 0.85 * len(wide)), max(2.8, 1.3 + 0.55 * len(high)))) as figure:
        axes = figure.subplots()
        measure = measure_of(runs, metric)
        figure.colorbar(_draw_cells(axes, mean, measure), ax=axes, label=measure.axis(metric))
        axes.set_xticks(np.arange(len(wide)) + 0.5, [shown(value) for value in wide])
        axes.set_yticks(np.arange(len(high)) + 0.5, [shown(value) for value in high])
        axes.set(xlabel=x, ylabel=y)
    return Grid(wide, high, mean, seeds)


def sensitivity(
    path: Path, runs: Sequence[Run], setting: str, metric: str, selection: str = "last", spread: str = "interval"
) -> dict[str, dict[float, list[float]]]:
    """Draws a metric against one setting, mean over the seeds, with a bar; a line for each choice of what else varies.

    The axis is logarithmic where the values span decades; a 0 then has its place at the left end.

    Args:
        path: The file to write.
        runs: Finished runs.
        setting: A dotted name of the config whose values are numbers, such as loss.margin.
        metric: Of the report, such as test/recall@1.
        selection: Which epoch's: last, best_on_validation, best_on_test.
        spread: What the bars are: `interval`, the 95 % t-interval of the mean, or `range`.

    Returns:
        The values drawn by line and by value of the setting, one for each seed.

    Raises:
        ValueError: As `heat_map`, or if the values are no numbers or would make more than seven lines.
    """
    swept = [_value(run, setting) for run in runs]
    others = [key for key, values in varied(runs).items() if values != swept]
    cells = _by_values(runs, (*others, setting), metric, selection)
    measure = measure_of(runs, metric)
    lines: dict[str, dict[float, list[float]]] = {}
    for (*rest, at), by_seed in sorted(cells.items(), key=lambda cell: [_order(value) for value in cell[0]]):
        if not is_number(at):
            raise ValueError(f"{setting} has the value {at}, which has no place on an axis")
        name = _words(others, rest) or measure.axis(metric)
        lines.setdefault(name, {})[float(at)] = list(by_seed.values())
    every = sorted({at for points in lines.values() for at in points})
    if len(every) < 2:
        raise ValueError(f"{setting} has one value in all of these runs, so there is no curve over it")
    if len(lines) > MOST_LINES:
        raise ValueError(f"{len(lines)} lines cannot be told apart, at most {MOST_LINES} can; pass fewer runs")
    with drawing(path, (6, 3.4 + legend_height(lines))) as figure:
        axes = figure.subplots()
        for place, (name, points) in enumerate(lines.items()):
            apart = ScaledTranslation(BESIDE * (place - (len(lines) - 1) / 2) / 72, 0, figure.dpi_scale_trans)
            look = {"label": name, "transform": axes.transData + apart, **line_style(place)}
            _draw_line(axes, points, spread, measure.factor, look)
        _scale(axes, every)
        axes.set(xlabel=setting, ylabel=measure.axis(metric))
        axes.grid(True)
        several = any(len(values) > 1 for points in lines.values() for values in points.values())
        legend_below(figure, axes, spread if several else None)
    return lines


def _by_values(
    runs: Sequence[Run], settings: tuple[str, ...], metric: str, selection: str
) -> dict[tuple[Value, ...], dict[int, float]]:
    """The metric by values of the settings and by seed."""
    if not runs:
        raise ValueError("there is no run to draw")
    first = runs[0].report["data"].get("fingerprint")
    if other := next((run for run in runs if run.report["data"].get("fingerprint") != first), None):
        raise ValueError(f"{runs[0].folder} and {other.folder} were run on different data, so no figure may mix them")
    cells: dict[tuple[Value, ...], dict[int, float]] = {}
    members: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        at, seed = tuple(_value(run, name) for name in settings), run.report["seed"]
        if seed in cells.setdefault(at, {}):
            raise ValueError(
                f"{_words(settings, at)}, seed {seed} is there twice: {members[at][0].folder} and {run.folder}"
            )
        metrics = run.metrics(selection)
        if metric not in metrics:
            raise ValueError(f"{run.folder} has no {metric} under {selection}")
        value = metrics[metric]
        cells[at][seed] = math.nan if value is None else value
        members.setdefault(at, []).append(run)
    for at, alike in members.items():
        for key, values in varied(alike).items():
            raise ValueError(
                f"the runs with {settings[0]}={shown(at[0])} also differ in {key} "
                f"({', '.join(map(shown, sorted(set(values), key=_order)))}); pass runs with one of them"
            )
    return cells


def _value(run: Run, setting: str) -> Value:
    there = settings_of(run)
    if setting not in there:
        near = [key for key in there if key.rpartition(".")[2] == setting.rpartition(".")[2]]
        hint = f"; there is {', '.join(near)}" if near else ""
        raise ValueError(f"{run.folder} has no setting {setting}{hint}")
    return there[setting]


def _words(settings: Sequence[str], values: Sequence[Value]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in zip(settings, values, strict=True))


def _order(value: Value) -> tuple[int, float, str]:
    """Numbers by size, then words by letter."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))


def _draw_cells(axes: Any, mean: np.ndarray, measure: Measure) -> Any:
    """Coloured squares with their numbers, in percent where the metric is a share; light is better."""
    drawn = np.ma.masked_invalid(mean * measure.factor)
    mesh = axes.pcolormesh(drawn, cmap="viridis_r" if measure.better == "lower" else "viridis")
    mesh.set_edgecolor("face")  # without it hair lines show between the cells of an SVG
    axes.set_aspect("auto")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    digits = measure.decimals(drawn.compressed().tolist())
    for row, column in np.argwhere(np.isfinite(mean)):
        value = float(drawn[row, column])
        red, green, blue, _ = mesh.to_rgba(value)
        bright = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
        axes.text(
            column + 0.5, row + 0.5, f"{value:.{digits}f}", ha="center", va="center", fontsize=9,
            color="#111111" if bright else "#f7f7f7",
        )  # fmt: skip
    return mesh


def _draw_line(
    axes: Any, points: Mapping[float, list[float]], spread: str, factor: float, look: Mapping[str, Any]
) -> None:
    at = list(points)
    columns = [np.array(values)[:, None] * factor for values in points.values()]
    means = np.array([column.mean() for column in columns])
    low, high = np.array([band(column, spread) for column in columns])[:, :, 0].T
    axes.errorbar(at, means, np.stack([means - low, high - means]), capsize=3, capthick=1.2, elinewidth=1.2, **look)
    axes.update_datalim([*zip(at, low, strict=True), *zip(at, high, strict=True)])  # which a moved line does not do
    axes.autoscale_view()


def _scale(axes: Any, at: list[float]) -> None:
    """A logarithmic axis where the values span decades, and a tick at each of them."""
    positive = [value for value in at if value > 0]
    wide = at[0] >= 0 and positive and math.log10(positive[-1] / positive[0]) >= DECADES_FOR_LOG
    if wide and at[0] == 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
    elif wide:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    if len(at) <= 8:
        axes.xaxis.set_major_locator(FixedLocator(at))
        axes.xaxis.set_minor_locator(NullLocator())
