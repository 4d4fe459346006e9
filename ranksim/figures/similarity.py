"""The picture of the idea: how alike targets are beside how alike features are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from harness.show.figures import drawing
from rambo.ranking import unit_vectors
from ranksim.figures.targets import axis_label, interval_means, intervals
from ranksim.metrics import average_ranks, column, correlation


class Similarity(NamedTuple):
    """How alike the groups of samples are, and how well that goes with their labels.

    Attributes:
        matrix: float64 (groups, groups); nan where there are no two samples to compare.
        agreement: Spearman's correlation of each row with that of the targets, its mean over the rows.
    """

    matrix: Tensor
    agreement: float


def similarity_matrices(
    path: Path,
    features: Mapping[str, Tensor],
    targets: Tensor,
    *,
    quantity: str = "target",
    unit: str = "",
) -> dict[str, Similarity]:
    """Draws how alike targets are beside how alike features are: where both orders agree, the pictures do.

    Samples are grouped by target, in at most 30 intervals of equal width: single samples would show their noise, and
    common targets would fill the picture. The similarity of targets is the negative distance of the group means, that
    of features the mean cosine of two different samples. Each panel has its own colours, as order counts and not size.

    Args:
        path: The file to write.
        features: (samples, dimensions) by title, such as before and after training.
        targets: (samples,).
        quantity, unit: What is predicted, for the axes.

    Returns:
        The matrices by title, that of the targets under `targets`.

    Raises:
        ValueError: If features are none, of another number than targets or not finite, or all targets are equal.

    Source: Gong et al. 2022, section 3, which compares the two matrices row by row.
    """
    truth = column("targets", targets)
    low, high = float(truth.min()), float(truth.max())
    if not features or "targets" in features or low == high:
        raise ValueError(
            "similarities need two different targets, and features under one title at least, none of them `targets`; "
            f"got targets from {low:g} to {high:g} and titles {list(features)}"
        )
    edges, places = intervals(truth)
    middle = interval_means(truth, places, edges)
    labels = -(middle[:, None] - middle[None, :]).abs()
    found = {"targets": Similarity(labels, 1.0)}
    for title, values in features.items():
        cosines = _group_cosines(title, values, places, len(edges) - 1)
        found[title] = Similarity(cosines, _agreement(labels, cosines))

    layout = ConstrainedLayoutEngine(compress=True, wspace=0.09)
    with drawing(path, (3.4 * len(found), 3.2), layout) as figure:
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, (title, (matrix, agreement)) in zip(panels, found.items(), strict=True):
            image = axes.pcolormesh(edges.numpy(), edges.numpy(), matrix.numpy(), cmap="viridis", rasterized=True)
            axes.set(aspect="equal", xlabel=axis_label(quantity, unit), facecolor="#bbbbbb")
            is_label = title == "targets"
            words = (f"similarity of {quantity}", "") if is_label else (title, f"rank correlation {agreement:.2f}")
            axes.set_title("\n".join(words), fontsize=10)
            colours = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03)
            colours.set_label(axis_label("negative distance", unit) if is_label else "cosine of features", fontsize=9)
            colours.ax.tick_params(labelsize=8)
        panels[0].set_ylabel(axis_label(quantity, unit))
        panels[0].invert_yaxis()
    return found


def _group_cosines(title: str, features: Tensor, places: Tensor, groups: int) -> Tensor:
    """The mean cosine of two different samples, one of each group; nan where there are no two."""
    rows = features.detach().cpu().double().flatten(1)
    if len(rows) != len(places) or not bool(rows.isfinite().all()):
        raise ValueError(f"the features {title} must be finite, one row a target; got {tuple(features.shape)}")
    rows = unit_vectors(rows)
    sums = torch.zeros(groups, rows.shape[1], dtype=torch.float64).index_add_(0, places, rows)
    sizes = torch.bincount(places, minlength=groups).double()
    own = torch.zeros(groups, dtype=torch.float64).index_add_(0, places, rows.square().sum(1))
    pairs = sizes[:, None] * sizes[None, :] - sizes.diag()
    cosines = (sums @ sums.T - own.diag()) / pairs
    return cosines.masked_fill(pairs == 0, math.nan)


def _agreement(labels: Tensor, cosines: Tensor) -> float:
    """Spearman's correlation of each row of the two matrices, its mean over the rows that have one; else nan."""
    found = []
    for a, b in zip(labels, cosines, strict=True):
        both = ~(a.isnan() | b.isnan())
        found.append(correlation(average_ranks(a[both]), average_ranks(b[both])))
    values = [float(value) for value in found if value is not None]
    return sum(values) / len(values) if values else math.nan
