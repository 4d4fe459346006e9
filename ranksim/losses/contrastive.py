"""Contrastive terms for regression: features near each other where targets are. Import them from `ranksim.losses`.

Both are called with the features of a batch and its targets, like `RankSimilarity`, and return a number already
multiplied by their weight. Several views of a batch are one batch of more rows: give the features of all views, one
view after the other, and the targets (and predictions, and weights) as often. The papers use two augmented views; the
objective of our trainer gives one, and what it reports says so.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from rambo.ranking import plain, unit_vectors
from ranksim.inputs import as_numbers, as_targets, check_finite, check_outputs, exact
from ranksim.losses.regression import at_least_float32

Similarity = Literal["negative_l2", "cosine"]
LabelDistance = Literal["l1", "l2"]


def label_distances(targets: Tensor, kind: LabelDistance = "l1") -> Tensor:
    """How far every pair of targets (n,) or (n, k) is apart, (n, n), in their precision but at least float32."""
    rows = targets[:, None] if targets.dim() == 1 else targets
    return _distances(exact(rows), 1.0 if kind == "l1" else 2.0)


def _distances(rows: Tensor, power: float) -> Tensor:
    # differences, not products: close rows far from the origin keep their distance, and equal distances stay equal
    if forward_ad.unpack_dual(rows).tangent is not None:  # type: ignore[no-untyped-call]
        # n x n x k, as cdist has no forward-mode derivative
        found: Tensor = (rows[:, None] - rows).norm(power, dim=2)
    else:
        found = torch.cdist(rows, rows, p=power, compute_mode="donot_use_mm_for_euclid_dist")
    return found


def rank_n_contrast(similarities: Tensor, distances: Tensor) -> Tensor:
    """How surprising each sample is among those at least as far from the anchor in label.

    Args:
        similarities: Of the features, divided by the temperature, (n, n) with n >= 2.
        distances: Of the labels, (n, n), >= 0.

    Returns:
        For anchor i and each other sample j the value log(sum over k of exp(s_ik)) - s_ij over all k != i with
        d_ik >= d_ij, (n, n - 1); each row ordered by label distance.

    Source: Zha et al. 2023, section 3 (the loss of one pair).
    """
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    ordered, order = distances.masked_fill(itself, -1.0).sort(dim=1)
    ordered, order = ordered[:, 1:].contiguous(), order[:, 1:]  # the anchor came first, and is not compared
    similarities = similarities.gather(1, order)
    behind = similarities.flip(1).logcumsumexp(1).flip(1)  # of each sample and all that come later
    first = torch.searchsorted(ordered, ordered)  # where those equally far begin, for they count too
    return behind.gather(1, first) - similarities


def conr(
    similarities: Tensor,
    distances: Tensor,
    predicted: Tensor,
    window: float,
    pushing: float,
    weights: Tensor | None = None,
    legacy_denominator: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value of each anchor, and which pairs were positive and negative.

    Args:
        similarities: Cosines of the features, divided by the temperature, (n, n).
        distances: Of the labels, (n, n).
        predicted: Distances of the predictions, (n, n).
        window: Pairs no further apart are alike, by label or by prediction.
        pushing: Growth of a negative's weight, exp(pushing * label distance).
        weights: Of the anchors, (n,): multiplies the weights of their negatives, and their own value.
        legacy_denominator: See `ConR`.

    Returns:
        Values (n,), 0 for anchors lacking positives or negatives; positives and negatives, bool (n, n).

    Source: Keramati et al. 2024, section 3, and its official code for ages.
    """
    alike = distances <= window
    negative = ~alike & (predicted <= window)
    positive = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    anchors = positive.any(1) & negative.any(1)

    push = pushing * distances.to(similarities.dtype)
    if weights is not None:
        push = push + weights.to(similarities.dtype).log()[:, None]
    terms = torch.where(negative, similarities + push, similarities).masked_fill(~(positive | negative), -math.inf)
    if legacy_denominator:
        others = (~positive).sum(1, keepdim=True).to(terms.dtype)
        terms = torch.cat([terms, others.log()], dim=1)
    # rows without a pair of any weight hold -inf alone, whose gradient would be NaN
    denominators = torch.logsumexp(torch.where(anchors[:, None], terms, 0.0), dim=1)
    attraction = torch.where(positive, similarities, 0.0).sum(1) / positive.sum(1).clamp_min(1)
    values = torch.where(anchors, denominators - attraction, 0.0)
    return values if weights is None else values * weights.to(values.dtype), positive, negative


_NOT_SHOWN = ("training", "health")


class _Contrastive(nn.Module):
    views_in_paper = 2

    def __init__(self, weight: float, temperature: float, label_distance: LabelDistance) -> None:
        super().__init__()
        if not (weight >= 0 and math.isfinite(weight)):  # also refuses nan
            raise ValueError(f"weight must be >= 0 and finite, got {weight}; 0 switches the term off")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
        if label_distance not in ("l1", "l2"):
            raise ValueError(f"label_distance must be l1 or l2, got {label_distance!r}")
        self.weight, self.temperature, self.label_distance = float(weight), float(temperature), label_distance
        self.health: dict[str, Tensor] = {}

    def extra_repr(self) -> str:
        """Shown by print(loss)."""
        shown = {name: value for name, value in vars(self).items() if name[0] != "_" and name not in _NOT_SHOWN}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def _rows(features: Tensor) -> Tensor:
    """The features flattened per sample, in at least float32."""
    check_outputs("features", features)
    if features.dim() < 2:
        raise ValueError(f"features must be (n, ...), one row per sample, got {tuple(features.shape)}")
    plain(features)  # refuses vmap by a sentence
    return features.flatten(1).to(at_least_float32(features.dtype))


def _constants(name: str, values: Tensor, features: Tensor) -> Tensor:
    """Numbers of each sample, without a graph."""
    if values.dim() not in (1, 2) or len(values) != len(features):
        raise ValueError(
            f"{name} must be one per sample, ({len(features)},) or ({len(features)}, k), got {tuple(values.shape)}"
        )
    check_finite(name, values)
    return plain(values)


class RankNContrast(_Contrastive):
    """Orders the neighbours of each sample by label: whoever is nearer in label shall be more similar in features.

    In the paper it trains the encoder alone, on two augmented views, before a linear head is fitted; here it is a term
    beside a regression loss, of as many views as it is given.

    Args:
        weight: What the mean over pairs is multiplied by, >= 0.
        temperature: Divides the similarities, > 0; 2 as others report of the official code, which could not be read.
        similarity: "negative_l2" (the paper's; lengths of features matter) or "cosine".
        label_distance: "l1" (as others report of the official code) or "l2"; the same for targets of one number.

    Attributes:
        health: `pair_probability` of the last call: the mean probability of a sample among those at least as far.

    Raises:
        ValueError: If a number is out of range or a name unknown.

    Source: Zha et al. 2023, arXiv:2210.01189, section 3.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        similarity: Similarity = "negative_l2",
        label_distance: LabelDistance = "l1",
    ) -> None:
        super().__init__(weight, temperature, label_distance)
        if similarity not in ("negative_l2", "cosine"):
            raise ValueError(f"similarity must be negative_l2 or cosine, got {similarity!r}")
        self.similarity = similarity

    def forward(self, features: Tensor, targets: Any) -> Tensor:
        """The term of a batch.

        Args:
            features: (n, ...), flattened per sample; half precision is compared in float32.
            targets: (n,), (n, 1) or (n, k); a tensor, an array or a list.

        Returns:
            A single number; 0 for fewer than two samples.

        Raises:
            TypeError: If features are no floating-point tensor, or targets no numbers.
            ValueError: If shapes do not fit, a number is not finite, or targets in half precision are too large to be
                told apart.
            RuntimeError: If torch.func.vmap maps over the batch.
        """
        with torch.autocast(features.device.type if isinstance(features, Tensor) else "cpu", enabled=False):
            features = _rows(features)
            targets = _constants("targets", as_targets(targets, features.device), features)
            if len(features) < 2:
                self.health = {}
                return features.sum() * 0.0
            if self.similarity == "cosine":
                features = unit_vectors(features)
                similarities = features @ features.T
            else:
                similarities = -_distances(features, 2.0)
            pairs = rank_n_contrast(similarities / self.temperature, label_distances(targets, self.label_distance))
            self.health = {"pair_probability": pairs.detach().neg().exp().mean()}
            return self.weight * pairs.mean()


class ConR(_Contrastive):
    """Pushes apart what is predicted alike though its labels differ, and the harder the more they differ.

    For each sample that has both: positives lie within the window of its label; negatives lie beyond it while their
    prediction is within the window of the sample's. The value is -log of a positive's share among positives and
    weighted negatives, averaged over positives, then over all samples of the batch.

    Certain: pairs, weights and averages are those of the official code for ages. Not settled by what could be read:
    whether the paper's equation averages over positives inside or outside the logarithm (here outside, as the code),
    and how it makes the pushing weight grow with label distance (here exp(pushing * distance), as the code for ages;
    the one for depth multiplies). Deviations: an anchor without positives, NaN in the official code, counts 0, and
    the official code computes the term on two augmented views, which it is up to the caller to give.

    Args:
        weight: What the mean over anchors is multiplied by (the paper's beta), >= 0.
        window: Pairs whose labels are no further apart are alike (the official code's w), >= 0, in the unit of the
            targets; the same window decides whether predictions are alike.
        temperature: Divides the cosines, > 0. The documented value is 0.2; the official AgeDB code sets 0.07 whatever
            it is told, and the IMDB-WIKI code has it as its default.
        pushing: Growth of a negative's weight with label distance d, exp(pushing * d) (the official code's e), >= 0.
        label_distance: "l1" or "l2"; the same for targets that are single numbers.
        legacy_denominator: Add 1 to the denominator for every sample that is not a positive, the anchor and the
            negatives included, as the official code does by masking before taking the exponential.

    Attributes:
        health: Of the last call: `anchors` (share of samples with a positive and a negative), `positives` and
            `negatives` (mean number per sample).

    Raises:
        ValueError: If a number is out of range or a name unknown.

    Source: Keramati et al. 2024, arXiv:2309.06651, section 3.
    """

    wants_predictions = True
    wants_weights = True

    def __init__(
        self,
        weight: float = 4.0,
        window: float = 1.0,
        temperature: float = 0.2,
        pushing: float = 0.01,
        label_distance: LabelDistance = "l1",
        legacy_denominator: bool = False,
    ) -> None:
        super().__init__(weight, temperature, label_distance)
        if not (window >= 0 and math.isfinite(window)):
            raise ValueError(f"window must be >= 0 and finite, got {window}")
        if not (pushing >= 0 and math.isfinite(pushing)):
            raise ValueError(f"pushing must be >= 0 and finite, got {pushing}")
        self.window, self.pushing = float(window), float(pushing)
        self.legacy_denominator = bool(legacy_denominator)

    def forward(self, features: Tensor, targets: Any, predictions: Any, weights: Any = None) -> Tensor:
        """The term of a batch.

        Args:
            features: (n, ...), flattened per sample; half precision is compared in float32.
            targets: (n,), (n, 1) or (n, k); a tensor, an array or a list, as the two that follow.
            predictions: As many numbers as targets, in their unit; they decide which pairs count and get no gradient.
            weights: Rarity of each anchor, (n,) or (n, 1), >= 0, officially those of the base loss; None for ones.

        Returns:
            A single number; 0 if no sample has both a positive and a negative.

        Raises:
            TypeError: If features are no floating-point tensor, or the others no numbers.
            ValueError: If shapes do not fit, a number is not finite, a weight is negative, or targets in half precision
                are too large to be told apart.
            RuntimeError: If torch.func.vmap maps over the batch.
        """
        with torch.autocast(features.device.type if isinstance(features, Tensor) else "cpu", enabled=False):
            features = _rows(features)
            targets = _constants("targets", as_targets(targets, features.device), features)
            predictions = _constants("predictions", as_numbers("predictions", predictions, features.device), features)
            if predictions.numel() != targets.numel():
                raise ValueError(
                    f"predictions of shape {tuple(predictions.shape)} do not match targets of shape "
                    f"{tuple(targets.shape)}; give one for each"
                )
            if weights is not None:
                weights = _constants("weights", as_numbers("weights", weights, features.device), features)
                if weights.numel() != len(features) or bool((weights < 0).any()):
                    raise ValueError(f"weights must be one per sample and >= 0, got shape {tuple(weights.shape)}")
                weights = weights.flatten()
            features = unit_vectors(features)
            values, positive, negative = conr(
                features @ features.T / self.temperature,
                label_distances(targets, self.label_distance),
                label_distances(predictions, self.label_distance),
                self.window,
                self.pushing,
                weights,
                self.legacy_denominator,
            )
            rows = max(1, len(features))
            self.health = {
                "anchors": (positive.any(1) & negative.any(1)).sum() / rows,
                "positives": positive.sum() / rows,
                "negatives": negative.sum() / rows,
            }
            return self.weight * values.sum() / rows
