"""Pictures of runs, as PNG, SVG or PDF by the suffix of the path. Each call returns what it drew."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from harness.files import from_json, write_whole
from harness.record import runs
from harness.study.uncertainty import interval
from harness.words import numbered

INK, GRID, PAPER = "#1f2328", "#d0d4da", "#ffffff"
# Okabe and Ito's colours, told apart by the colour-blind; without the pale yellow, unreadable on paper, and with a
# darker purple, as theirs and the green are one grey to some. Markers and dashes tell lines apart in grey print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8b3f7f", "#e69f00", "#56b4e9", INK)
RIGHT, WRONG = COLOURS[:2]  # of what is marked by a sign, hatching or dashes as well
MARKERS = "os^Dv<>p*hPX"
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
SPREADS = {"range": "range of the seeds", "interval": "95 % interval over seeds"}
FORMATS: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE: dict[Any, Any] = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": GRID, "figure.facecolor": PAPER, "axes.facecolor": PAPER, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 5,
    "lines.markeredgewidth": 0, "text.parse_math": False, "svg.hashsalt": "figure",  # equal figures are equal files
}  # fmt: skip


def learning_curves(
    path: Path,
    runs: Mapping[str, Iterable[Path]],
    metric: str,
    label: str,
    *,
    spread: str = "range",
    percent: bool = False,
    shared_epochs: bool = False,
) -> dict[str, np.ndarray]:
    """Draws a metric against the epoch, mean over the runs of each method with a band over its seeds.

    Args:
        path: The file to write.
        runs: Run folders by method.
        metric, label: A name in metrics.jsonl, such as `test/recall@1`, and what the axis says.
        spread: What the band is: `range`, from the lowest to the highest seed, or `interval`, the 95 % t-interval of
            the mean. A single run has none.
        percent: Whether the axis shows a share of 1 in percent.
        shared_epochs: Whether runs that stopped early are drawn as far as all runs of their method go.

    Returns:
        The values drawn, (runs, epochs) by method.

    Raises:
        ValueError: If the runs of a method were not evaluated at the same epochs, a method has no run, or its record
            holds no such metric or is truncated.
    """
    if not runs:
        raise ValueError(f"there is no method to draw {metric} of")
    drawn: dict[str, np.ndarray] = {}
    epochs = {}
    for name, folders in runs.items():
        epochs[name], drawn[name] = _curves(name, list(folders), metric, shared_epochs)
    texts = {name: f"{name} ({numbered(len(values), 'seed')})" for name, values in drawn.items()}
    with drawing(path, (6, 3.4 + legend_height(texts.values()))) as figure:
        axes = figure.subplots()
        for place, (name, values) in enumerate(drawn.items()):
            look = line_style(place)
            axes.plot(epochs[name], values.mean(0), label=texts[name], **look)
            low, high = band(values, spread)
            axes.fill_between(epochs[name], low, high, alpha=0.18, color=look["color"], linewidth=0)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        legend_below(figure, axes, spread if any(len(values) > 1 for values in drawn.values()) else None)
    return drawn


def band(values: np.ndarray, spread: str) -> tuple[np.ndarray, np.ndarray]:
    """From where to where the seeds of each point reach: (runs, points) -> (points,) twice; the mean for one run.

    Raises:
        ValueError: If `spread` is no key of `SPREADS`.
    """
    if spread not in SPREADS:
        raise ValueError(f"spread must be one of {', '.join(SPREADS)}, got {spread!r}")
    if len(values) < 2 or spread == "range":
        return values.min(0), values.max(0)
    found = [interval(column) if np.isfinite(column).all() else None for column in values.T.tolist()]
    low, high = ([np.nan if one is None else getattr(one, end) for one in found] for end in ("low", "high"))
    return np.array(low), np.array(high)


def line_style(place: int) -> dict[str, Any]:
    """Colour, marker and dashes of one of several lines; no two of the first 84 look alike."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }


@contextmanager
def drawing(path: Path, size: tuple[float, float], layout: Any = "constrained", dpi: int = 150) -> Iterator[Figure]:
    """A figure of `size` inches in the style of all, written to `path` when the block ends.

    Raises:
        ValueError: If `path` ends in no key of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"a figure is written as {' or '.join(FORMATS)}, got {path.name}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout=layout)
        yield figure
        save(figure, path, dpi)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure whole, or leaves what `path` held before and raises WriteError."""
    kind, facts = path.suffix[1:], FORMATS[path.suffix]
    write_whole(path, lambda file: figure.savefig(file, dpi=dpi, format=kind, metadata=facts))


def legend_below(figure: Figure, axes: Any, spread: str | None) -> None:
    """The legend under the axes, where it hides no line, with what the band or bar is."""
    handles, names = axes.get_legend_handles_labels()
    title = f"mean, with the {SPREADS[spread]}" if spread else None
    look = {"ncols": _legend_columns(names), "fontsize": 9, "title_fontsize": 9}
    figure.legend(handles, names, loc="outside lower center", title=title, **look)


def legend_height(names: Iterable[str]) -> float:
    """Inches that `legend_below` takes."""
    names = list(names)
    return 0.3 + 0.2 * math.ceil(len(names) / _legend_columns(names))


def _legend_columns(names: Sequence[str]) -> int:
    return 1 if max(map(len, names), default=0) > 34 else 2


def _curves(name: str, folders: list[Path], metric: str, shared_epochs: bool) -> tuple[list[int], np.ndarray]:
    curves = [recorded_curve(folder, metric) for folder in folders]
    if not curves or not all(curves):
        raise ValueError(f"no {metric} to draw: {'a run' if curves else 'there is no run'} of {name} has none")
    epochs = [epoch for epoch in curves[0] if all(epoch in curve for curve in curves)]
    if not epochs or (not shared_epochs and any(list(curve) != epochs for curve in curves)):
        raise ValueError(f"the runs of {name} were not evaluated at the same epochs, so they have no mean")
    return epochs, np.array([[curve[epoch] for epoch in epochs] for curve in curves])


def recorded_curve(folder: Path, metric: str) -> dict[int, float]:
    """What the run in `folder` recorded of `metric`, by epoch; nan where it was not finite.

    Raises:
        OSError: If the record is missing.
        ValueError: If it is truncated, or not what a run writes.
    """
    file, content = folder / runs.METRICS, runs.read_metrics(folder)
    try:
        lines = [from_json(line) for line in content.decode().splitlines()]
    except ValueError as error:
        raise ValueError(f"{file} is truncated or not JSON ({error}); repeat the run") from error
    told = [line[key] for line in lines if isinstance(line, dict) for key in ("epoch", metric) if key in line]
    if not all(isinstance(line, dict) for line in lines) or not all(isinstance(x, int | float | None) for x in told):
        raise ValueError(f"{file} is not what a run writes; repeat the run")
    # null stands for a number that was not finite
    return {x["epoch"]: np.nan if x[metric] is None else x[metric] for x in lines if metric in x and "epoch" in x}
