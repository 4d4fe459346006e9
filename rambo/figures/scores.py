"""Pictures of scores: how they are spread, and what a mini-batch makes of them; each a PNG, an SVG or a PDF."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.ticker import MaxNLocator, NullLocator
from torch import Tensor

from harness.show.figures import RIGHT, WRONG, drawing, line_style
from rambo.labels import alike, memberships, present, several
from rambo.metrics import retrieval_metrics
from rambo.ranking import unit_vectors

BINS = 100  # of a histogram of cosines
_ROWS = 1024  # of scores held at a time


class BatchMap(NamedTuple):
    """What mean average precision is in mini-batches of one size: its `mean` and `deviation` over the `batches`.

    Those are the drawn ones in which a query had a match; without any, both are nan.
    """

    size: int
    mean: float
    deviation: float
    batches: int


def expected_batch_map(
    embeddings: Tensor,
    labels: Tensor,
    size: int,
    *,
    samples_per_class: int | None = None,
    batches: int = 100,
    seed: int = 0,
) -> BatchMap:
    """Mean average precision of mini-batches, each image of a batch a query against the others of it.

    Args:
        embeddings: (images, dimensions).
        labels: int64 (images,), or several labels, bool (images, classes).
        size: Images in a batch.
        samples_per_class: None draws all batches with equal chance, or takes each once if there are no more than
            `batches`; a number draws `size // samples_per_class` classes and so many images of each, as for training.
        batches, seed: How many to draw, and of what seed.

    Raises:
        ValueError: If a batch of that size cannot be drawn.
    """
    drawn = _batches(labels.cpu(), size, samples_per_class, batches, torch.Generator().manual_seed(seed))
    matched = [batch for batch in drawn if _have_match(labels[batch])]
    values = torch.tensor([_map(embeddings[batch], labels[batch]) for batch in matched], dtype=torch.float64)
    deviation = float(values.std(correction=0)) if matched else math.nan
    return BatchMap(size, float(values.mean()), deviation, len(matched))


def batch_map(
    path: Path,
    embeddings: Tensor,
    labels: Tensor,
    *,
    sizes: Sequence[int] | None = None,
    samples_per_class: int | None = None,
    batches: int = 100,
    seed: int = 0,
) -> dict[str, list[BatchMap]]:
    """Draws the mean average precision to expect of a mini-batch against its size, beside that of the whole data set.

    A small batch has few images that could stand before a match, so that it makes a model look better than it is.

    Args:
        path: The file to write.
        embeddings: Of unit length, (images, dimensions).
        labels: int64 (images,).
        sizes: Images in a batch; None: the powers of 2 from 8, up to 1,024 and half of the images.
        samples_per_class: Those of training, to draw a second line; None: none.
        batches, seed: How many are drawn for each size, and of what seed.

    Returns:
        By name of the line; the whole data set is one batch under `whole`.

    Raises:
        ValueError: If no class has two images, or a batch of some size cannot be drawn.

    Source: Rolinek et al. 2020, figure 2.
    """
    most = len(labels)
    sizes = sizes or [size for size in (2**k for k in range(3, 11)) if size <= most // 2] or [most]
    draw = partial(expected_batch_map, embeddings, labels, batches=batches, seed=seed)
    lines = {"images at random": [draw(size) for size in sizes]}
    if (count := samples_per_class) is not None:  # for which a test set may have too few classes
        lines[f"{count} images of each class drawn, as in training"] = [
            draw(size, samples_per_class=count) for size in sizes if _can_draw(labels, size, count)
        ]
    whole = BatchMap(most, _map(embeddings, labels), 0.0, 1)
    top = max(1.03, *(estimate.mean + estimate.deviation + 0.02 for line in lines.values() for estimate in line))
    with drawing(path, (6.2, 4.0)) as figure:
        axes = figure.subplots()
        axes.axhline(whole.mean, color="black", linewidth=1.2, dashes=(5, 2), label=f"whole data set ({most:,} images)")
        for place, (name, line) in enumerate(lines.items()):
            x = [estimate.size * 2 ** (0.06 * place) for estimate in line]  # beside each other, so that both show
            y, spread = [estimate.mean for estimate in line], [estimate.deviation for estimate in line]
            axes.errorbar(x, y, yerr=spread, label=name, capsize=3, elinewidth=1, **line_style(place))
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="images in a mini-batch", ylabel=f"mAP, mean ± sd of {batches} batches", ylim=(0, top))
        axes.grid(True)
        figure.legend(loc="outside upper center", fontsize=9)
    return {**lines, "whole": [whole]}


def _map(embeddings: Tensor, labels: Tensor) -> float:
    return retrieval_metrics(embeddings, labels, recall_at=(1,), map=True)["map"]


def _have_match(labels: Tensor) -> bool:
    return len(present(labels)) < len(memberships(labels)[1])


def _can_draw(labels: Tensor, size: int, samples_per_class: int) -> bool:
    if several(labels):
        raise ValueError(
            "a batch of so many images of each class is drawn from images of one class each, and these have several"
            " labels; leave samples_per_class out, or draw another figure"
        )
    counts = torch.unique(labels, return_counts=True)[1]
    return samples_per_class <= size <= samples_per_class * int((counts >= samples_per_class).sum())


def _batches(
    labels: Tensor, size: int, samples_per_class: int | None, count: int, draws: torch.Generator
) -> Iterator[Tensor]:
    """Places of the images of each batch."""
    images = len(labels)
    if samples_per_class is None:
        if not 2 <= size <= images:
            raise ValueError(f"a batch holds 2 to {images} of {images} images, got {size}")
        if math.comb(images, size) <= count:
            yield from (torch.tensor(places) for places in itertools.combinations(range(images), size))
            return
        for _ in range(count):
            yield torch.randperm(images, generator=draws)[:size]
        return
    if samples_per_class < 2 or not _can_draw(labels, size, samples_per_class):
        raise ValueError(
            f"a batch of {size} cannot hold {samples_per_class} images of each of its classes; use 2 or more, at most "
            "the batch, and no more classes than have so many"
        )
    members = [(labels == label).nonzero()[:, 0] for label in torch.unique(labels)]
    members = [places for places in members if len(places) >= samples_per_class]
    for _ in range(count):
        chosen = torch.randperm(len(members), generator=draws)[: size // samples_per_class].tolist()
        parts = [members[k][torch.randperm(len(members[k]), generator=draws)[:samples_per_class]] for k in chosen]
        yield torch.cat(parts)


class Scores(NamedTuple):
    """How the cosines of a data set are spread.

    Attributes:
        edges: Of bins of equal width from the lowest to the highest, float64 (bins + 1,).
        positives, negatives: Pairs of one class and of two in each bin, each way round, int64 (bins,).
        means: Of the positives and of the negatives.
    """

    edges: Tensor
    positives: Tensor
    negatives: Tensor
    means: tuple[float, float]

    def densities(self) -> tuple[Tensor, Tensor]:
        """Of positives and negatives, each with area 1, float64 (bins,)."""
        width = self.edges.diff()
        return self.positives / self.positives.sum() / width, self.negatives / self.negatives.sum() / width

    @property
    def overlap(self) -> float:
        """The area that both densities share, 0 (apart) to 1 (alike)."""
        return float((torch.minimum(*self.densities()) * self.edges.diff()).sum())


def score_histogram(embeddings: Tensor, labels: Tensor, bins: int = BINS) -> Scores:
    """Counts the cosines of all pairs of two images, in float64: after a collapse they differ by little.

    Args:
        embeddings: (images, dimensions), divided by their length here.
        labels: int64 (images,).
        bins: How many, from the lowest to the highest cosine.

    Raises:
        ValueError: If no pair is of one class, or all are.
    """
    rows = unit_vectors(embeddings.detach().double())
    labels = labels.to(rows.device)
    low, high, sums = math.inf, -math.inf, torch.zeros(2, dtype=torch.float64)
    for pair in _cosines(rows, labels):
        if any(len(values) for values in pair):
            low, high = min(low, float(torch.cat(pair).min())), max(high, float(torch.cat(pair).max()))
        sums += torch.stack([values.sum().cpu() for values in pair])
    width = max(high - low, 1e-12)
    counts = torch.zeros(2, bins, dtype=torch.int64)
    for pair in _cosines(rows, labels):
        for kind, values in enumerate(pair):
            place = ((values - low) * (bins / width)).long().clamp_(0, bins - 1)
            counts[kind] += torch.bincount(place, minlength=bins).cpu()
    if not counts.sum(1).all():
        raise ValueError("score distributions need two images of one class and two of different classes")
    means = (sums / counts.sum(1)).tolist()
    edges = low + width * torch.arange(bins + 1, dtype=torch.float64) / bins
    return Scores(edges, counts[0], counts[1], (means[0], means[1]))


def _cosines(rows: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The cosines of positives and of negatives, some rows at a time, nothing with itself."""
    places = torch.arange(len(rows), device=rows.device)
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        scores, same = rows[some] @ rows.T, alike(labels[some], labels)
        yield scores[same & (places != places[some, None])], scores[~same]


def score_distributions(path: Path, runs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Scores]:
    """Draws how the scores of positives and of negatives are spread, a row of panels for each run.

    Several runs are shown on one scale, and beside it on a scale of their own.

    Args:
        path: The file to write.
        runs: Embeddings (images, dimensions) and labels int64 (images,), by title.

    Returns:
        The histograms by title.

    Raises:
        ValueError: If there is no run, or as `score_histogram`.

    Source: Rolinek et al. 2020, eq. 14 and 15, figure 3.
    """
    if not runs:
        raise ValueError("score distributions need a run at least, got none")
    found = {name: score_histogram(*data) for name, data in runs.items()}
    several = len(found) > 1
    ends = [float(scores.edges[end]) for scores in found.values() for end in (0, -1)]
    room = 0.02 * (max(ends) - min(ends))
    common = (min(ends) - room, max(ends) + room)
    with drawing(path, (8.6 if several else 6.0, 1.1 + 1.75 * len(found))) as figure:
        panels = figure.subplots(len(found), 1 + several, squeeze=False)
        for row, (name, scores) in zip(panels, found.items(), strict=True):
            for axes in row:
                _densities(axes, scores)
            row[0].set(ylabel="density", xlim=common)
            row[0].set_title(name or f"overlap {scores.overlap:.0%}", fontsize=10)
            if several:
                low, high = float(scores.edges[0]), float(scores.edges[-1])
                row[1].set_xlim(low, high)
                row[1].set_title(f"own scale, {high - low:.2g} wide: overlap {scores.overlap:.0%}", fontsize=10)
                row[1].ticklabel_format(axis="x", useOffset=False)
        for axes in panels[-1]:
            axes.set_xlabel("score (cosine similarity)")
        figure.align_ylabels(panels[:, 0])
        handles = panels[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=2, fontsize=9)
    return found


def _densities(axes: Any, scores: Scores) -> None:
    """Both as filled steps, with a line at each mean."""
    edges = scores.edges.numpy()
    styles = (("positives: pairs of one class", RIGHT, "-"), ("negatives: pairs of two classes", WRONG, "--"))
    for (label, colour, line), density, mean in zip(styles, scores.densities(), scores.means, strict=True):
        fill = {"facecolor": (colour, 0.28), "edgecolor": (colour, 0.5), "hatch": "////" if line == "-" else ""}
        axes.stairs(density.numpy(), edges, fill=True, linewidth=0, **fill)
        axes.stairs(density.numpy(), edges, color=colour, linestyle=line, linewidth=1.5, label=label)
        axes.axvline(mean, color=colour, linestyle=line, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
