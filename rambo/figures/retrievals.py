"""Pictures of what ranking losses do: landscapes and retrievals, as PNG, SVG or PDF by the suffix of the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn

from harness.show.figures import RIGHT, WRONG, drawing
from rambo.evaluation import Embedded, embed
from rambo.labels import alike_at
from rambo.ranking import ranks
from rambo.search import nearest


def loss_landscape(
    path: Path, interpolations: Sequence[float] = (1e-6, 1, 2, 4, 8, 16), resolution: int = 80
) -> dict[float, Tensor]:
    """Draws a rank loss over a plane of scores as blackbox differentiation sees it, for growing lambda.

    With lambda near 0 this is the loss itself, linearised in the ranks: flat between jumps. A larger lambda joins the
    steps by slopes that a gradient can follow.

    Args:
        path: The file to write.
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

    columns = min(len(surfaces), 3)
    rows = -(-len(surfaces) // columns)
    with drawing(path, (3.1 * columns, 3.2 * rows), layout=None, dpi=110) as figure:
        figure.subplots_adjust(left=0.0, right=0.95, bottom=0.04, top=0.94, wspace=0.02, hspace=0.14)
        for i, (value, surface) in enumerate(surfaces.items(), start=1):
            axes: Any = figure.add_subplot(rows, columns, i, projection="3d")
            colours = matplotlib.colormaps["coolwarm"](surface.numpy() / float(surface.max()))
            fine = {"rcount": resolution, "ccount": resolution, "rasterized": True}
            axes.plot_surface(a.numpy(), b.numpy(), surface.numpy(), facecolors=colours, **fine)
            axes.set_title(f"λ = {value:g}".replace("e-0", "e-"), pad=0)
            axes.set(xticks=[], yticks=[], zticks=[])
            axes.set_xlabel("scores, direction 1", fontsize=8, labelpad=-12)
            axes.set_ylabel("direction 2", fontsize=8, labelpad=-12)
            axes.set_zlabel("loss", fontsize=8, labelpad=-12)
    return surfaces


def _interpolated_loss(scores: Tensor, slope: Tensor, interpolation: float) -> Tensor:
    """f(y) = g.rk(y') - (y.rk(y) - y.rk(y')) / lambda, where y' = y + lambda g; minus its minimum."""
    items = scores.shape[-1]
    before = ranks(scores).double() / items
    after = ranks(scores + interpolation * slope).double() / items
    height = (after * slope).sum(-1) - (scores * (before - after)).sum(-1) / interpolation
    return height - height.min()


def retrieval_grid(path: Path, model: nn.Module, loader: Any, queries: int = 8, shown: int = 8) -> float:
    """Draws queries, spread evenly over the data set, and what the model finds nearest, right and wrong marked.

    Args:
        path: The file to write.
        model: Embeds batches.
        loader: An evaluation loader whose `dataset` has `image(index)`, uint8 (3, height, width).
        queries, shown: Rows, and neighbours of each.

    Returns:
        The share of right ones among all neighbours shown.
    """
    return retrievals_of(path, embed(model, loader), loader.dataset.image, queries, shown)


def retrievals_of(
    path: Path, data: Embedded, image: Callable[[int], Tensor], queries: int = 8, shown: int = 8
) -> float:
    """`retrieval_grid` of images that are embedded already; `image` gives the picture at a place in the data set."""
    asking, neighbours = neighbours_of_some(data, queries, shown)
    right = alike_at(data.labels[asking], data.labels, neighbours)
    columns = neighbours.shape[1] + 1
    with drawing(path, (1.05 * columns, 1.15 * len(asking)), dpi=110) as figure:
        axes = figure.subplots(len(asking), columns, squeeze=False)
        for row, query in enumerate(asking.tolist()):
            _show(axes[row, 0], image(int(data.indices[query])), "query", "black")
            for column, found in enumerate(neighbours[row].tolist(), start=1):
                sign, colour = ("✓", RIGHT) if right[row, column - 1] else ("✗", WRONG)
                _show(axes[row, column], image(int(data.indices[found])), sign, colour)
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
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9, color=colour, pad=2)
    axes.spines[:].set(color=colour, linewidth=2, visible=True)
