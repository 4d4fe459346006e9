"""An average of the weights over the steps, evaluated and saved beside the weights themselves."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """A copy of a model that holds the exponential moving average of its weights.

    Running statistics of batch norm are averaged like weights. Every other buffer, such as a count or the statistics of
    feature smoothing, is the model's own. Step n has the decay min(`decay`, (1 + n) / (10 + n)), so that the weights
    that training began with are soon forgotten.

    Source: tf.train.ExponentialMovingAverage, for the decay of the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.source, self.decay = model, decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        both = zip(self.model.parameters(), model.parameters(), strict=True)
        pairs: list[tuple[Tensor, Tensor]] = [(own, new) for own, new in both if new.requires_grad]
        for own, new in zip(self.model.modules(), model.modules(), strict=True):
            if isinstance(own, _BatchNorm) and isinstance(new, _BatchNorm):
                of_both = ((own.running_mean, new.running_mean), (own.running_var, new.running_var))
                pairs += [(a, b) for a, b in of_both if a is not None and b is not None]
        self.own, self.new = [own for own, _ in pairs], [new for _, new in pairs]
        self.averaged = {id(own) for own in self.own}

    def update(self, step: int) -> None:
        """Takes in the weights after the optimizer's `step`, the first being 1."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        average(self.own, self.new, None)

    @torch.no_grad()
    def finish_epoch(self) -> None:
        """Takes over the buffers that are not averaged, as the hooks at the end of an epoch have left them."""
        for own, new in zip(self.model.buffers(), self.source.buffers(), strict=True):
            if id(own) not in self.averaged:
                own.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """That of the averaged model."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads that of an averaged model."""
        self.model.load_state_dict(state)
