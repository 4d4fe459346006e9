"""What stands in for the derivative of ranks: rules behind one interface. Import them from `rambo.ranking`."""

from __future__ import annotations

import functools
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from rambo.ranking.exact import Ties, one_of, positive, ranks
from rambo.ranking.unit_vectors import unit_vectors

T = TypeVar("T", int, Tensor)
Scale = Literal["normalized", "integer"]
Projection = Literal["none", "mean", "norm", "std"]

_SCALES = ("normalized", "integer")
_PROJECTIONS = ("none", "mean", "norm", "std")
_SOFT_RANK_PAIRS = 2**22  # pairs of items held at once


class GradientRule(Protocol):
    """What stands in for the derivative of the ranks, which is zero almost everywhere."""

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
        ...


class Blackbox:
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

    def __init__(self, interpolation: float, scale: Scale = "normalized", projection: Projection = "none") -> None:
        self.interpolation = positive("interpolation (lambda)", interpolation)
        one_of("scale", scale, _SCALES)
        one_of("projection", projection, _PROJECTIONS)
        self.scale, self.projection = scale, projection

    def __repr__(self) -> str:
        return f"Blackbox(interpolation={self.interpolation}, scale={self.scale!r}, projection={self.projection!r})"

    def strength(self, items: T) -> T | float:
        """Lambda as it acts on integer ranks of so many items, a number or one for each row."""
        return self.interpolation * items if self.scale == "normalized" else self.interpolation

    def score_gradient(
        self,
        scores: Tensor,
        upstream: Tensor,
        ties: Ties = "first_index_first",
        relevance: Tensor | None = None,
        items: int | None = None,
    ) -> Tensor:
        """Minus the fall in rank that the step brings, divided by lambda. See `GradientRule`."""
        strength = self.strength(scores.shape[-1] if items is None else items)
        projected = _project(scores, self.projection)
        before = ranks(projected, ties, relevance, check_nan=False)
        # the product is rounded before it is added, so that every way to compute it gives the same bits
        after = ranks(projected + upstream * strength, ties, relevance, check_nan=False)
        gradient = (after - before).to(scores.dtype) * (1.0 / strength)
        return _pull_back(gradient, scores, self.projection)


class Identity:
    """Passes the upstream gradient through with its sign turned, as if raising a score lowered its rank by as much.

    A negative control: in the retrieval experiments of its authors it falls far behind `Blackbox` without a projection.

    Args:
        projection: As for `Blackbox`; here it decides whether the rule works at all.
        scale: Which ranks are taken to move one to one with the scores: "normalized" (rank / items) or "integer".

    Raises:
        ValueError: If a name is unknown.

    Source: Sahoo et al. 2023, "Backpropagation through Combinatorial Algorithms: Identity with Projection Works".
    """

    def __init__(self, projection: Projection = "none", scale: Scale = "normalized") -> None:
        one_of("scale", scale, _SCALES)
        one_of("projection", projection, _PROJECTIONS)
        self.scale, self.projection = scale, projection

    def __repr__(self) -> str:
        return f"Identity(projection={self.projection!r}, scale={self.scale!r})"

    def score_gradient(
        self,
        scores: Tensor,
        upstream: Tensor,
        ties: Ties = "first_index_first",
        relevance: Tensor | None = None,
        items: int | None = None,
    ) -> Tensor:
        """The negated upstream gradient, pulled back through the projection. See `GradientRule`."""
        factor = -(scores.shape[-1] if items is None else items) if self.scale == "normalized" else -1
        return _pull_back(upstream * factor, scores, self.projection)


class SoftRank:
    """The exact gradient of a relaxed rank, 1 + sum of sigmoid((other - own) / temperature) over the other items.

    Takes time in proportion to items x items with a non-zero upstream gradient, and bounded memory.

    Args:
        temperature: Width of the sigmoid in units of the scores, > 0.

    Raises:
        ValueError: If the temperature is not positive and finite.

    Source: the relaxation of Qin, Liu and Li 2010, used by SmoothAP (Brown et al. 2020, eq. 6).
    """

    def __init__(self, temperature: float = 0.01) -> None:
        self.temperature = positive("temperature", temperature)

    def __repr__(self) -> str:
        return f"SoftRank(temperature={self.temperature})"

    def score_gradient(
        self,
        scores: Tensor,
        upstream: Tensor,
        ties: Ties = "first_index_first",
        relevance: Tensor | None = None,
        items: int | None = None,
    ) -> Tensor:
        """The relaxed rank's vector-Jacobian product. See `GradientRule`."""
        items = scores.shape[-1]
        rows, pushed = scores.reshape(-1, items), upstream.reshape(-1, items)
        gradient = torch.zeros_like(rows)
        moving = pushed.ne(0).any(dim=0).nonzero().squeeze(1)
        for chunk in torch.split(moving, max(1, _SOFT_RANK_PAIRS // max(1, rows.numel()))):
            # (rows, chunk, items): slope of the chunk's relaxed ranks in every other score; symmetric in the pair
            opened = torch.sigmoid((rows[:, None, :] - rows[:, chunk, None]) / self.temperature)
            slopes = opened * (1 - opened) / self.temperature
            gradient += torch.einsum("rc,rci->ri", pushed[:, chunk], slopes)
            gradient[:, chunk] -= pushed[:, chunk] * slopes.sum(dim=-1)
        return gradient.reshape(scores.shape)


def _project(scores: Tensor, projection: str) -> Tensor:
    if projection in ("mean", "std"):
        scores = scores - scores.mean(dim=-1, keepdim=True)
    if projection in ("norm", "std"):
        scores = unit_vectors(scores)
    return scores


def _pull_back(gradient: Tensor, scores: Tensor, projection: str) -> Tensor:
    """Chain rule through `_project`."""
    if projection == "none":
        return gradient
    pulled: Tensor = torch.func.vjp(functools.partial(_project, projection=projection), scores)[1](gradient)[0]
    return pulled
