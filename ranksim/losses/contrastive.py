"""Contrastive terms for regression: features near each other where targets are. Import them from `ranksim.losses`.

Both are called with the features of a batch and its targets, like `RankSimilarity`. Several views of a batch are one
batch of more rows: give the features of all views, one view after the other, and the targets (and predictions, and
weights) as often. The papers use two augmented views; the objective of our trainer gives one, and its record says so.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from rambo.ranking import plain, unit_vectors
from rambo.ranking.exact import one_of, positive, sent, spoiled
from ranksim.inputs import Shown, as_weights, at_least_float32, constants, features_and_targets, not_negative
from ranksim.losses.similarities import row_distances

Similarity = Literal["negative_l2", "cosine"]
LabelDistance = Literal["l1", "l2"]


def label_distances(targets: Tensor, kind: LabelDistance = "l1") -> Tensor:
    """How far every pair of targets (n,) or (n, k) is apart, (n, n)."""
    return row_distances(targets[:, None] if targets.dim() == 1 else targets, 1.0 if kind == "l1" else 2.0)


def rank_n_contrast(similarities: Tensor, distances: Tensor) -> Tensor:
    """How surprising each sample is among those at least as far from the anchor in label.

    Args:
        similarities: Of the features, divided by the temperature, (n, n) with n >= 2.
        distances: Of the labels, (n, n), >= 0.

    Returns:
        For anchor i and each other sample j the value log(sum over k of exp(s_ik)) - s_ij over all k != i with
        d_ik >= d_ij, (n, n - 1); each row ordered by label distance.
    """
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    ordered, order = distances.masked_fill(itself, -1.0).sort(dim=1)
    ordered, order = ordered[:, 1:].contiguous(), order[:, 1:]  # the anchor came first, and is not compared
    similarities = similarities.gather(1, order)
    behind = similarities.flip(1).logcumsumexp(1).flip(1)  # of each sample and all that come later
    # where those equally far begin, for they count too; nowhere for NaN, which nobody may have looked for
    first = torch.searchsorted(ordered, ordered).clamp_(max=max(0, ordered.shape[1] - 1))
    return behind.gather(1, first) - similarities


class _Contrastive(Shown):
    views_in_paper = 2

    def __init__(self, weight: float, temperature: float, label_distance: LabelDistance) -> None:
        super().__init__()
        one_of("label_distance", label_distance, ("l1", "l2"))
        self.weight, self.temperature = not_negative("weight", weight), positive("temperature", temperature)
        self.label_distance = label_distance
        self.health: dict[str, Tensor] = {}

    def _checked(self, features: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """Features flattened per sample, in at least float32, and targets beside them."""
        features, targets = features_and_targets(features, targets)
        return features.flatten(1).to(at_least_float32(features.dtype)), sent(targets, features.device)


class RankNContrast(_Contrastive):
    """Orders the neighbours of each sample by label: whoever is nearer in label shall be more similar in features.

    In the paper it trains the encoder alone, before the head is fitted; here it is a term beside a regression loss.

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
        one_of("similarity", similarity, ("negative_l2", "cosine"))
        self.similarity = similarity

    def forward(self, features: Tensor, targets: Any) -> Tensor:
        """The term of a batch.

        Args:
            features: (n, ...), flattened per sample; half precision is compared in float32.
            targets: (n,), (n, 1) or (n, k); a tensor, an array or a list.

        Returns:
            A single number; 0 for fewer than two samples.

        Raises:
            TypeError, ValueError, RuntimeError: As `ranksim.inputs.features_and_targets`.
        """
        features, targets = self._checked(features, targets)
        if len(features) < 2:
            self.health = {}
            return features.sum() * 0.0
        with torch.autocast(features.device.type, enabled=False):
            if self.similarity == "cosine":
                features = unit_vectors(features)
                similarities = features @ features.T
            else:
                similarities = -row_distances(features, 2.0)
            distances = label_distances(targets, self.label_distance)
            pairs = rank_n_contrast(similarities / self.temperature, distances)
        self.health = {"pair_probability": pairs.detach().neg().exp().mean()}
        return spoiled(self.weight * pairs.mean(), by=[distances])[0]


class ConR(_Contrastive):
    """Pushes apart what is predicted alike though its labels differ, and the harder the more they differ.

    For each sample that has both: positives lie within the window of its label; negatives lie beyond it while their
    prediction is within the window of the sample's. The value is -log of a positive's share among positives and
    weighted negatives, averaged over positives, then over all samples of the batch.

    Pairs, weights and averages are those of the official code for ages. Not settled by what could be read: whether the
    paper averages over positives inside or outside the logarithm (here outside), and how the pushing weight grows with
    label distance (here exp(pushing * distance); the code for depth multiplies). An anchor without positives, NaN in
    the official code, counts 0.

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
        self.window, self.pushing = not_negative("window", window), not_negative("pushing", pushing)
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
            TypeError, ValueError, RuntimeError: As `ranksim.inputs.features_and_targets`, and if a weight is negative.
        """
        features, targets = self._checked(features, targets)
        predictions = sent(constants("predictions", predictions, features), features.device)
        if predictions.shape != targets.shape:
            raise ValueError(
                f"predictions of shape {tuple(predictions.shape)} do not match targets of shape "
                f"{tuple(targets.shape)}; give one for each"
            )
        if weights is not None:
            weights = plain(as_weights(weights, features))
        with torch.autocast(features.device.type, enabled=False):
            features = unit_vectors(features)
            distances, predicted = (label_distances(each, self.label_distance) for each in (targets, predictions))
            values, alike, unlike = self._values(
                features @ features.T / self.temperature, distances, predicted, weights
            )
        rows = max(1, len(features))
        counted = {"anchors": alike.any(1) & unlike.any(1), "positives": alike, "negatives": unlike}
        self.health = {name: pairs.sum() / rows for name, pairs in counted.items()}
        return spoiled(self.weight * values.sum() / rows, by=[features, distances, predicted])[0]

    def _values(
        self, similarities: Tensor, distances: Tensor, predicted: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values of anchors, 0 where one lacks positives or negatives, (n,); and which pairs these are, bool (n, n)."""
        alike = distances <= self.window
        negative = ~alike & (predicted <= self.window)
        positive = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        anchors = positive.any(1) & negative.any(1)

        push = self.pushing * distances.to(similarities.dtype)
        if weights is not None:
            push = push + weights.to(similarities.dtype).log()[:, None]
        terms = torch.where(negative, similarities + push, similarities).masked_fill(~(positive | negative), -math.inf)
        if self.legacy_denominator:
            others = (~positive).sum(1, keepdim=True).to(terms.dtype)
            terms = torch.cat([terms, others.log()], dim=1)
        # rows without a pair of any weight hold -inf alone, whose gradient would be NaN
        denominators = torch.logsumexp(torch.where(anchors[:, None], terms, 0.0), dim=1)
        attraction = torch.where(positive, similarities, 0.0).sum(1) / positive.sum(1).clamp_min(1)
        values = torch.where(anchors, denominators - attraction, 0.0)
        return values if weights is None else values * weights.to(values.dtype), positive, negative
