"""Balanced MSE: squared error that has learnt how common each target is. Import it from `ranksim.losses`.

A prediction p is read as a normal distribution N(p, s^2) of the target under *balanced* labels, s being a learnt noise;
training sees it times the density of the training labels, which the loss takes back:

    2 s^2 * [ -log N(y; p, s^2) + log of the integral over y' of density(y') N(y'; p, s^2) ]

The factor 2 s^2, which gives the first part the scale of a squared error, carries no gradient. The density is that of
the other targets of the batch (BMC), a Gaussian mixture fitted to the training targets (GAI), or their histogram (BNI).

Source: Ren et al. 2022, arXiv:2203.16427, section 3, and its official code, whose parameter is the noise itself; ours
keeps it positive.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from rambo.ranking.exact import positive
from ranksim.bins import Density
from ranksim.inputs import Fitted, check_finite, optional
from ranksim.losses.regression import regression_batch

SMALLEST_NOISE = 1e-6


class BalancedMSE(Fitted):
    """What the three implementations share: the noise, the checks, the scale; see its children.

    Args:
        initial_noise: Noise of a prediction at the start (the paper's sigma), in the unit in which targets reach the
            loss, > 0. 10 for ages, as officially.
        learn_noise: Whether training changes it.
        learning_rate_factor: Learning rate of the noise over that of the model; 100 gives the official 0.01 at 1e-4.

    Raises:
        ValueError: If a number is out of range.
    """

    vectors = False
    takes_weights = False
    fitted: tuple[str, ...] = ()  # the buffers that hold the density

    def __init__(
        self, initial_noise: float = 10.0, learn_noise: bool = True, learning_rate_factor: float = 100.0
    ) -> None:
        super().__init__()
        if not (initial_noise > SMALLEST_NOISE and math.isfinite(initial_noise)):  # also refuses nan
            raise ValueError(f"initial_noise must be > {SMALLEST_NOISE:g} and finite, got {initial_noise}")
        self.initial_noise = float(initial_noise)
        self.learning_rate_factor = positive("learning_rate_factor", learning_rate_factor)
        # softplus: a step is one of the noise itself where that is large, as officially, and of its logarithm near 0
        excess = initial_noise - SMALLEST_NOISE
        raw = excess + math.log(-math.expm1(-excess))
        self.raw_noise = nn.Parameter(torch.tensor(raw), requires_grad=bool(learn_noise))
        for name in self.fitted:
            self.register_buffer(name, torch.empty(0))

    @property
    def noise(self) -> Tensor:
        """s, above 0."""
        return softplus(self.raw_noise) + SMALLEST_NOISE

    @property
    def health(self) -> dict[str, Tensor]:
        """The noise as it is now."""
        return {"noise": self.noise.detach()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The noise, with a learning rate of its own and no weight decay."""
        group = {"params": [self.raw_noise], "name": "noise", "weight_decay": 0.0}
        return [{**group, "learning_rate_factor": self.learning_rate_factor}]

    def forward(self, prediction: Tensor, target: Tensor, weight: None = None) -> Tensor:
        """Loss of a batch.

        Args:
            prediction: As of `RegressionLoss.forward`; (n, k) goes by batch alone.
            target: Likewise.
            weight: None: the loss corrects the imbalance itself.

        Returns:
            A single number, in the unit of a squared error. It may be negative where the density is fitted.

        Raises:
            TypeError, ValueError: As `RegressionLoss.forward`, and if weights are given.
            RuntimeError: If there is no density of the training targets yet.
        """
        if weight is not None:
            raise ValueError("Balanced MSE corrects the imbalance itself and takes no weights; switch re-weighting off")
        prediction, target, _ = regression_batch(prediction, target, vectors=self.vectors)
        noise, rows = self.noise.to(prediction.dtype), len(prediction)
        values = self._log_loss(prediction.reshape(rows, -1), target.reshape(rows, -1), noise)
        return (values * (2 * noise**2).detach()).mean()

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        return f"initial_noise={self.initial_noise}, learn_noise={self.raw_noise.requires_grad}"

    def _log_loss(self, prediction: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        """The loss of each row of (n, k), before the factor 2 s^2."""
        raise NotImplementedError


class BatchBalancedMSE(BalancedMSE):
    """Balanced MSE that takes the targets of the batch for the density of targets (the paper's BMC).

    Needs no density and takes vector targets (n, k). It tells the targets of a batch apart and knows no others: with
    one distinct target it is a constant, and nothing pulls back a prediction beyond the outermost target if that is its
    own. Arguments as of `BalancedMSE`.
    """

    vectors = True

    def _log_loss(self, prediction: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        # |p - y_j|^2 - |p - y_i|^2 as one product: a prediction far from everything then costs no precision
        own, others = target[:, None], target[None]
        excess = ((own - others) * (2 * prediction[:, None] - own - others)).sum(2)
        return torch.logsumexp(-excess / (2 * noise**2), dim=1)


class _FittedBalancedMSE(BalancedMSE):
    """Balanced MSE against a density held in buffers."""

    weights: Tensor
    means: Tensor
    variances: Tensor
    fitted = ("weights", "means", "variances")

    def set_density(self, weights: Any, means: Any, variances: Any) -> None:
        """Takes a mixture of Gaussians for the density of training targets.

        Args:
            weights, means, variances: Of the components, (components,), in the unit in which targets reach the loss;
                weights > 0, on any scale, and variances >= 0.

        Raises:
            ValueError: If the three are not of one length, or a number is out of range.
        """
        parts = zip(self.fitted, (weights, means, variances), strict=True)
        given = {name: torch.as_tensor(part, dtype=torch.float64).flatten() for name, part in parts}
        lengths = [len(part) for part in given.values()]
        if len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(f"a mixture needs as many weights as means and variances, got {lengths}")
        for name, part in given.items():
            check_finite(name, part)
        if not (given["weights"].min() > 0 and given["variances"].min() >= 0):
            raise ValueError(
                f"mixture weights must be > 0 and variances >= 0, got at least {given['weights'].min():g} and "
                f"{given['variances'].min():g}; leave empty components out"
            )
        given["weights"] = given["weights"] / given["weights"].sum()
        for name, part in given.items():
            setattr(self, name, part.float().to(self.raw_noise.device))

    def _log_loss(self, prediction: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        if not len(self.means):
            raise RuntimeError(
                f"{type(self).__name__} does not know the training targets yet; call prepare(density) or set_density"
            )
        weights, means, variances = (part.to(noise.dtype) for part in (self.weights, self.means, self.variances))
        variance = noise**2
        widened = variances + variance
        fit = (prediction[:, 0] - target[:, 0]) ** 2 / (2 * variance) + variance.log() / 2
        components = weights.log() - widened.log() / 2 - (prediction - means) ** 2 / (2 * widened)
        return fit + torch.logsumexp(components, dim=1)


class MixtureBalancedMSE(_FittedBalancedMSE):
    """Balanced MSE against a Gaussian mixture fitted to the training targets (the paper's GAI).

    Args:
        components: Gaussians in the mixture, >= 1; 8 in the official code for ages.
        seed: Decides where the fit starts.
        noise: `initial_noise`, `learn_noise` and `learning_rate_factor`, as of `BalancedMSE`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, components: int = 8, seed: int = 0, **noise: Any) -> None:
        super().__init__(**noise)
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components, self.seed = int(components), int(seed)

    def prepare(self, density: Density, target_scale: float = 1.0) -> None:
        """Fits the mixture to the training targets divided by `target_scale`, with scikit-learn.

        Raises:
            ImportError: If scikit-learn is missing.
            ValueError: If there are fewer distinct targets than components.
        """
        distinct = len(torch.unique(density.targets))
        if distinct < self.components:
            raise ValueError(
                f"{distinct} distinct training targets cannot fill {self.components} components; "
                f"set components to {distinct} or less"
            )
        mixture = optional(
            "sklearn.mixture", "a mixture is fitted with scikit-learn, which is missing; run pip install scikit-learn"
        )
        targets = density.targets.double().reshape(-1, 1) / target_scale
        fitted = mixture.GaussianMixture(self.components, random_state=self.seed).fit(targets.numpy())
        self.set_density(fitted.weights_, fitted.means_, fitted.covariances_)


class HistogramBalancedMSE(_FittedBalancedMSE):
    """Balanced MSE against the histogram of the training targets (the paper's BNI).

    A bin stands where the mean of its targets is, which for whole years is the year itself. Arguments as of
    `BalancedMSE`.
    """

    def prepare(self, density: Density, target_scale: float = 1.0) -> None:
        """Counts the training targets, divided by `target_scale`, in each bin; empty bins are left out."""
        place = density.bins(density.targets)
        counts, totals = place.bincount(), place.bincount(weights=density.targets.double())
        filled = counts > 0
        counts, totals = counts[filled], totals[filled]
        self.set_density(counts, totals / counts / target_scale, torch.zeros(len(counts)))
