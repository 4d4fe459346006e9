"""The outcome of a fair comparison as a dot plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.show.figures import COLOURS, INK, drawing
from harness.study.fair_outcome import Outcome
from harness.study.uncertainty import spread


def dot_plot(path: Path, outcome: Outcome) -> dict[str, tuple[float, float, float]]:
    """Draws the mean of every method with its interval and its seeds, the best on top; the baseline is marked.

    Told apart by position, size and shape, so that it can be read without colour.

    Args:
        path: The PNG or SVG to write.
        outcome: With two seeds or more of a method at least.

    Returns:
        Mean, lower and upper end of the interval, by method.

    Raises:
        ValueError: If no method has two seeds.
    """
    if not (keys := outcome.compared):
        raise ValueError("an interval takes at least 2 seeds of a method; there is none to draw")
    fair, drawn = outcome.fair, dict[str, tuple[float, float, float]]()
    with drawing(path, (7, 1.5 + 0.36 * len(keys))) as figure:
        axes = figure.subplots()
        for place, key in enumerate(reversed(keys)):
            values = np.array(list(outcome.values(key).values()))
            found = spread(outcome.values(key))
            assert found is not None
            drawn[key] = found.mean, found.low, found.high
            is_baseline = key == fair.baseline
            below = np.full(len(values), place - 0.27)
            axes.scatter(values, below, s=12, facecolors="none", edgecolors=INK, linewidths=0.7)
            axes.errorbar(
                found.mean, place, xerr=found.half, fmt="s" if is_baseline else "o", markersize=7, capsize=4,
                color=COLOURS[1 if is_baseline else 0], linewidth=1.6,
            )  # fmt: skip
            if is_baseline:
                axes.axvline(found.mean, color=COLOURS[1], linestyle=(0, (4, 3)), linewidth=1, zorder=0)
        names = [outcome.methods[key].name + (" (baseline)" if key == fair.baseline else "") for key in reversed(keys)]
        axes.set_ylim(-0.7, len(keys) - 0.4)
        axes.set_yticks(range(len(keys)), names)
        unit, way = f" [{fair.unit}]" if fair.unit else "", "right" if fair.main.better == "higher" else "left"
        axes.set_xlabel(f"{fair.main.name}{unit} on test: mean, 95 % interval and seeds; better to the {way}")
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        title = fair.title + (" (stand-in data: means nothing)" if outcome.stand_in else "")
        figure.suptitle(title, fontsize=11)
    return drawn
