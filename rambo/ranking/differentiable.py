"""Ranks with a gradient, and values with a gradient that is known in the forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from rambo.ranking.exact import NO_VMAP, Ties, plain, rankable, ranks
from rambo.ranking.gradient_rules import GradientRule

_ONCE = (
    "a ranking loss can be differentiated once: its gradient stands in for a derivative that is zero almost "
    "everywhere, and has none of its own; leave the loss out of gradient penalties and whatever differentiates twice"
)
_BACKWARDS = (
    "rank has no forward-mode derivative (torch.func.jvp, forward_ad): a gradient rule starts from the loss's gradient "
    "in the ranks; differentiate backwards, or use with_gradient, which goes both ways"
)


class _Once(torch.autograd.Function):
    """Passes a gradient on, and refuses to differentiate it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *sources: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        raise RuntimeError(_ONCE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        raise RuntimeError(_ONCE)


def _once(gradient: Tensor, *sources: Tensor) -> Tensor:
    """The gradient, which will refuse to be differentiated by what it was worked out from."""
    once: Tensor = _Once.apply(gradient, *sources) if any(map(needs_gradient, sources)) else gradient
    return once


class _Rank(torch.autograd.Function):
    @staticmethod
    def forward(scores: Tensor, values: Tensor, rule: GradientRule, ties: Ties, relevance: Tensor | None) -> Tensor:
        return ranks(values, ties, relevance, check_nan=False).to(rank_dtype(values))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        scores, values, ctx.rule, ctx.ties, relevance = inputs
        ctx.save_for_backward(scores, values, relevance)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        scores, values, relevance = ctx.saved_tensors
        relevance = None if relevance is None else plain(relevance)
        gradient = ctx.rule.score_gradient(plain(values), plain(upstream).to(values.dtype), ctx.ties, relevance)
        return _once(gradient.to(scores.dtype), scores, upstream), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        raise RuntimeError(_BACKWARDS)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        raise RuntimeError(NO_VMAP)


def needs_gradient(scores: Tensor) -> bool:
    """Whether somebody will ask for a derivative by the scores, backwards or (a tangent comes with them) forwards."""
    if scores.requires_grad and torch.is_grad_enabled():
        return True
    return unpack_dual(scores).tangent is not None  # type: ignore[no-untyped-call]


def rank_dtype(scores: Tensor) -> torch.dtype:
    """float32, or float64 for float64 scores and for rows of more items than float32 can count."""
    return torch.float64 if scores.dtype == torch.float64 or scores.shape[-1] > 2**24 else torch.float32


def rank(
    scores: Tensor,
    rule: GradientRule,
    ties: Ties = "first_index_first",
    relevance: Tensor | None = None,
    normalize: bool = False,
    check_nan: bool = True,
) -> Tensor:
    """Exact ranks that carry a gradient, for a loss of your own.

    The rule sees whatever upstream gradient arrives. `Blackbox` is not linear in it, so a loss multiplied by 1000 (by
    a gradient scaler, say) gives another gradient; where a loss knows its upstream gradient in advance,
    `with_gradient` is the safe form, and the losses of this package use it.

    Args:
        scores: Any leading dimensions, items last; 1 is the rank of the largest.
        rule: Where the gradient comes from.
        ties: Which of two equal scores gets the smaller rank.
        relevance: Same shape; needed by the pessimistic rule alone.
        normalize: Whether ranks are divided by the number of items, as in the official code.
        check_nan: Whether scores are searched for NaN first.

    Returns:
        float32 ranks (float64 for float64 scores), same shape; differentiable once, backwards.

    Raises:
        TypeError: If the scores are not floating point.
        ValueError: If they hold NaN, or the tie rule lacks something.
    """
    values = rankable(scores, check_nan)
    ranked: Tensor = _Rank.apply(scores, values, rule, ties, relevance)
    return ranked / scores.shape[-1] if normalize else ranked


class _WithGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, scores: Tensor, gradient: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, scores, gradient = inputs
        ctx.value_dims = output.dim()
        ctx.save_for_backward(scores, gradient)
        ctx.save_for_forward(gradient)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None]:
        scores, gradient = ctx.saved_tensors
        each = upstream[..., None] if upstream.dim() else upstream
        return None, _once((gradient * each).to(scores.dtype), scores), None

    @staticmethod
    def jvp(ctx: Any, value: Tensor | None, tangent: Tensor, gradient_tangent: Tensor | None) -> Tensor:
        (gradient,) = ctx.saved_tensors
        along: Tensor = (gradient * tangent).flatten(ctx.value_dims).sum(dim=-1)
        return along


def with_gradient(value: Tensor, scores: Tensor, gradient: Tensor) -> Tensor:
    """The value, with a given gradient: differentiating the result by the scores yields upstream * gradient.

    A ranking loss knows its own gradient with respect to the ranks, so it can run the gradient rule in the forward
    pass. Whatever is multiplied on later (loss scaling, accumulation, a weight) then scales the gradient and does not
    reach lambda, which would change the method.

    Args:
        value: A single number, or one for each row of scores (rows, items) that depends on this row alone; its own
            graph, if any, is cut off.
        scores: What the value depends on.
        gradient: Same shape as the scores.

    Returns:
        The same as the value; differentiable once, backwards or forwards (`torch.func.jvp`).

    Raises:
        ValueError: If shapes do not fit.
    """
    if value.shape not in ((), scores.shape[:-1]) or gradient.shape != scores.shape:
        raise ValueError(
            f"expected a single value, or one per row, and a gradient of the scores' shape {tuple(scores.shape)}, "
            f"got shapes {tuple(value.shape)} and {tuple(gradient.shape)}"
        )
    attached: Tensor = _WithGradient.apply(value, scores, gradient)
    return attached
