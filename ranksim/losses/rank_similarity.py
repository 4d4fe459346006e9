"""The rank-similarity term of RankSim: neighbours in feature space, ordered as in label space.

For each sample i of a batch, the others are ranked twice: by the similarity of their labels to its own (S^y, minus the
distance) and by that of their features (S^z, the cosine). The term is the sum over i of the mean squared difference of
the two ranks, divided by the number of samples: L = sum_i 1/n sum_j ((rk(S^z_i)_j - rk(S^y_i)_j) / n)^2.

Ranks have no useful derivative, so the gradient is that of blackbox differentiation (`rambo.ranking.Blackbox`): the
similarities are ranked once more after a step of length lambda against the gradient of gamma * L in the ranks. What
that step is depends on the forward pass alone, so all of it is done there and the gradient is attached to the features
(`with_gradient`). The weight gamma is thus part of the rule, on which the published settings were tuned, whereas
whatever is multiplied on later (a gradient scaler, accumulation) only scales the result.

What lambda and gamma do: their product decides which ranks move, and the result is divided by lambda. A hundred times
the gamma is therefore not a hundred times the gradient; no entry of the gradient in S^z exceeds 1 / lambda.

Source: Gong et al. 2022, "RankSim: Ranking Similarity Regularization for Deep Imbalanced Regression", arXiv:2205.15236.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rambo.ranking import Blackbox, Ties, directions_and_lengths, needs_gradient, plain, rank, ranks, with_gradient
from ranksim.inputs import as_targets, check_finite, check_outputs, exact
from ranksim.losses.similarities import LabelSimilarity, label_similarities, products
from ranksim.losses.subsampling import drawn_by_python, drawn_by_torch, one_of_each_label

Subsample = Literal["generator", "python", "none"]
RowReduction = Literal["sum", "mean"]


class Compared(NamedTuple):
    """What `rank_similarity` returns; single numbers all.

    loss: weight * L; differentiable once, if the features are.
    correlation: Mean over samples of Spearman's correlation between the two orders, in [-1, 1], without a graph;
        1 where fewer than two samples leave nothing to order.
    flipped: Share of the ranks that the step of length lambda moves, without a graph; None without a gradient. Near 0
        lambda * gamma is too small to teach anything, near 1 the gradient has lost its sense of magnitude.
    """

    loss: Tensor
    correlation: Tensor
    flipped: Tensor | None


class RankSimilarity(nn.Module):
    """Asks neighbours in feature space to be ordered as in label space.

    The published settings are lambda = 2, and gamma = 100 with a base loss in years of age or 3e-4 with one on
    scores from 0 to 1. Memory is O(n^2).

    Args:
        interpolation: Smoothness of the ranking gradient (the paper's lambda), > 0.
        weight: What the term is multiplied by (the paper's gamma), >= 0; part of the gradient rule, see the module.
        subsample: From each distinct label one sample takes part, drawn anew in each call, so that frequent labels
            weigh no more than rare ones and few labels are equally far. "generator": drawn by torch; "python": by the
            global `random.choice`, number for number as in the official code; "none": all samples take part. If no
            label occurs twice, all take part in their own order and nothing is drawn.
        seed: Seed of a generator for the draws of this module alone, kept in its `state_dict`; None takes torch's
            default generator of the CPU, which the trainer seeds and restores.
        ties: Which of two equally similar samples gets the smaller rank: "last_index_first" (the stable sort of the
            official code for text; its plain sort for images leaves this to the device) or "first_index_first".
        row_reduction: "sum" over samples as in the official code, so that the term grows with the batch; or "mean".
        normalize_ranks: Whether ranks are divided by the number of samples, in the term and in what lambda refers to.
        label_similarity: How targets of several numbers are compared: "distance", minus the Euclidean one, or "cosine",
            for which (1, 1), (2, 2) and (10, 10) are the same. None takes the cosine for them, as the paper's author
            advises, and the distance for single numbers, of which there is no other.
        legacy_backward: Run the rule in the backward pass, as the official code does; then loss scaling and
            accumulation change the method. Kept to check the default against.

    Attributes:
        health: Numbers of the last call, without a graph: `distinct_labels`, `rank_correlation` and `flipped` (see
            `Compared`). The last two are missing where nothing was compared.

    Raises:
        ValueError: If a number is out of range, a name is unknown, or a seed is given for draws that do not use it.

    Source: Gong et al. 2022, section 3.
    """

    def __init__(
        self,
        interpolation: float = 2.0,
        weight: float = 1.0,
        subsample: Subsample = "generator",
        seed: int | None = None,
        ties: Ties = "last_index_first",
        row_reduction: RowReduction = "sum",
        normalize_ranks: bool = True,
        legacy_backward: bool = False,
        label_similarity: LabelSimilarity | None = None,
    ) -> None:
        super().__init__()
        _check_settings(weight, ties, row_reduction, label_similarity)
        _one_of("subsample", subsample, ("generator", "python", "none"))
        if seed is not None and subsample != "generator":
            raise ValueError(f"a seed needs subsample='generator', got seed {seed} and subsample {subsample!r}")
        self.rule = Blackbox(interpolation, "normalized" if normalize_ranks else "integer")
        self.weight, self.ties, self.row_reduction = weight, ties, row_reduction
        self.subsample, self.seed, self.legacy_backward = subsample, seed, legacy_backward
        self.label_similarity = label_similarity
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.health: dict[str, float | Tensor] = {}

    def forward(self, features: Tensor, targets: Any) -> Tensor:
        """Returns weight * L, a single number: float32, or float64 for float64 features.

        Args:
            features: (samples, ...); dimensions after the first are flattened. Half precision is ranked in float32.
            targets: (samples,) or (samples, 1), compared by distance; or (samples, k), by `label_similarity`. A tensor,
                an array or a list, of any type.

        Raises:
            TypeError: If features are no floating-point tensor, or targets no numbers.
            ValueError: If shapes do not fit, a number is not finite, targets in half precision are too large to be told
                apart, or single numbers are to be compared by cosine.
            RuntimeError: If torch.func.vmap maps over the batch.
        """
        self.health = {}
        features, targets = _checked(features, targets, self.label_similarity, finite=self.weight > 0)
        if self.weight == 0:
            return _nothing(features)
        chosen, distinct = one_of_each_label(targets, None if self.subsample == "none" else self._drawn)
        self.health["distinct_labels"] = float(distinct)
        if distinct < 2:  # nothing to order
            return _nothing(features)
        if chosen is not None:
            features = features.index_select(0, chosen.to(features.device))
            targets = targets.index_select(0, chosen.to(targets.device))
        by_label = _likeness(targets, self.label_similarity, features.device)
        compared = _compare(
            features, by_label, self.rule, self.weight, self.ties, self.row_reduction, self.legacy_backward
        )
        self.health["rank_correlation"] = compared.correlation
        if compared.flipped is not None:
            self.health["flipped"] = compared.flipped
        return compared.loss

    def _drawn(self, samples: Sequence[Sequence[int]]) -> list[int]:
        return drawn_by_python(samples) if self.subsample == "python" else drawn_by_torch(samples, self.generator)

    def get_extra_state(self) -> Tensor | None:
        """The state of the generator, if there is one of its own."""
        return None if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Any) -> None:
        """Goes on with the draws where a saved module stopped, if both have a generator of their own."""
        if self.generator is not None and state is not None:
            self.generator.set_state(state.cpu())

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return (
            f"rule={self.rule}, weight={self.weight}, subsample={self.subsample!r}, seed={self.seed}, "
            f"ties={self.ties!r}, row_reduction={self.row_reduction!r}, legacy_backward={self.legacy_backward}, "
            f"label_similarity={self.label_similarity!r}"
        )


def rank_similarity(
    features: Tensor,
    targets: Any,
    interpolation: float = 2.0,
    weight: float = 1.0,
    ties: Ties = "last_index_first",
    row_reduction: RowReduction = "sum",
    normalize_ranks: bool = True,
    legacy_backward: bool = False,
    label_similarity: LabelSimilarity | None = None,
) -> Compared:
    """The term on all the samples given, as a pure function. Arguments and errors as for `RankSimilarity`.

    A sample whose features have no direction (the zero vector) gets no gradient, where the official code multiplies
    it by 1e12.
    """
    _check_settings(weight, ties, row_reduction, label_similarity)
    rule = Blackbox(interpolation, "normalized" if normalize_ranks else "integer")
    features, targets = _checked(features, targets, label_similarity)
    by_label = _likeness(targets, label_similarity, features.device)
    return _compare(features, by_label, rule, weight, ties, row_reduction, legacy_backward)


def _compare(
    features: Tensor,
    label_likeness: Tensor,
    rule: Blackbox,
    weight: float,
    ties: Ties,
    row_reduction: RowReduction,
    legacy_backward: bool,
) -> Compared:
    samples = len(features)
    # weight * L = factor * the sum of squared differences of integer ranks, so its slope in a rank is 2 * factor * d
    terms = samples ** (3 if rule.scale == "normalized" else 1) * (samples if row_reduction == "mean" else 1)
    factor = weight / max(1, terms)
    with _full_precision(features.device):
        flat = features if features.dim() == 2 else features.flatten(1)
        values = flat if flat.dtype == torch.float64 else flat.float()
        if legacy_backward:
            directions, _ = directions_and_lengths(values)
            by_label = ranks(label_likeness, ties, check_nan=False, dtype=values.dtype)
            difference = rank(directions @ directions.T, rule, ties) - by_label
            squares = difference.square().sum()
            return Compared(squares * factor, _correlation(squares.detach(), samples), None)
        with torch.no_grad():
            directions, lengths = directions_and_lengths(plain(values))
            similarities = products(directions)
            both = torch.stack([similarities, label_likeness])
            by_feature, by_label = ranks(both, ties, check_nan=False, dtype=values.dtype)
            difference = by_feature - by_label
            squares = difference.square().sum()
            loss, correlation = squares * factor, _correlation(squares, samples)
        if not needs_gradient(flat):
            return Compared(loss, correlation, None)
        with torch.no_grad():
            strength = rule.strength(samples)
            stepped = difference.mul_(2 * factor * strength).add_(similarities)
            moved = ranks(stepped, ties, check_nan=False, dtype=values.dtype) - by_feature
            flipped = moved.count_nonzero() / max(1, moved.numel())
            gradient = _pull_back(moved, similarities, directions, lengths * strength)
        return Compared(with_gradient(loss, flat, gradient), correlation, flipped)


def _likeness(targets: Tensor, kind: LabelSimilarity | None, device: torch.device) -> Tensor:
    with _full_precision(device):
        return label_similarities(targets.to(device), kind)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Where half precision would tie most similarities."""
    active = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if active else nullcontext()


def _pull_back(moved: Tensor, similarities: Tensor, directions: Tensor, scale: Tensor) -> Tensor:
    """From the movement of ranks (samples, samples) to a gradient in the features (samples, dimensions).

    In the similarities the gradient is G = moved / lambda. Each is the product of two directions, so in these it is
    (G + G^T) directions. The division by the length takes from this what lies along the own direction, which is known
    from the similarities: it comes off the diagonal of the matrix, and one matrix product is all that is left to do.

    Args:
        moved: Ranks after the step minus ranks before.
        similarities: Of the features.
        directions: The features divided by their lengths.
        scale: Lambda times the lengths, (samples, 1).
    """
    both = moved.T.contiguous().add_(moved)  # adding the transposed itself takes twice as long
    both.diagonal().sub_((both * similarities).sum(dim=1))
    return both.div_(scale) @ directions


def _correlation(squares: Tensor, samples: int) -> Tensor:
    """Mean over rows of Spearman's 1 - 6 sum d^2 / (n (n^2 - 1)), from the sum over all rows."""
    return 1 - squares * (6 / max(1, samples * samples * (samples**2 - 1)))


def _checked(
    features: Tensor, targets: Any, label_similarity: str | None, finite: bool = True
) -> tuple[Tensor, Tensor]:
    """Features as they are, targets as floats of (samples,) or (samples, k) without a graph."""
    check_outputs("features", features, finite)
    targets = as_targets(targets, features.device)
    if features.dim() < 2:
        raise ValueError(f"features must have the shape (samples, ...), got {tuple(features.shape)}")
    if targets.dim() not in (1, 2) or len(targets) != len(features) or 0 in targets.shape[1:]:
        raise ValueError(
            f"targets must have the shape (samples,), (samples, 1) or (samples, k) with {len(features)} samples as the "
            f"features have, got {tuple(targets.shape)}"
        )
    plain(features)  # refuses vmap by a sentence
    targets = plain(targets)
    check_finite("targets", targets)
    if targets.dim() == 2 and targets.shape[1] == 1:
        targets = targets.squeeze(1)
    if targets.dim() == 1 and label_similarity == "cosine":
        raise ValueError(
            "single numbers have no cosine to compare them by; set label_similarity to distance, or to None"
        )
    return features, exact(targets)


def _nothing(features: Tensor) -> Tensor:
    """Zero, connected to the features so that it can be differentiated on its own."""
    empty = features[:0]
    return (empty if features.dtype == torch.float64 else empty.float()).sum()


def _check_settings(weight: float, ties: str, row_reduction: str, label_similarity: str | None) -> None:
    if not (weight >= 0 and math.isfinite(weight)):  # also refuses nan
        raise ValueError(f"weight (gamma) must be >= 0 and finite, got {weight}")
    _one_of("ties", ties, ("last_index_first", "first_index_first"))
    _one_of("row_reduction", row_reduction, ("sum", "mean"))
    if label_similarity is not None:
        _one_of("label_similarity", label_similarity, ("distance", "cosine"))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
