"""What all losses on rankings have, and the way through exact ranks with the blackbox gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rambo.ranking.exact import TIES, Ties, not_negative, one_of, spoiled
from rambo.ranking.gradient_rules import Blackbox, GradientRule, Scale
from rambo.ranking.relevant import RelevantPlaces, RelevantRanks, relevant_ranks, score_gradient

OnEmpty = Literal["nan", "zero", "error"]
ON_EMPTY = ("nan", "zero", "error")

Formula = Callable[[RelevantRanks, RelevantPlaces], tuple[Tensor, Tensor] | None]
"""From ranks to a loss and its derivative by the rank among all items, (relevant,); None where nothing is relevant."""

_TIE_SAMPLE = 64  # the tie rate is estimated on so many rows and columns at most


def with_preset(presets: dict[str, dict[str, Any]], preset: str, **given: Any) -> dict[str, Any]:
    """The choices of a preset, each replaced by what is given unless that is None.

    Raises:
        ValueError: If there is no such preset.
    """
    one_of("preset", preset, tuple(presets))
    return presets[preset] | {name: value for name, value in given.items() if value is not None}


class RankingLoss(nn.Module):
    """A loss on rankings; see its children.

    Args:
        on_empty: What a batch without any relevant item gives: "zero", "nan" or "error".

    Attributes:
        settings: The resolved options, for the record of a run.
        health: Numbers of the last call, as tensors without a graph. Copies and pickles of the loss hold none.

    Raises:
        ValueError: If a name is unknown.
    """

    def __init__(self, on_empty: OnEmpty = "zero") -> None:
        super().__init__()
        one_of("on_empty", on_empty, ON_EMPTY)
        self.on_empty = on_empty
        self.settings: dict[str, Any] = {"on_empty": on_empty}
        self.health: dict[str, Tensor] = {}

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())

    def _empty(self, scores: Tensor) -> float:
        """The loss of rows in which nothing is relevant."""
        if self.on_empty == "error":
            raise ValueError(
                f"nothing is relevant in any of the {len(scores)} rows of this batch; let the sampler put two or more "
                "images of a class into a batch, or set on_empty to zero"
            )
        return self._left_out

    @property
    def _left_out(self) -> float:
        """What stands for a query without a relevant item where every query has a value."""
        return 0.0 if self.on_empty == "zero" else math.nan

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: nothing of the last call."""
        return {**self.__dict__, "health": {}}


class BlackboxLoss(RankingLoss):
    """A loss that is a formula of exact ranks, with the gradient of a rule worked out in the forward pass.

    Args (beyond those of `RankingLoss`):
        interpolation: Smoothness of the gradient (the paper's lambda), > 0.
        margin: Taken from the scores of relevant items, as far as the order goes (the paper's alpha), >= 0.
        ties: Which of two equal scores ranks first: "first_index_first", "last_index_first" or "pessimistic".
        scale: Which ranks lambda refers to; see `Blackbox`.
        rule: Another gradient rule in place of `Blackbox(interpolation, scale)`, such as `Identity()`, for comparison.

    Attributes (beyond those of `RankingLoss`):
        health: `gradient_share` (of scores with a gradient that is not zero; only where a gradient was asked for),
            `negatives_before` (mean number of irrelevant items before a relevant one) and `tie_rate` (how often two
            neighbouring columns of a row are exactly equal, among the first 64 rows and columns: near 1 after a
            collapse, above 0 in half precision, otherwise 0). After a batch without a relevant item the tie rate alone.

    Raises:
        ValueError: If a number is out of range or a name unknown.
    """

    def __init__(
        self,
        interpolation: float,
        margin: float = 0.0,
        ties: Ties = "first_index_first",
        scale: Scale = "normalized",
        rule: GradientRule | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        one_of("ties", ties, TIES)
        blackbox = Blackbox(interpolation, scale)
        self.rule: GradientRule = blackbox if rule is None else rule
        self.margin, self.ties = not_negative("margin", margin), ties
        self.settings |= {"rule": repr(self.rule), "margin": self.margin, "ties": ties}

    def _ranked(
        self, values: Tensor, relevant: RelevantPlaces, formula: Formula, margin: float, differentiate: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The formula's value and, if needed, its gradient with respect to the values (rows, items).

        Both are worked out here, in the forward pass, from an upstream gradient that nothing has scaled yet.
        """
        ranked = relevant_ranks(values, relevant, self.ties, margin)
        found = formula(ranked, relevant)
        sample = values[:_TIE_SAMPLE, :_TIE_SAMPLE]
        equal = (sample[:, :-1] == sample[:, 1:]) & sample[:, 1:].isfinite()  # ignored ones stand at -inf
        self.health = {"tie_rate": equal.sum() / max(1, equal.numel())}
        if found is None:
            fill = self._empty(values)
            results = [values.new_full((), fill), *([torch.full_like(values, fill)] if differentiate else [])]
        else:
            value, upstream = found
            results = [value]
            self.health["negatives_before"] = ranked.before.mean()
            if differentiate:
                results.append(gradient := score_gradient(self.rule, ranked, upstream))
                self.health["gradient_share"] = gradient.count_nonzero() / max(1, gradient.numel())
        value, *gradients = spoiled(*results, by=[values])
        return value, gradients[0] if gradients else None
