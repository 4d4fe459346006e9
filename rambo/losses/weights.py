"""How much a relevant item costs that stands behind so many irrelevant ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from rambo.ranking.exact import one_of

WeightFunction = Callable[[Tensor], Tensor]
Slope = Literal["derivative", "difference"]
SLOPES = ("derivative", "difference")

_RECALL_AT = "recall@"
_WANTED = "weight must be log, loglog, recall@k or a function of a tensor"
_TRIED = (*range(130), *(2**power for power in range(8, 21)))  # counts at which a function is looked at


def _log(before: Tensor) -> Tensor:
    return before.log1p()


def _loglog(before: Tensor) -> Tensor:
    return before.log1p().log1p()


def _missed(before: Tensor, k: int) -> Tensor:
    """1 - recall@k, eq. 18: 1 where the first k hold none of the relevant items."""
    return (before >= k).to(before.dtype)


class Weight:
    """A weight function and its slope.

    Args:
        function: "log" for log(1 + x), "loglog" for log(1 + log(1 + x)), "recall@k" for 1 - recall@k itself,
            or any elementwise function of a tensor with value 0 at 0 that never falls.
        slope: "derivative", by autograd; "difference", w(x) - w(x - 1), what is gained by overtaking one more item,
            which steps have as well. None is the difference for "recall@k", else the derivative.

    Raises:
        TypeError: If it is neither a name nor callable.
        ValueError: If a name is unknown, or the function does not keep the shape, falls, is not finite, is not 0 at 0
            (an item that stands before every irrelevant one must cost nothing), or has no slope of the chosen kind.

    Source: eq. 19 and 20 of Rolinek et al. 2020; w is the closed form of summing eq. 18 over K.
    """

    def __init__(self, function: str | WeightFunction, slope: Slope | None = None) -> None:
        self.function = _named(function) if isinstance(function, str) else function
        if not callable(self.function):
            raise TypeError(f"{_WANTED}, got {function!r}")
        self.name = function if isinstance(function, str) else _name(function)
        self.slope = slope or ("difference" if self.name.startswith(_RECALL_AT) else "derivative")
        one_of("slope", self.slope, SLOPES)
        self._check()

    def _check(self) -> None:
        counts = torch.tensor(_TRIED, dtype=torch.float32)
        values = self.function(counts)
        if not isinstance(values, Tensor) or values.shape != counts.shape or bool(values[0] != 0):
            got = values[0].item() if isinstance(values, Tensor) and values.shape == counts.shape else "another shape"
            raise ValueError(
                f"weight {self.name} must act on each entry and be 0 at 0, got {got}; subtract its value at 0"
            )
        if not bool(values.isfinite().all()) or bool((values.diff() < 0).any()):
            raise ValueError(
                f"weight {self.name} must be finite and never fall, as no relevant item is better for standing behind "
                f"more irrelevant ones; got {[round(value, 4) for value in values[:8].tolist()]} for 0 to 7"
            )
        if self.slope == "derivative" and bool(values.count_nonzero()) and not bool(self(counts)[1].count_nonzero()):
            raise ValueError(
                f"weight {self.name} has steps, and a derivative of 0 everywhere, so that nothing would be learnt; "
                'give slope="difference", which takes w(x) - w(x - 1)'
            )

    def __call__(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes at the given counts, both without a graph and of the counts' shape."""
        counts = counts.detach()
        if self.slope == "difference":
            values = self._values(counts)
            return values, values - self._values((counts - 1).clamp_(min=0))
        if self.function is _log:
            values = _log(counts)
            return values, values.neg().exp_()  # 1 / (1 + x)
        if self.function is _loglog:
            values = _loglog(counts)
            return values, counts.log1p().add_(values).neg_().exp_()  # 1 / ((1 + x) (1 + log(1 + x)))
        values, pull, *_ = torch.func.vjp(self._values, counts)
        slopes: Tensor = pull(torch.ones_like(values))[0]
        if slopes.numel():
            # the square root is infinitely steep at 0, where nothing is left to overtake; the steepest finite slope
            # keeps such an item ahead of its fellows
            infinite = slopes.isinf()
            slopes = torch.where(infinite, slopes.masked_fill(infinite, 0).max(), slopes)
        return values.detach(), slopes

    def _values(self, counts: Tensor) -> Tensor:
        return self.function(counts).to(counts)


def _named(name: str) -> WeightFunction:
    k = name.removeprefix(_RECALL_AT)
    if k != name and k.isdecimal():
        if int(k) < 1:
            raise ValueError(f"recall@k needs a positive integer k, got {k}")
        return functools.partial(_missed, k=int(k))
    if name not in ("log", "loglog"):
        raise ValueError(f"{_WANTED}, got {name!r}")
    return _log if name == "log" else _loglog


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"{_name(function.func)}({', '.join(f'{k}={v}' for k, v in function.keywords.items())})"
    return str(getattr(function, "__name__", type(function).__name__))
