"""The losses of a prediction against its target, each with optional sample weights. Import them from `ranksim.losses`.

Source: Yang et al. 2021, arXiv:2102.09554, section 4 (Focal-R in its appendix), and its official code.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rambo.ranking.exact import one_of, positive, sent
from ranksim.inputs import Shown, as_targets, as_weights, at_least_float32, check_finite, check_outputs, not_negative

Activation = Literal["sigmoid", "tanh"]


def focal_factor(error: Tensor, activation: Activation, beta: float, gamma: float) -> Tensor:
    """Between 0 (no error) and 1 (a large one): (2 sigmoid(beta |e|) - 1)^gamma, or tanh(beta |e|)^gamma."""
    steepness = beta / 2 if activation == "sigmoid" else beta  # 2 sigmoid(x) - 1 is tanh(x / 2), without cancellation
    factor = torch.tanh(steepness * error.abs())
    # the slope of x^gamma is infinite at 0 if gamma < 1, and zero times that would be NaN
    return factor.clamp_min(torch.finfo(factor.dtype).tiny) ** gamma


def huber(error: Tensor, beta: float | Tensor) -> Tensor:
    """e^2 / (2 beta) where |e| < beta, and |e| - beta / 2 beyond; `beta` is one number, or one per sample."""
    size = error.abs()
    beta = beta.to(error) if isinstance(beta, Tensor) else error.new_full((), beta)
    near = size < beta
    # only what is near is squared, so that the branch not taken cannot put NaN into the gradient
    squared = torch.where(near, size, 0.0) ** 2 / (2 * beta)
    return torch.where(near, squared, size - beta / 2)


def regression_batch(
    prediction: Tensor, target: Any, weight: Any = None, vectors: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of `RegressionLoss.forward`, checked, in the precision of the prediction but at least float32.

    The weight gets a shape that multiplies the others row by row. Without `vectors`, (n, k) is refused. Errors are
    those of `RegressionLoss.forward`.
    """
    check_outputs("predictions", prediction)
    target = as_targets(target)
    shape = tuple(prediction.shape)
    if len(shape) not in (1, 2) or (not vectors and shape[1:] not in ((), (1,))):
        wanted = "(n,), (n, 1) or (n, k)" if vectors else "(n,) or (n, 1)"
        raise ValueError(f"predictions must be {wanted}, got {shape}; flatten or split them first")
    if target.shape != prediction.shape:
        raise ValueError(
            f"targets of shape {tuple(target.shape)} do not match predictions of shape {shape}, "
            "and broadcasting could pair every sample with every other; give both the same shape"
        )
    if not prediction.numel():
        raise ValueError("the batch is empty, and a mean over no sample is undefined; leave such batches out")
    check_finite("targets", target)
    precision = at_least_float32(prediction.dtype)
    if weight is not None:
        weight = as_weights(weight, prediction).to(precision)
        weight = weight if len(shape) == 1 else weight[:, None]
    return prediction.to(precision), sent(target, prediction.device).to(precision), weight


class RegressionLoss(Shown):
    """A mean over the batch (and components) of weight times a function of the error; see its children."""

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            prediction: (n,), (n, 1) or, of vectors, (n, k); half precision is taken to float32.
            target: The same shape; finite. A tensor, an array or a list, as the weight.
            weight: One per sample, (n,) or (n, 1), or None for ones. The sum is divided by the number of samples (times
                k), not by the sum of weights.

        Returns:
            A single number.

        Raises:
            TypeError: If predictions are no floating-point tensor, or the others no numbers.
            ValueError: If shapes differ, the batch is empty, a number is not finite, a weight is negative, or targets
                in half precision are too large to be told apart.
        """
        prediction, target, weight = regression_batch(prediction, target, weight)
        return self._mean(prediction - target, weight)

    def per_sample(self, error: Tensor) -> Tensor:
        """The loss of each error, of any shape, unweighted."""
        raise NotImplementedError

    def _mean(self, error: Tensor, weight: Tensor | None) -> Tensor:
        values = self.per_sample(error)
        return (values if weight is None else weight * values).mean()


class L1(RegressionLoss):
    """Mean absolute error: the default on ages."""

    def per_sample(self, error: Tensor) -> Tensor:
        """|e|."""
        return error.abs()


class MSE(RegressionLoss):
    """Mean squared error: the default on similarity scores (divided by 5)."""

    def per_sample(self, error: Tensor) -> Tensor:
        """e^2."""
        return error**2


class FocalL1(RegressionLoss):
    """Absolute error that counts less where it is small (Focal-R).

    Args:
        activation: What turns the size of an error into a factor below 1: "sigmoid" or "tanh".
        beta: How fast the factor grows with the error, > 0: 0.2 on ages, 20 on scores between 0 and 1.
        gamma: Exponent of the factor, >= 0.
        legacy_focal_weights: Ignore the sample weights. The RankSim code for ages does so by accident (weights arrive
            in place of the activation), so its Focal-R rows with re-weighting were trained without.

    Raises:
        ValueError: If a number is out of range or the activation unknown.
    """

    def __init__(
        self,
        activation: Activation = "sigmoid",
        beta: float = 0.2,
        gamma: float = 1.0,
        legacy_focal_weights: bool = False,
    ) -> None:
        super().__init__()
        one_of("activation", activation, ("sigmoid", "tanh"))
        self.activation, self.beta, self.gamma = activation, positive("beta", beta), not_negative("gamma", gamma)
        self.legacy_focal_weights = bool(legacy_focal_weights)

    def per_sample(self, error: Tensor) -> Tensor:
        """|e| times the focal factor."""
        return error.abs() * focal_factor(error, self.activation, self.beta, self.gamma)

    def _mean(self, error: Tensor, weight: Tensor | None) -> Tensor:
        return super()._mean(error, None if self.legacy_focal_weights else weight)


class FocalMSE(FocalL1):
    """Squared error that counts less where it is small (Focal-R); options as those of `FocalL1`."""

    def per_sample(self, error: Tensor) -> Tensor:
        """e^2 times the focal factor."""
        return error**2 * focal_factor(error, self.activation, self.beta, self.gamma)


class Huber(RegressionLoss):
    """Squared error near zero, absolute error beyond, joined smoothly.

    Args:
        beta: Where the two meet, > 0: 1 on ages, 0.3 on scores between 0 and 1.
        legacy_focal_weights: Take each sample's weight for its beta, and weigh nothing. The RankSim code for ages does
            so by the same accident as with the focal losses.

    Raises:
        ValueError: If `beta` is not positive.
    """

    def __init__(self, beta: float = 1.0, legacy_focal_weights: bool = False) -> None:
        super().__init__()
        self.beta, self.legacy_focal_weights = positive("beta", beta), bool(legacy_focal_weights)

    def per_sample(self, error: Tensor) -> Tensor:
        """The Huber value of each error."""
        return huber(error, self.beta)

    def _mean(self, error: Tensor, weight: Tensor | None) -> Tensor:
        if self.legacy_focal_weights and weight is not None:
            return huber(error, weight).mean()
        return super()._mean(error, weight)
