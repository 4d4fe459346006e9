"""Pictures of what ranking losses do: landscapes, retrievals, learning curves. Each call writes a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from rambo.metrics import Embedded, embed, nearest
from rambo.ranking import ranks

RIGHT, WRONG = "#0072b2", "#d55e00"  # blue and vermilion, told apart by the colour-blind; marked by sign as well


def loss_landscape(
    path: Path, interpolations: Sequence[float] = (1e-6, 1, 2, 4, 8, 16), resolution: int = 80
) -> dict[float, Tensor]:
    """Draws a rank loss over a plane of scores as blackbox differentiation sees it, for growing lambda.

    With lambda near 0 this is the loss itself, linearised in the ranks: flat between jumps. A larger lambda joins the
    steps by slopes that a gradient can follow.

    Args:
        path: The PNG to write.
        interpolations: Lambda of each surface, in the convention of normalised ranks.
        resolution: Points along each axis.

    Returns:
        The surfaces, each minus its minimum, (resolution, resolution) by lambda.

    Source: Rolinek et al. 2020, figure 1, with the seven scores of the authors' notebook (NumPy's legacy seed 45).
    """
    draws = np.random.RandomState(45)
    offset, plane, slope = (torch.from_numpy(draws.rand(*size)) for size in ((7,), (2, 7), (7,)))
    axis = torch.linspace(0, 1, resolution, dtype=torch.float64)
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    scores = 20 * offset + 30 * (a[..., None] * plane[0] + b[..., None] * plane[1])
    surfaces = {value: _interpolated_loss(scores, slope + 1, value) for value in interpolations}

    figure = Figure(figsize=(3.2 * len(surfaces), 3.4), layout="constrained")
    for i, (value, surface) in enumerate(surfaces.items(), start=1):
        axes: Any = figure.add_subplot(1, len(surfaces), i, projection="3d")
        colours = matplotlib.colormaps["coolwarm"](surface.numpy() / float(surface.max()))
        axes.plot_surface(
            a.numpy(), b.numpy(), surface.numpy(), facecolors=colours, rcount=resolution, ccount=resolution
        )
        axes.set_title(f"λ = {value:g}")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_zticks([])
    figure.savefig(path, dpi=110)
    return surfaces


def _interpolated_loss(scores: Tensor, slope: Tensor, interpolation: float) -> Tensor:
    """f(y) = g.rk(y') - (y.rk(y) - y.rk(y')) / lambda, where y' = y + lambda g; minus its minimum."""
    items = scores.shape[-1]
    before = ranks(scores).double() / items
    after = ranks(scores + interpolation * slope).double() / items
    height = (after * slope).sum(-1) - (scores * (before - after)).sum(-1) / interpolation
    return height - height.min()


def retrieval_grid(path: Path, model: nn.Module, loader: Any, queries: int = 8, shown: int = 8) -> float:
    """Draws queries and what the model finds nearest, right and wrong marked.

    Queries are spread evenly over the data set, so nobody chose them.

    Args:
        path: The PNG to write.
        model: Embeds batches.
        loader: An evaluation loader whose `dataset` has `image(index)`, uint8 (3, height, width).
        queries: Rows.
        shown: Neighbours of each.

    Returns:
        The share of right ones among all neighbours shown.
    """
    data = embed(model, loader)
    asking, neighbours = neighbours_of_some(data, queries, shown)
    right = data.labels[neighbours] == data.labels[asking, None]
    figure = Figure(figsize=(1.05 * (shown + 1), 1.15 * len(asking)), layout="constrained")
    axes = figure.subplots(len(asking), shown + 1, squeeze=False)
    for row, query in enumerate(asking.tolist()):
        _show(axes[row, 0], loader.dataset.image(int(data.indices[query])), "query", "black")
        for column, found in enumerate(neighbours[row].tolist()):
            good = bool(right[row, column])
            image = loader.dataset.image(int(data.indices[found]))
            _show(axes[row, column + 1], image, "✓" if good else "✗", RIGHT if good else WRONG)
    figure.savefig(path, dpi=110)
    return float(right.float().mean())


def neighbours_of_some(data: Embedded, queries: int, shown: int) -> tuple[Tensor, Tensor]:
    """Positions of evenly spread queries and of the images nearest to each: (queries,) and (queries, shown)."""
    asking, found = (data.roles != 2).nonzero()[:, 0], (data.roles != 1).nonzero()[:, 0]
    asking = asking[torch.linspace(0, len(asking) - 1, min(queries, len(asking))).long()]
    place = torch.full_like(data.roles, -1)
    place[found] = torch.arange(len(found), device=place.device)
    count = min(shown, len(found) - 1)
    return asking, found[nearest(data.embeddings[asking], data.embeddings[found], count, place[asking])]


def _show(axes: Any, image: Tensor, title: str, colour: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9, color=colour, pad=2)
    for side in axes.spines.values():
        side.set(color=colour, linewidth=2)
