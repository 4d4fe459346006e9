"""What stands in for the derivative of ranks: rules behind one interface. Import them from `rambo.ranking`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from rambo.ranking.exact import Ties, one_of, positive, ranks, waits
from rambo.ranking.unit_vectors import unit_vectors

T = TypeVar("T", int, Tensor)
Scale = Literal["normalized", "integer"]
Projection = Literal["none", "mean", "norm", "std"]

_SOFT_RANK_PAIRS = 2**22  # pairs of items held at once


class GradientRule:
    """What stands in for the derivative of the ranks, which is zero almost everywhere.

    A rule of your own has `score_gradient`.
    """

    projection: Projection = "none"

    def score_gradient(
        self,
        scores: Tensor,
        upstream: Tensor,
        ties: Ties = "first_index_first",
        relevance: Tensor | None = None,
        items: int | None = None,
    ) -> Tensor:
        """Turns a loss's gradient with respect to the integer ranks 1..items into one with respect to the scores.

        Args:
            scores: What was ranked, as `rankable` returns it; any leading dimensions, items last.
            upstream: Gradient with respect to the ranks, same shape.
            ties: The tie rule of the ranks.
            relevance: Same shape; needed by the pessimistic rule alone.
            items: How many items a normalised rank is divided by; None: those of the scores. Only given where it is
                another number, so that a rule of your own may do without.

        Returns:
            Same shape and dtype as the scores.
        """
        items = scores.shape[-1] if items is None else items
        gradient = self._gradient(_project(scores, self.projection), upstream, ties, relevance, items)
        if self.projection == "none":
            return gradient
        pull = torch.func.vjp(functools.partial(_project, projection=self.projection), scores)[1]
        pulled: Tensor = pull(gradient)[0]
        return pulled

    def _gradient(self, scores: Tensor, upstream: Tensor, ties: Ties, relevance: Tensor | None, items: int) -> Tensor:
        """With respect to projected scores."""
        raise NotImplementedError


@dataclass(eq=False)
class Blackbox(GradientRule):
    """The method of the paper: rank once more after a step against the loss, and take the difference.

    Args:
        interpolation: Smoothness of the gradient (the paper's lambda), > 0: the length of that step.
        scale: Which ranks lambda refers to. "normalized" takes ranks divided by the number of items, as the official
            code does and as every lambda in our configs is meant; "integer" takes 1..items, as algorithm 1 is
            written. A normalised lambda equals an integer one of lambda * items: 4 on 127 items is 508.
        projection: Applied to each row of scores before ranking: none, mean (subtracted), norm (divided by), or std
            (both). Studied by Sahoo et al. 2023.

    Raises:
        ValueError: If lambda is not positive and finite, or a name is unknown.

    Source: algorithm 1. The official code adds 1e-8 to the lambda it divides by, to allow 0; here 0 is refused instead.
    """

    interpolation: float
    scale: Scale = "normalized"
    projection: Projection = "none"

    def __post_init__(self) -> None:
        self.interpolation = positive("interpolation (lambda)", self.interpolation)
        _check_names(self.scale, self.projection)

    def strength(self, items: T) -> T | float:
        """Lambda as it acts on integer ranks of so many items, a number or one for each row."""
        return self.interpolation * items if self.scale == "normalized" else self.interpolation

    def _gradient(self, scores: Tensor, upstream: Tensor, ties: Ties, relevance: Tensor | None, items: int) -> Tensor:
        """Minus the fall in rank that the step brings, divided by lambda."""
        strength = self.strength(items)
        before = ranks(scores, ties, relevance, check_nan=False)
        # the product is rounded before it is added, so that every way to compute it gives the same bits
        after = ranks(scores + upstream * strength, ties, relevance, check_nan=False)
        return (after - before).to(scores.dtype) * (1.0 / strength)


@dataclass(eq=False)
class Identity(GradientRule):
    """Passes the upstream gradient through with its sign turned, as if raising a score lowered its rank by as much.

    A negative control: in the retrieval experiments of its authors it falls far behind `Blackbox` without a projection.

    Args:
        projection: As for `Blackbox`; here it decides whether the rule works at all.
        scale: Which ranks are taken to move one to one with the scores: "normalized" (rank / items) or "integer".

    Raises:
        ValueError: If a name is unknown.

    Source: Sahoo et al. 2023, "Backpropagation through Combinatorial Algorithms: Identity with Projection Works".
    """

    projection: Projection = "none"
    scale: Scale = "normalized"

    def __post_init__(self) -> None:
        _check_names(self.scale, self.projection)

    def _gradient(self, scores: Tensor, upstream: Tensor, ties: Ties, relevance: Tensor | None, items: int) -> Tensor:
        return upstream * (-items if self.scale == "normalized" else -1)


@dataclass(eq=False)
class SoftRank(GradientRule):
    """The exact gradient of a relaxed rank, 1 + sum of sigmoid((other - own) / temperature) over the other items.

    Takes time in proportion to items x items with a non-zero upstream gradient, and bounded memory.

    Args:
        temperature: Width of the sigmoid in units of the scores, > 0.

    Raises:
        ValueError: If the temperature is not positive and finite.

    Source: the relaxation of Qin, Liu and Li 2010, used by SmoothAP (Brown et al. 2020, eq. 6).
    """

    temperature: float = 0.01

    def __post_init__(self) -> None:
        self.temperature = positive("temperature", self.temperature)

    def _gradient(self, scores: Tensor, upstream: Tensor, ties: Ties, relevance: Tensor | None, items: int) -> Tensor:
        rows, pushed = (tensor.reshape(-1, scores.shape[-1]) for tensor in (scores, upstream))
        gradient = torch.zeros_like(rows)
        everyone = torch.arange(rows.shape[1], device=rows.device)
        moving = everyone if waits(pushed) else pushed.ne(0).any(dim=0).nonzero().squeeze(1)
        for chunk in torch.split(moving, max(1, _SOFT_RANK_PAIRS // max(1, rows.numel()))):
            # (rows, chunk, items): slope of the chunk's relaxed ranks in every other score; symmetric in the pair
            opened = torch.sigmoid((rows[:, None, :] - rows[:, chunk, None]) / self.temperature)
            slopes = opened * (1 - opened) / self.temperature
            gradient += torch.einsum("rc,rci->ri", pushed[:, chunk], slopes)
            gradient[:, chunk] -= pushed[:, chunk] * slopes.sum(dim=-1)
        return gradient.reshape(scores.shape)


def _check_names(scale: str, projection: str) -> None:
    one_of("scale", scale, ("normalized", "integer"))
    one_of("projection", projection, ("none", "mean", "norm", "std"))


def _project(scores: Tensor, projection: str) -> Tensor:
    if projection in ("mean", "std"):
        scores = scores - scores.mean(dim=-1, keepdim=True)
    if projection in ("norm", "std"):
        scores = unit_vectors(scores)
    return scores
