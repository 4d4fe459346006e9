"""The picture of an embedding: images of some classes as points of a plane."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from harness.show.figures import COLOURS, MARKERS, drawing
from rambo.labels import several
from rambo.ranking.exact import one_of

TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
METHODS = tuple(TITLES)


class Projection(NamedTuple):
    """Points of a plane, float64 (images shown, 2), and their classes, int64 (images shown,).

    Attributes:
        indices: Which rows of the embeddings they are, int64 (images shown,).
        explained: The share of the variance along each axis of a principal component analysis; else nan.
    """

    points: Tensor
    labels: Tensor
    indices: Tensor
    explained: tuple[float, float]


def embedding_projection(
    path: Path,
    embeddings: Tensor,
    labels: Tensor,
    *,
    names: Mapping[int, str] | None = None,
    classes: int = len(COLOURS),
    method: str = "pca",
    seed: int = 0,
) -> Projection:
    """Draws the images of some classes where a projection of their embeddings puts them.

    The classes are spread evenly over the labels, and the projection is that of the images shown. Principal components
    keep distances as well as a plane can; t-SNE and UMAP show neighbourhoods, and distances between groups say nothing.

    Args:
        path: The file to write.
        embeddings: (images, dimensions).
        labels: int64 (images,).
        names: Of the classes, for the legend; those without one go by number.
        classes: How many are shown, 7 at most.
        method, seed: "pca"; or "tsne" (needs scikit-learn) or "umap" (needs umap-learn), which are random.

    Raises:
        ValueError: If images have several labels, the method is unknown, classes are not 1 to 7, or fewer than three
            images are to be shown.
        ModuleNotFoundError: If the package of the method is not installed.
    """
    one_of("method", method, METHODS)
    if not 1 <= classes <= len(COLOURS):
        raise ValueError(f"1 to {len(COLOURS)} classes can be told apart in one picture, got {classes}")
    if several(labels):
        raise ValueError("a projection gives each image the colour of its class, and these have several labels")
    labels = labels.cpu()
    present = torch.unique(labels)
    chosen = present[torch.linspace(0, len(present) - 1, min(classes, len(present))).round().long()]
    indices = torch.isin(labels, chosen).nonzero()[:, 0]
    if len(indices) < 3:
        raise ValueError(f"a projection needs three images at least, got {len(indices)}")
    rows, shown = embeddings.detach().cpu().double()[indices], labels[indices]
    explained = (math.nan, math.nan)
    if method == "pca":
        points, explained = principal_components(rows)
    else:
        points = _neighbourhoods(rows, method, seed)
    with drawing(path, (6.2, 4.2)) as figure:
        axes = figure.subplots()
        for place, label in enumerate(chosen.tolist()):
            x, y = points[shown == label].T.tolist()
            look: dict[str, Any] = {"color": COLOURS[place], "marker": MARKERS[place], "edgecolors": "white"}
            name = _short((names or {}).get(label, label))
            axes.scatter(x, y, s=28, label=name, linewidths=0.4, alpha=0.9, **look)
        axes.set(xlabel=f"{TITLES[method]}, first axis (no unit)", ylabel="second axis", xticks=[], yticks=[])
        if method == "pca":
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.yaxis.set_major_locator(MaxNLocator(6))
            axes.set(aspect="equal", xlabel=f"first component ({explained[0]:.0%} of the variance)")
            axes.set_ylabel(f"second component ({explained[1]:.0%})")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="class", fontsize=9)
    return Projection(points, shown, indices, explained)


def principal_components(rows: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Rows (images, dimensions) along the two directions in which they vary most, and their shares of the variance.

    The sign of a direction is such that its largest entry is positive, so that a picture does not flip.
    """
    centred = rows - rows.mean(0)
    if centred.shape[1] < 2:
        centred = torch.nn.functional.pad(centred, (0, 2 - centred.shape[1]))
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    shares = sizes.square() / sizes.square().sum().clamp(min=torch.finfo(sizes.dtype).tiny)
    return centred @ (directions * largest.sign()).T, (float(shares[0]), float(shares[1]))


def _neighbourhoods(rows: Tensor, method: str, seed: int) -> Tensor:
    """The points of t-SNE or UMAP, whose packages few have installed."""
    package, module = ("scikit-learn", "sklearn.manifold") if method == "tsne" else ("umap-learn", "umap")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{TITLES[method]} comes from {package}; run: pip install {package}") from error
    if method == "tsne":
        made = found.TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=seed)
    else:
        made = found.UMAP(n_neighbors=min(15, len(rows) - 1), random_state=seed)
    return torch.from_numpy(made.fit_transform(rows.numpy())).double()


def _short(name: str | int) -> str:
    text = str(name)
    return text if len(text) <= 24 else text[:23] + "…"
