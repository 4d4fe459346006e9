"""The losses of a prediction against its target, each with optional sample weights. Import them from `ranksim.losses`.

The formulas are functions of the error (prediction - target), per sample; the modules check, weigh and average.

Source: Yang et al. 2021, arXiv:2102.09554, section 4 (Focal-R in its appendix), and its official code.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ranksim.inputs import as_numbers, as_targets, check_finite, check_outputs, constant

Activation = Literal["sigmoid", "tanh"]
ACTIVATIONS = ("sigmoid", "tanh")


def focal_factor(error: Tensor, activation: Activation, beta: float, gamma: float) -> Tensor:
    """Between 0 (no error) and 1 (a large one): (2 sigmoid(beta |e|) - 1)^gamma, or tanh(beta |e|)^gamma."""
    steepness = beta / 2 if activation == "sigmoid" else beta  # 2 sigmoid(x) - 1 is tanh(x / 2), without cancellation
    factor = torch.tanh(steepness * error.abs())
    # the slope of x^gamma is infinite at 0 if gamma < 1, and zero times that would be NaN
    return factor.clamp_min(torch.finfo(factor.dtype).tiny) ** gamma


def huber(error: Tensor, beta: float | Tensor) -> Tensor:
    """e^2 / (2 beta) where |e| < beta, and |e| - beta / 2 beyond; `beta` is one number, or one per sample."""
    size = error.abs()
    beta = torch.as_tensor(beta, dtype=error.dtype, device=error.device)
    near = size < beta
    # only what is near is squared, so that the branch not taken cannot put NaN into the gradient
    squared = torch.where(near, size, 0.0) ** 2 / (2 * beta)
    return torch.where(near, squared, size - beta / 2)


def regression_batch(
    prediction: Tensor, target: Any, weight: Any = None, vectors: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The three, checked, in the precision of the prediction but at least float32.

    Args:
        prediction: Floating point and finite, (n,) or (n, 1); with `vectors` also (n, k).
        target: Finite, of the same shape; a tensor, an array or a list, as the weight.
        weight: One per sample, (n,) or (n, 1), finite and not negative; or None.
        vectors: Whether targets may have several components.

    Returns:
        Prediction and target, and the weight in a shape that multiplies them row by row.

    Raises:
        TypeError: If predictions are no floating-point tensor, or the others no numbers.
        ValueError: If shapes differ, the batch is empty, a number is not finite, a weight is negative, or targets in
            half precision are too large to be told apart.
    """
    check_outputs("predictions", prediction)
    target = as_targets(target, prediction.device)
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
        weight = _row_weight(as_numbers("weights", weight, prediction.device), shape).to(precision)
    return prediction.to(precision), target.to(precision), weight


def _row_weight(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(weight.shape) not in ((shape[0],), (shape[0], 1)):
        raise ValueError(f"weights must be one per sample, ({shape[0]},) or ({shape[0]}, 1), got {tuple(weight.shape)}")
    check_finite("weights", weight)
    seen = constant(weight)
    if seen is not None and bool((seen < 0).any()):
        raise ValueError(f"weights must not be negative, got {weight.min().item():g}; see how they were made")
    return weight.reshape(shape[0], *(1 for _ in shape[1:]))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class RegressionLoss(nn.Module):
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
            ValueError: If shapes differ, the batch is empty, or a number is not finite.
        """
        prediction, target, weight = regression_batch(prediction, target, weight)
        return self._mean(prediction - target, weight)

    def per_sample(self, error: Tensor) -> Tensor:
        """The loss of each error, unweighted."""
        raise NotImplementedError

    def _mean(self, error: Tensor, weight: Tensor | None) -> Tensor:
        values = self.per_sample(error)
        return (values if weight is None else weight * values).mean()


class L1(RegressionLoss):
    """Mean absolute error: the default on ages."""

    def per_sample(self, error: Tensor) -> Tensor:
        """|e|, of any shape."""
        return error.abs()


class MSE(RegressionLoss):
    """Mean squared error: the default on similarity scores (divided by 5)."""

    def per_sample(self, error: Tensor) -> Tensor:
        """e^2, of any shape."""
        return error**2


class _Focal(RegressionLoss):
    def __init__(
        self,
        activation: Activation = "sigmoid",
        beta: float = 0.2,
        gamma: float = 1.0,
        legacy_focal_weights: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if not (beta > 0 and math.isfinite(beta)):  # also refuses nan
            raise ValueError(f"beta must be > 0 and finite, got {beta}; 0.2 suits ages, 20 scores between 0 and 1")
        if not (gamma >= 0 and math.isfinite(gamma)):
            raise ValueError(f"gamma must be >= 0 and finite, got {gamma}; 0 gives the plain loss")
        self.activation, self.beta, self.gamma = activation, float(beta), float(gamma)
        self.legacy_focal_weights = bool(legacy_focal_weights)

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        return (
            f"activation={self.activation}, beta={self.beta}, gamma={self.gamma}, "
            f"legacy_focal_weights={self.legacy_focal_weights}"
        )

    def _factor(self, error: Tensor) -> Tensor:
        return focal_factor(error, self.activation, self.beta, self.gamma)

    def _mean(self, error: Tensor, weight: Tensor | None) -> Tensor:
        return super()._mean(error, None if self.legacy_focal_weights else weight)


class FocalL1(_Focal):
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

    def per_sample(self, error: Tensor) -> Tensor:
        """|e| times the focal factor, of any shape."""
        return error.abs() * self._factor(error)


class FocalMSE(_Focal):
    """Squared error that counts less where it is small (Focal-R); options as those of `FocalL1`."""

    def per_sample(self, error: Tensor) -> Tensor:
        """e^2 times the focal factor, of any shape."""
        return error**2 * self._factor(error)


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
        if not (beta > 0 and math.isfinite(beta)):
            raise ValueError(f"beta must be > 0 and finite, got {beta}; the plain absolute error is L1()")
        self.beta, self.legacy_focal_weights = float(beta), bool(legacy_focal_weights)

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        return f"beta={self.beta}, legacy_focal_weights={self.legacy_focal_weights}"

    def per_sample(self, error: Tensor) -> Tensor:
        """The Huber value of each error, of any shape."""
        return huber(error, self.beta)

    def _mean(self, error: Tensor, weight: Tensor | None) -> Tensor:
        if self.legacy_focal_weights and weight is not None:
            return huber(error, weight).mean()
        return super()._mean(error, weight)
