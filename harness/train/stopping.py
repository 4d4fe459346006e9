"""When to stop before the last epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

RULES = ("no_new_best", "worst_of_last")


class EarlyStopping:
    """Stops when the monitored metric of a split no longer improves. What is not finite counts as the worst.

    Args:
        patience: Evaluations to wait, counted as the rule says.
        rule: `no_new_best` stops when the last `patience` evaluations brought no new best; `worst_of_last` when more
            than patience + 1 evaluations were made and the newest is the worst of the last patience + 1, as in the
            STS-B-DIR code, which waits much longer.
        split: The split that decides; never test.

    Raises:
        ValueError: If a value is outside its range; shown.
    """

    def __init__(self, patience: int, rule: str = "no_new_best", split: str = "validation") -> None:
        if patience < 1:
            raise ValueError(f"trainer.stopping.patience must be at least 1, got {patience}")
        if rule not in RULES:
            raise ValueError(f"trainer.stopping.rule must be one of {', '.join(RULES)}, got {rule!r}")
        if split == "test":
            raise ValueError("trainer.stopping.split must not be test, which would then choose when to stop")
        self.patience, self.rule, self.split = patience, rule, split

    def check(self, splits: Iterable[str]) -> None:
        """Raises ValueError where the split is not among those evaluated."""
        if self.split not in (names := list(splits)):
            raise ValueError(f"trainer.stopping.split={self.split} is not evaluated; there are {', '.join(names)}")

    def reached(self, history: Mapping[str, Sequence[float]], higher_is_better: bool) -> bool:
        """Whether to stop, given the monitored metric of every evaluation so far, by split."""
        if not history:
            return False
        values = [value if math.isfinite(value) else worst(higher_is_better) for value in history[self.split]]
        cost = [-value if higher_is_better else value for value in values]
        if self.rule == "no_new_best":
            return len(cost) > self.patience and min(cost[-self.patience :]) >= min(cost[: -self.patience])
        return len(cost) > self.patience + 1 and cost[-1] >= max(cost[-self.patience - 1 :])


def worst(higher_is_better: bool) -> float:
    """What comes to nothing counts as: an evaluation that gave no number, a training that broke off in a search."""
    return -math.inf if higher_is_better else math.inf
