"""The rank-similarity term of RankSim: neighbours in feature space, ordered as in label space.

For each sample i of a batch, the others are ranked by the similarity of their labels to its own (S^y, minus the
distance) and by that of their features (S^z, the cosine): L = sum_i 1/n sum_j ((rk(S^z_i)_j - rk(S^y_i)_j) / n)^2.

The gradient is that of blackbox differentiation (`rambo.ranking.Blackbox`): similarities are ranked once more after a
step of length lambda against the gradient of gamma * L in the ranks. The step depends on the forward pass alone, so it
is made there, and what is multiplied on later (a gradient scaler, accumulation) only scales the result. The weight
gamma is part of the rule: lambda * gamma decides which ranks move, and the result is divided by lambda. A hundred times
the gamma is therefore not a hundred times the gradient; no entry of the gradient in S^z exceeds 1 / lambda.

Source: Gong et al. 2022, "RankSim: Ranking Similarity Regularization for Deep Imbalanced Regression", arXiv:2205.15236.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rambo.ranking import Blackbox, Ties, directions_and_lengths, needs_gradient, plain, rank, ranks, with_gradient
from rambo.ranking.exact import one_of, sent, spoiled
from ranksim.inputs import at_least_float32, features_and_targets, not_negative
from ranksim.losses.similarities import LabelSimilarity, label_similarities

Subsample = Literal["generator", "python", "none"]
RowReduction = Literal["sum", "mean"]


class Compared(NamedTuple):
    """What `rank_similarity` returns; single numbers all.

    Attributes:
        loss: weight * L; differentiable once, if the features are.
        correlation: Mean over samples of Spearman's correlation between the two orders; 1 of fewer than two samples.
        flipped: Share of the ranks that the step of length lambda moves; None without a gradient. Near 0, lambda times
            gamma is too small to teach anything; near 1, the gradient has lost its sense of magnitude.
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
            weigh no more than rare ones. "generator": drawn by torch; "python": by the global `random.choice`, number
            for number as in the official code; "none": all take part. If no label occurs twice, nothing is drawn.
        seed: Seed of a generator for the draws of this module alone, kept in its `state_dict`; None takes torch's
            default generator of the CPU, which the trainer seeds and restores.
        ties: Which of two equally similar samples gets the smaller rank: "last_index_first" (the stable sort of the
            official code for text; its plain sort for images leaves this to the device) or "first_index_first".
        row_reduction: "sum" over samples as in the official code, so that the term grows with the batch; or "mean".
        normalize_ranks: Whether ranks are divided by the number of samples, in the term and in what lambda refers to.
        label_similarity: How targets of several numbers are compared: "distance", minus the Euclidean one; or, as the
            paper's author advises, "cosine", for which (1, 1) and (2, 2) are the same. None is the cosine for them,
            and the distance for single numbers, of which there is no other.
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
        one_of("ties", ties, ("last_index_first", "first_index_first"))
        one_of("row_reduction", row_reduction, ("sum", "mean"))
        one_of("subsample", subsample, ("generator", "python", "none"))
        if label_similarity is not None:
            one_of("label_similarity", label_similarity, ("distance", "cosine"))
        if seed is not None and subsample != "generator":
            raise ValueError(f"a seed needs subsample='generator', got seed {seed} and subsample {subsample!r}")
        self.rule = Blackbox(interpolation, "normalized" if normalize_ranks else "integer")
        self.weight, self.ties, self.row_reduction = not_negative("weight (gamma)", weight), ties, row_reduction
        self.subsample, self.seed, self.legacy_backward = subsample, seed, legacy_backward
        self.label_similarity = label_similarity
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.health: dict[str, float | Tensor] = {}

    def forward(self, features: Tensor, targets: Any) -> Tensor:
        """Returns weight * L, a single number: float32, or float64 for float64 features.

        Args:
            features: (samples, ...); dimensions after the first are flattened. Half precision is ranked in float32.
            targets: (samples,) or (samples, 1), compared by distance; or (samples, k), by `label_similarity`. A tensor,
                an array or a list, of any type. Equal ones are looked for on the CPU: a tensor on a device has to be
                waited for, unless its attribute `on_host` holds the same numbers, as one that the trainer moved has.

        Raises:
            TypeError, ValueError, RuntimeError: As `ranksim.inputs.features_and_targets`, and if single numbers are to
                be compared by cosine.
        """
        self.health = {}
        targets = getattr(targets, "on_host", targets)
        features, targets = features_and_targets(features, targets, finite=self.weight > 0)
        nothing = features[:0].sum(dtype=at_least_float32(features.dtype))  # a zero that can be differentiated
        if self.weight == 0:
            return nothing
        chosen, distinct = one_of_each_label(targets, None if self.subsample == "none" else self._drawn)
        self.health["distinct_labels"] = float(distinct)
        if distinct < 2:  # nothing to order
            return nothing
        if chosen is not None:
            features = features.index_select(0, sent(chosen, features.device))
            targets = targets.index_select(0, sent(chosen, targets.device))
        compared = self.compare(features, targets)
        self.health["rank_correlation"] = compared.correlation
        if compared.flipped is not None:
            self.health["flipped"] = compared.flipped
        return compared.loss

    def compare(self, features: Tensor, targets: Tensor) -> Compared:
        """The term of all the samples given, which have been checked.

        A sample whose features have no direction (the zero vector) gets no gradient, where the official code multiplies
        it by 1e12.
        """
        with torch.autocast(features.device.type, enabled=False):  # half precision would tie most similarities
            samples, features = len(features), features.flatten(1)
            label_likeness = label_similarities(sent(targets, features.device), self.label_similarity)
            # weight * L = factor * the sum of squared differences of ranks, so its slope in a rank is 2 * factor * d
            terms = samples ** (3 if self.rule.scale == "normalized" else 1)
            factor = self.weight / max(1, terms * (samples if self.row_reduction == "mean" else 1))
            values = features.to(at_least_float32(features.dtype))
            if self.legacy_backward:
                directions, _ = directions_and_lengths(values)
                by_label = ranks(label_likeness, self.ties, check_nan=False, dtype=values.dtype)
                similarities = directions @ directions.T
                difference = rank(similarities, self.rule, self.ties, check_nan=False) - by_label
                squares = difference.square().sum()
                (loss,) = spoiled(squares * factor, by=[similarities, label_likeness])
                return Compared(loss, _correlation(squares.detach(), samples), None)
            wanted = needs_gradient(features)
            with torch.no_grad():
                directions, lengths = directions_and_lengths(plain(values))
                similarities = directions @ directions.T
                both = torch.stack([similarities, label_likeness])
                by_feature, by_label = ranks(both, self.ties, check_nan=False, dtype=values.dtype)
                difference = by_feature - by_label
                squares = difference.square().sum()
                (loss,), correlation = spoiled(squares * factor, by=[both]), _correlation(squares, samples)
                if not wanted:
                    return Compared(loss, correlation, None)
                strength = self.rule.strength(samples)
                stepped = difference.mul_(2 * factor * strength).add_(similarities)
                moved = ranks(stepped, self.ties, check_nan=False, dtype=values.dtype) - by_feature
                flipped = moved.count_nonzero() / max(1, moved.numel())
                gradient = _pull_back(moved, similarities, directions, lengths * strength)
            return Compared(with_gradient(loss, features, gradient), correlation, flipped)

    def _drawn(self, samples: Sequence[Sequence[int]]) -> list[int]:
        """One sample of each label, in Python's case number for number as the official code draws them."""
        if self.subsample == "python":
            return [random.choice(of_label) for of_label in samples]
        # in double precision a number below 1 times a count stays below the count
        numbers = torch.rand(len(samples), dtype=torch.float64, generator=self._generator).tolist()
        return [of_label[int(number * len(of_label))] for number, of_label in zip(numbers, samples, strict=True)]

    def get_extra_state(self) -> Tensor | None:
        """The state of the generator, if there is one of its own."""
        return None if self._generator is None else self._generator.get_state()

    def set_extra_state(self, state: Any) -> None:
        """Goes on with the draws where a saved module stopped, if both have a generator of their own."""
        if self._generator is not None and state is not None:
            self._generator.set_state(state.cpu())

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return (
            f"rule={self.rule}, weight={self.weight}, subsample={self.subsample!r}, seed={self.seed}, "
            f"ties={self.ties!r}, row_reduction={self.row_reduction!r}, legacy_backward={self.legacy_backward}, "
            f"label_similarity={self.label_similarity!r}"
        )


def one_of_each_label(
    targets: Tensor, draw: Callable[[Sequence[Sequence[int]]], list[int]] | None
) -> tuple[Tensor | None, int]:
    """Draws one sample of each distinct label.

    Labels are those of `targets`, (samples,) or (samples, k), and the same only if exactly equal. `draw` is given the
    samples of each label, labels and samples in ascending order, and returns one of each; None draws nothing.

    Returns:
        int64 positions (labels,) in ascending order of the labels, on the CPU, or None if nothing is drawn, as where
        no label occurs twice; and the number of distinct labels.
    """
    labels: list[Any] = targets.tolist() if targets.dim() == 1 else [tuple(row) for row in targets.tolist()]
    samples: dict[Any, list[int]] = {}
    for position, label in enumerate(labels):
        samples.setdefault(label, []).append(position)
    if draw is None or len(samples) == len(targets):
        return None, len(samples)
    return torch.tensor(draw([samples[label] for label in sorted(samples)])), len(samples)


def rank_similarity(
    features: Tensor, targets: Any, interpolation: float = 2.0, weight: float = 1.0, **settings: Any
) -> Compared:
    """The term on all the samples given, as a pure function. Arguments and errors as for `RankSimilarity`."""
    term = RankSimilarity(interpolation, weight, "none", **settings)
    return term.compare(*features_and_targets(features, targets))


def _pull_back(moved: Tensor, similarities: Tensor, directions: Tensor, scale: Tensor) -> Tensor:
    """From the movement of ranks (samples, samples) to a gradient in the features (samples, dimensions).

    In the similarities the gradient is G = moved / lambda. Each is the product of two directions, so in these it is
    (G + G^T) directions. The division by the length takes from this what lies along the own direction, which is known
    from the similarities: it comes off the diagonal of the matrix. `scale` is lambda times the lengths, (samples, 1).
    """
    both = moved.T.contiguous().add_(moved)  # adding the transposed itself takes twice as long
    both.diagonal().sub_((both * similarities).sum(dim=1))
    return both.div_(scale) @ directions


def _correlation(squares: Tensor, samples: int) -> Tensor:
    """Mean over rows of Spearman's 1 - 6 sum d^2 / (n (n^2 - 1)), from the sum over all rows."""
    return 1 - squares * (6 / max(1, samples * samples * (samples**2 - 1)))
