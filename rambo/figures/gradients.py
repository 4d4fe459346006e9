"""Pictures of the blackbox gradient's health: how many scores it reaches, and how often scores are equal."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from harness.show.figures import drawing, line_style
from rambo.losses import BlackboxLoss
from rambo.ranking import unit_vectors
from rambo.ranking.gradient_rules import Blackbox

Batch = tuple[Tensor, Tensor]
"""Embeddings (items, dimensions) and labels int64 (items,)."""
Recorded = Mapping[str, Mapping[int, float]]
"""A number by optimizer step, by name of the run."""
Line = tuple[list[Any], list[float]]
"""Places and heights of points."""
INTERPOLATIONS = tuple(10 ** (exponent / 4) for exponent in range(-12, 13))  # 0.001 to 1,000
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_QUERIES = 256


def gradient_shares(
    loss: BlackboxLoss, batches: Sequence[Batch], interpolations: Sequence[float] = INTERPOLATIONS
) -> Tensor:
    """The share of scores whose blackbox gradient is not zero, by lambda: its mean over the batches.

    Args:
        loss: Gives everything but lambda; neither it nor its memory changes.
        batches: To try it on.
        interpolations: The values of lambda, on the loss's own scale.

    Returns:
        float64 (interpolations,).

    Raises:
        ValueError: If there is no batch, or the loss has another gradient rule than `Blackbox`.
    """
    rule = loss.rule
    if not isinstance(rule, Blackbox):
        raise ValueError(f"only the blackbox gradient has a lambda; this loss uses {rule!r}")
    if not batches:
        raise ValueError("the share of scores with a gradient needs one batch at least, got none")
    shares = []
    for interpolation in interpolations:
        for embeddings, labels in batches:
            twin = copy.deepcopy(loss)  # for each batch, as it fills its memory
            twin.rule = Blackbox(interpolation, rule.scale, rule.projection)
            with torch.enable_grad():
                twin(embeddings.detach().clone().requires_grad_(), labels)
            shares.append(float(twin.health.get("gradient_share", 0.0)))  # no pair, no gradient
    return torch.tensor(shares, dtype=torch.float64).view(len(interpolations), len(batches)).mean(1)


def gradient_sparsity(
    path: Path,
    measured: Mapping[str, tuple[BlackboxLoss, Sequence[Batch]]],
    recorded: Recorded,
    interpolations: Sequence[float] = INTERPOLATIONS,
) -> dict[str, Tensor]:
    """Draws the share of scores that get a gradient: against lambda, and as training went on.

    Args:
        path: The file to write.
        measured: A loss and batches to try it on, by name of the line; its own lambda is marked.
        recorded: `gradient_share` by step. Without any, as without `measured`, that half is left out.
        interpolations: As in `gradient_shares`.

    Returns:
        The shares by name of the line, float64 (interpolations,), of `measured`.

    Raises:
        ValueError: If both are empty, or as `gradient_shares`.

    Source: Rolinek et al. 2020, algorithm 1.
    """
    shares = {name: gradient_shares(*pair, interpolations) for name, pair in measured.items()}
    lines = {name: (list(interpolations), line.tolist()) for name, line in shares.items()}
    with _panels(
        path, "the share of scores with a gradient", "the same scores at other λ\n", lines, recorded
    ) as panels:
        if measured:
            panels[0].set_ylim(top=1.1 * max(float(line.max()) for line in shares.values()) or 1.0)
            panels[0].set_xscale("log")
            panels[0].xaxis.set_major_formatter("{x:g}")
            _mark_lambdas(panels[0], [loss for loss, _ in measured.values()])
        for axes in panels:
            axes.set_ylabel("scores with a gradient")
    return shares


def tied_share(scores: Tensor) -> float:
    """The share of scores that equal another one of their row; scores are (rows, items)."""
    ordered = scores.sort(dim=1).values
    equal = torch.nn.functional.pad(ordered.diff(dim=1) == 0, (1, 1))  # each to the one before it, and to the next
    return float((equal[:, 1:] | equal[:, :-1]).double().mean())


def tie_rates(
    path: Path,
    embeddings: Tensor | None,
    recorded: Recorded,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Draws how often scores tie: against the items ranked, in three precisions, and as training went on.

    What equal scores are ranked by is chance. In half precision many are equal, which is why the losses use float32.

    Args:
        path: The file to write.
        embeddings: Of a data set, (images, dimensions); None leaves that half out.
        recorded: `tie_rate` by step: of neighbouring columns, so that it is near 1 after a collapse. Without any, that
            half is left out.
        sizes: Items in a row; None: the powers of 2 from 16.
        seed: Of the draw of queries, up to 256, and items.

    Returns:
        By precision the share of scores that equal another of their row, for each size. The embeddings are rounded to
        the precision, multiplied in float32, and the scores rounded.

    Raises:
        ValueError: If there is nothing to draw, or fewer than three images.
    """
    at, found = ([], {}) if embeddings is None else _tied_by_precision(embeddings, sizes, seed)
    lines = {name: (at, line) for name, line in found.items()}
    title = "embeddings scored in three precisions\n"
    with _panels(path, "the rate of ties", title, lines, recorded) as panels:
        panels[-1].set_ylabel("neighbouring scores that are equal")
        if found:
            panels[0].set_xscale("log", base=2)
            panels[0].set_xticks(at[::2], [f"{size:,}" for size in at[::2]])
            panels[0].set(xlabel="items in a ranked row", ylabel="scores equal to another of the row")
    return found


def _tied_by_precision(
    embeddings: Tensor, sizes: Sequence[int] | None, seed: int
) -> tuple[list[int], dict[str, list[float]]]:
    """The row lengths, and the share of tied scores at each, by precision."""
    if len(embeddings) < 3:
        raise ValueError(f"the rate of ties needs three images at least, got {len(embeddings)}")
    order = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(seed))
    rows = unit_vectors(embeddings.detach().cpu())[order]
    asking = min(_QUERIES, len(rows) // 3)
    queries, items = rows[:asking], rows[asking:]
    sizes = list(sizes or []) or [2**k for k in range(4, 20) if 2**k <= len(items)] or [len(items)]
    if min(sizes) < 2 or max(sizes) > len(items):
        raise ValueError(f"rows can hold 2 to {len(items)} items here, got sizes {sizes}")
    found = {}
    for name, kind in PRECISIONS.items():
        scores = (queries.to(kind).float() @ items.to(kind).float().T).to(kind)
        found[name] = [tied_share(scores[:, :size]) for size in sizes]
    return sizes, found


@contextmanager
def _panels(path: Path, what: str, title: str, measured: Mapping[str, Line], recorded: Recorded) -> Iterator[list[Any]]:
    """Panels in percent: on the left what was measured, on the right what was recorded, each if there is any."""
    while_training = {name: (list(values), list(values.values())) for name, values in recorded.items()}
    halves = {title: measured, "recorded while training\n": while_training}
    halves = {title: lines for title, lines in halves.items() if lines}
    if not halves:
        raise ValueError(f"there is nothing to draw {what} from: neither embeddings nor anything recorded")
    with drawing(path, (4.6 * len(halves), 3.6)) as figure:
        panels = list(figure.subplots(1, len(halves), squeeze=False)[0])
        for axes, (title, lines) in zip(panels, halves.items(), strict=True):
            for place, (name, (x, y)) in enumerate(lines.items()):
                axes.plot(x, y, label=name, markevery=max(1, len(x) // 12), **line_style(place))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.grid(True)
            axes.set_title(title, fontsize=10)
            if lines is measured or len(lines) > 1:  # between title and axes, where it hides nothing
                look = {"ncols": len(lines), "fontsize": 8.5, "handlelength": 2.2, "columnspacing": 1.2}
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.985), **look)
        if recorded:
            highest = max(max(values.values()) for values in recorded.values())
            panels[-1].set(xlabel="training step", ylim=(0, max(0.01, 1.05 * highest)))
        yield panels


def _mark_lambdas(axes: Any, losses: Sequence[BlackboxLoss]) -> None:
    """A line at the lambda of each loss, and which ranks the axis means."""
    rules = [loss.rule for loss in losses if isinstance(loss.rule, Blackbox)]
    for own in dict.fromkeys(rule.interpolation for rule in rules):
        axes.axvline(own, color="black", linewidth=1, dashes=(4, 2))
        axes.annotate(f" λ = {own:g}", (own, 0.99), xycoords=("data", "axes fraction"), va="top", fontsize=9)
    axes.set_xlabel(f"λ ({' or '.join(dict.fromkeys(rule.scale for rule in rules))} ranks)")
