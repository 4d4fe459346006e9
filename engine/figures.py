"""Pictures of runs. Each call writes a PNG and returns what it drew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def learning_curves(path: Path, runs: Mapping[str, Iterable[Path]], metric: str, label: str) -> dict[str, np.ndarray]:
    """Draws a metric against the epoch, mean over the runs of each method with the range of its seeds.

    Args:
        path: The PNG to write.
        runs: Run folders by method.
        metric: A name in metrics.jsonl, such as `test/recall@1`.
        label: What the axis says.

    Returns:
        The values drawn, (runs, epochs) by method.

    Raises:
        ValueError: If the runs of a method were not evaluated at the same epochs.
    """
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    drawn: dict[str, np.ndarray] = {}
    for (name, folders), marker in zip(runs.items(), "os^Dv<>p*hPX" * 4, strict=False):
        curves = [_curve(folder / "metrics.jsonl", metric) for folder in folders]
        epochs = list(curves[0])
        if any(list(curve) != epochs for curve in curves):
            raise ValueError(f"the runs of {name} were not evaluated at the same epochs, so they have no mean")
        values = np.array([list(curve.values()) for curve in curves])
        drawn[name] = values
        (line,) = axes.plot(epochs, values.mean(0), marker=marker, markersize=4, label=f"{name} ({len(curves)} seeds)")
        axes.fill_between(epochs, values.min(0), values.max(0), alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    return drawn


def _curve(file: Path, metric: str) -> dict[int, float]:
    lines = (json.loads(line) for line in file.read_text().splitlines())
    return {line["epoch"]: line[metric] for line in lines if metric in line}
