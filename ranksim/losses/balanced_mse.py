"""Balanced MSE: squared error that has learnt how common each target is. Import it from `ranksim.losses`.

A prediction p is read as a normal distribution N(p, s^2) of the target under *balanced* labels, s being a learnt noise.
What training sees is that distribution times the density of the training labels, divided by its integral, so the loss
gains a term that takes the pull of common labels off the prediction:

    2 s^2 * [ -log N(y; p, s^2) + log of the integral over y' of density(y') N(y'; p, s^2) ]

The factor 2 s^2, which gives the first part the scale of a squared error, carries no gradient. What differs between the
three losses is the density: the other targets of the batch (BMC), a Gaussian mixture fitted to the training targets
(GAI), or their histogram (BNI).

Source: Ren et al. 2022, arXiv:2203.16427, section 3 (the loss) and 3.3 (its three implementations). Formulas and
settings were compared with the official code; its parameter is the noise itself, ours keeps it positive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ranksim.bins import Density
from ranksim.inputs import check_finite
from ranksim.losses.regression import regression_batch

SMALLEST_NOISE = 1e-6
PRIOR = ("weights", "means", "variances")


def balanced_by_batch(prediction: Tensor, target: Tensor, noise: Tensor | float) -> Tensor:
    """-log of the share of a sample's own target among all targets of the batch: the loss before the factor 2 s^2.

    Args:
        prediction: (n, k).
        target: (n, k).
        noise: s, a single number.

    Returns:
        (n,), each at least 0.

    Source: Ren et al. 2022, batch-based Monte-Carlo (BMC).
    """
    # |p - y_j|^2 - |p - y_i|^2 as one product: a prediction far from everything then costs no precision
    own, others = target[:, None], target[None]
    excess = ((own - others) * (2 * prediction[:, None] - own - others)).sum(2)
    return torch.logsumexp(-excess / (2 * noise**2), dim=1)


def balanced_by_mixture(
    prediction: Tensor, target: Tensor, noise: Tensor, weights: Tensor, means: Tensor, variances: Tensor
) -> Tensor:
    """-log N(y; p, s^2) + log of the sum over components of weight * N(p; mean, variance + s^2).

    Args:
        prediction: (n,).
        target: (n,).
        noise: s, a single number.
        weights: Of the components, (components,), summing to 1.
        means: (components,).
        variances: (components,), each >= 0; all 0 makes it a histogram.

    Returns:
        (n,).

    Source: Ren et al. 2022, GMM-based analytical integration (GAI).
    """
    variance = noise**2
    widened = variances + variance
    fit = (prediction - target) ** 2 / (2 * variance) + variance.log() / 2
    components = weights.log() - widened.log() / 2 - (prediction[:, None] - means) ** 2 / (2 * widened)
    return fit + torch.logsumexp(components, dim=1)


class BalancedMSE(nn.Module):
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

    def __init__(
        self, initial_noise: float = 10.0, learn_noise: bool = True, learning_rate_factor: float = 100.0
    ) -> None:
        super().__init__()
        if not (initial_noise > SMALLEST_NOISE and math.isfinite(initial_noise)):  # also refuses nan
            raise ValueError(f"initial_noise must be > {SMALLEST_NOISE:g} and finite, got {initial_noise}")
        if not (learning_rate_factor > 0 and math.isfinite(learning_rate_factor)):
            raise ValueError(
                f"learning_rate_factor must be > 0 and finite, got {learning_rate_factor}; to fix the noise, "
                "set learn_noise to false"
            )
        self.initial_noise, self.learning_rate_factor = float(initial_noise), float(learning_rate_factor)
        # softplus: a step is one of the noise itself where that is large, as officially, and of its logarithm near 0
        excess = initial_noise - SMALLEST_NOISE
        raw = excess + math.log(-math.expm1(-excess))
        self.raw_noise = nn.Parameter(torch.tensor(raw), requires_grad=bool(learn_noise))

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
        return [
            {
                "params": [self.raw_noise],
                "name": "noise",
                "learning_rate_factor": self.learning_rate_factor,
                "weight_decay": 0.0,
            }
        ]

    def forward(self, prediction: Tensor, target: Tensor, weight: None = None) -> Tensor:
        """Loss of a batch.

        Args:
            prediction: (n,) or (n, 1), and (n, k) if `vectors`; half precision is taken to float32.
            target: The same shape; finite.
            weight: None: the loss corrects the imbalance itself.

        Returns:
            A single number, in the unit of a squared error. It may be negative where the density is fitted.

        Raises:
            TypeError: If predictions are no floating-point tensor, or targets no numbers.
            ValueError: If shapes differ, the batch is empty, a number is not finite, or weights are given.
            RuntimeError: If there is no density of the training targets yet.
        """
        if weight is not None:
            raise ValueError("Balanced MSE corrects the imbalance itself and takes no weights; switch re-weighting off")
        prediction, target, _ = regression_batch(prediction, target, vectors=self.vectors)
        noise = self.noise.to(prediction.dtype)
        rows = len(prediction)
        values = self._log_loss(prediction.reshape(rows, -1), target.reshape(rows, -1), noise)
        return (values * (2 * noise**2).detach()).mean()

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        return f"initial_noise={self.initial_noise}, learn_noise={self.raw_noise.requires_grad}"

    def _log_loss(self, prediction: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        raise NotImplementedError


class BatchBalancedMSE(BalancedMSE):
    """Balanced MSE that takes the targets of the batch for the density of targets (the paper's BMC).

    Needs no density, takes vector targets (n, k), and is the better the larger the batch. It tells the targets of a
    batch apart and knows no others: with one distinct target it is a constant, and a prediction beyond the outermost
    target is not pulled back if that target is its own. Arguments as of `BalancedMSE`.
    """

    vectors = True

    def _log_loss(self, prediction: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        return balanced_by_batch(prediction, target, noise)


class _FittedBalancedMSE(BalancedMSE):
    """Balanced MSE against a density held in buffers, which may have any length: a checkpoint restores them."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self, initial_noise: float = 10.0, learn_noise: bool = True, learning_rate_factor: float = 100.0
    ) -> None:
        super().__init__(initial_noise, learn_noise, learning_rate_factor)
        for name in PRIOR:
            self.register_buffer(name, torch.empty(0))

    def set_density(self, weights: Any, means: Any, variances: Any) -> None:
        """Takes a mixture of Gaussians for the density of training targets.

        Args:
            weights: Any scale, each > 0, (components,).
            means: (components,), in the unit in which targets reach the loss.
            variances: (components,), each >= 0.

        Raises:
            ValueError: If the three are not of one length, or a number is out of range.
        """
        given = [torch.as_tensor(values, dtype=torch.float64).flatten() for values in (weights, means, variances)]
        if len({len(values) for values in given}) != 1 or not len(given[0]):
            lengths = ", ".join(str(len(values)) for values in given)
            raise ValueError(f"a mixture needs as many weights as means and variances, got {lengths}")
        for name, values in zip(PRIOR, given, strict=True):
            check_finite(name, values)
        if not bool((given[0] > 0).all()):
            raise ValueError(f"mixture weights must be > 0, got {given[0].min().item():g}; leave empty components out")
        if not bool((given[2] >= 0).all()):
            raise ValueError(f"mixture variances must be >= 0, got {given[2].min().item():g}")
        given[0] = given[0] / given[0].sum()
        for name, values in zip(PRIOR, given, strict=True):
            setattr(self, name, values.float().to(self.raw_noise.device))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name in PRIOR:
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, getattr(self, name).new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _log_loss(self, prediction: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        if not len(self.means):
            raise RuntimeError(
                f"{type(self).__name__} does not know the training targets yet; call prepare(density) or set_density"
            )
        density = (buffer.to(noise.dtype) for buffer in (self.weights, self.means, self.variances))
        return balanced_by_mixture(prediction[:, 0], target[:, 0], noise, *density)


class MixtureBalancedMSE(_FittedBalancedMSE):
    """Balanced MSE against a Gaussian mixture fitted to the training targets (the paper's GAI).

    Args:
        components: Gaussians in the mixture, >= 1; 8 in the official code for ages.
        seed: Decides where the fit starts.
        initial_noise, learn_noise, learning_rate_factor: As of `BalancedMSE`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        components: int = 8,
        seed: int = 0,
        initial_noise: float = 10.0,
        learn_noise: bool = True,
        learning_rate_factor: float = 100.0,
    ) -> None:
        super().__init__(initial_noise, learn_noise, learning_rate_factor)
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components, self.seed = int(components), int(seed)

    def prepare(self, density: Density, target_scale: float = 1.0) -> None:
        """Fits the mixture to the training targets, with scikit-learn.

        Args:
            density: Of the training part.
            target_scale: What targets are divided by before they reach the loss.

        Raises:
            ImportError: If scikit-learn is missing.
            ValueError: If there are fewer distinct targets than components.
        """
        targets = density.targets.detach().cpu().double().reshape(-1, 1) / target_scale
        distinct = len(set(targets.flatten().tolist()))
        if distinct < self.components:
            raise ValueError(
                f"{distinct} distinct training targets cannot fill {self.components} components; "
                f"set components to {distinct} or less"
            )
        try:
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise ImportError(
                "a mixture is fitted with scikit-learn, which is missing; run pip install scikit-learn"
            ) from error
        fitted = GaussianMixture(self.components, random_state=self.seed).fit(targets.numpy())
        self.set_density(fitted.weights_, fitted.means_, fitted.covariances_)


class HistogramBalancedMSE(_FittedBalancedMSE):
    """Balanced MSE against the histogram of the training targets (the paper's BNI).

    A bin stands where the mean of its targets is, which for whole years is the year itself. Arguments as of
    `BalancedMSE`.
    """

    def prepare(self, density: Density, target_scale: float = 1.0) -> None:
        """Counts the training targets in each bin; empty bins are left out.

        Args:
            density: Of the training part.
            target_scale: What targets are divided by before they reach the loss.
        """
        targets = density.targets.detach().cpu()
        place = density.bins(targets)
        counts, totals = place.bincount(), place.bincount(weights=targets.double())
        filled = counts > 0
        counts, totals = counts[filled], totals[filled]
        self.set_density(counts, totals / counts / target_scale, torch.zeros(len(counts)))
