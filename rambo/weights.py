"""How much a relevant item costs that stands behind so many irrelevant ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WeightFunction = Callable[[Tensor], Tensor]


class Weight:
    """A weight function and its slope.

    Args:
        function: "log" for log(1 + x), "loglog" for log(1 + log(1 + x)), or any elementwise function of a tensor with
            value 0 at 0, whose slope autograd then works out.

    Raises:
        TypeError: If it is neither a name nor callable.
        ValueError: If the name is unknown, or the function does not keep the shape or is not 0 at 0: an item that
            stands before every irrelevant one must cost nothing.

    Source: eq. 19 and 20 of Rolinek et al. 2020; w is the closed form of summing eq. 18 over K.
    """

    def __init__(self, function: str | WeightFunction) -> None:
        if isinstance(function, str):
            if function not in ("log", "loglog"):
                raise ValueError(f"weight must be log, loglog or a function of a tensor, got {function!r}")
            self.name = function
        elif callable(function):
            self.name = _name(function)
            at_zero = function(torch.zeros(3))
            if at_zero.shape != (3,) or bool((at_zero != 0).any()):
                raise ValueError(
                    f"weight {self.name} must act on each entry and be 0 at 0, got {at_zero.tolist()} for three zeros; "
                    "subtract its value at 0"
                )
        else:
            raise TypeError(f"weight must be log, loglog or a function of a tensor, got {function!r}")
        self.function = function

    def __call__(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes at the given counts, both without a graph and of the counts' shape."""
        counts = counts.detach()
        if self.function == "log":
            logarithm = counts.log1p()
            return logarithm, logarithm.neg().exp_()  # 1 / (1 + x)
        if self.function == "loglog":
            logarithm = counts.log1p()
            values = logarithm.log1p()
            return values, logarithm.add_(values).neg_().exp_()  # 1 / ((1 + x) (1 + log(1 + x)))
        assert callable(self.function)
        with torch.enable_grad():
            counts = counts.clone().requires_grad_()
            values = self.function(counts)
            (slopes,) = torch.autograd.grad(values.sum(), counts)
        if slopes.numel():
            # the square root is infinitely steep at 0, where nothing is left to overtake; the steepest finite slope
            # keeps such an item ahead of its fellows
            infinite = slopes.isinf()
            slopes = torch.where(infinite, slopes.masked_fill(infinite, 0).max(), slopes)
        return values.detach(), slopes


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"{_name(function.func)}({', '.join(f'{k}={v}' for k, v in function.keywords.items())})"
    return str(getattr(function, "__name__", type(function).__name__))
