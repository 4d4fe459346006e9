"""How well a regression model predicts: errors and correlations, overall and where training samples were many or few.

With e the errors, over all samples, and again over the samples of each shot:

* `mae`, `mse`: the means of |e| and of e^2.
* `gmean`: the geometric mean of |e|, which tells how fairly the errors are spread (Yang et al. 2021, section 4).
* `balanced_mae`: the mean over labels of the MAE of each label, so that no label counts more for being common
  (Ren et al. 2022, arXiv:2203.16427). Labels are the bins of the training density.
* `pearson`, `spearman`: correlations of prediction and target, between -1 and 1.

Shots are `many`, `medium` and `few`. Samples whose target has no training sample at all are `few`, and are reported by
themselves as well: `zero_interpolation` within the range of the training targets, `zero_extrapolation` outside of it.
What is not defined has no key: a shot without samples, a correlation of fewer than two samples or of equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rambo.ranking.exact import one_of
from ranksim.bins import SHOTS, Density, check_shot_rule
from ranksim.inputs import as_numbers, as_targets, check_finite, column_as_row, one_each

ERRORS, CORRELATIONS = ("mae", "mse", "gmean", "balanced_mae"), ("pearson", "spearman")
GROUPS = (*SHOTS, "zero_interpolation", "zero_extrapolation")
GMEAN_EPS = 1e-10


def regression_metrics(
    predictions: Any,
    targets: Any,
    density: Density | None = None,
    *,
    shot_rule: str = "counts",
    many: int = 100,
    few: int = 20,
    gmean_eps: str = "none",
) -> dict[str, float]:
    """Measures predictions against targets, in float64.

    Args:
        predictions: In the unit of the targets, of the same shape; a column may stand where targets are (samples,).
        targets: (samples,), or (samples, outputs) for vectors: their errors are pooled, and their correlations the mean
            over the outputs. Tensors, arrays or lists.
        density: Of the training targets; if None there are neither shots nor `balanced_mae`.
        shot_rule: What makes a bin many, medium or few. "counts": the training samples in it. "official_bins": the
            lists that a data set brings; bins in none of them are few.
        many: As in `Density.shots`.
        few: As in `Density.shots`.
        gmean_eps: What keeps an exact hit from making the geometric mean 0. `none`: nothing (the official code for
            AgeDB). `zeros`: 1e-10 added to the errors that are zero (STS-B). `every`: to every error. `every_overall`:
            to every error, but not within the shots (the official RankSim code for IMDB-WIKI).

    Returns:
        The metrics by name, those of a shot with its name behind: `mae`, `mae_many`, `mae_zero_interpolation`.

    Raises:
        TypeError: If predictions or targets are no numbers.
        ValueError: If shapes disagree, there is no sample, a value is not finite, a rule is unknown, vector targets
            come with a density, or targets in half precision are too large to be told apart.
    """
    check_rules(shot_rule, many, few, gmean_eps)
    truth, guess = _checked("targets", as_targets(targets)), _checked("predictions", predictions)
    if truth.shape != guess.shape:
        raise ValueError(
            f"each target needs its prediction, got targets {tuple(truth.shape)} and predictions {tuple(guess.shape)}"
        )
    if density is None:
        if shot_rule == "official_bins":
            raise ValueError("shot_rule official_bins needs a density, which holds the bins; got none")
        return _measures(guess, truth, None, gmean_eps)
    if truth.ndim == 2:
        raise ValueError(f"shots are of one number a sample, but targets are {tuple(targets.shape)}: give no density")
    bins = density.bins(truth)
    numbers = _measures(guess, truth, bins, gmean_eps)
    within = "none" if gmean_eps == "every_overall" else gmean_eps
    for name, chosen in shot_groups(truth.float(), density, shot_rule, many, few).items():
        if bool(chosen.any()):
            shot = _measures(guess[chosen], truth[chosen], bins[chosen], within)
            numbers |= {f"{metric}_{name}": value for metric, value in shot.items()}
    return numbers


def metrics_of_several(
    predictions: Tensor,
    targets: Tensor,
    names: Sequence[str],
    scale: float | Sequence[float] = 1.0,
    gmean_eps: str = "none",
) -> dict[str, float]:
    """Measures predictions of several targets: over all of them, and each alone.

    Args:
        predictions: (samples, targets), as the targets, each column in its own unit.
        targets: Of these.
        names: What the targets are called.
        scale: What each column, or all, is divided by before errors of different units are put together.
        gmean_eps: As in `regression_metrics`.

    Returns:
        `mae` and the others as of vectors, of columns divided by their scale; and in the unit of its own target that
        of each, such as `mae_of_price`; a slash in a name, which divides splits from metrics, becomes a stroke below.

    Raises:
        TypeError, ValueError: As `regression_metrics`.
    """
    scales = torch.as_tensor(scale, dtype=torch.float64)
    guess, truth = (values.cpu().double() / scales for values in (predictions, targets))
    numbers = regression_metrics(guess, truth, gmean_eps=gmean_eps)
    for place, name in enumerate(names):
        own = regression_metrics(predictions[:, place], targets[:, place], gmean_eps=gmean_eps)
        numbers |= {f"{metric}_of_{name_in_metrics(name)}": value for metric, value in own.items()}
    return numbers


def name_in_metrics(target: str) -> str:
    """What metrics call a target: a slash stands between split and metric there."""
    return target.replace("/", "_")


def _measures(predictions: Tensor, targets: Tensor, bins: Tensor | None, gmean_eps: str) -> dict[str, float]:
    """All metrics of one group of samples, which is not empty; without `bins` there is no balanced MAE."""
    errors = (predictions - targets).abs()
    offset = {"none": errors * 0, "zeros": (errors == 0).double() * GMEAN_EPS}.get(gmean_eps, GMEAN_EPS)
    numbers = {
        "mae": errors.mean(),
        "mse": errors.square().mean(),
        "gmean": (errors + offset).log().mean().exp(),  # log 0 = -inf, whose exponential is the 0 that is meant
        "pearson": _mean_correlation(predictions, targets, lambda values: values),
        "spearman": _mean_correlation(predictions, targets, average_ranks),
    }
    if bins is not None:
        _, label, size = torch.unique(bins, return_inverse=True, return_counts=True)
        sums = errors.new_zeros(len(size)).index_add_(0, label, errors)
        numbers["balanced_mae"] = (sums / size).mean()
    return {name: float(value) for name, value in numbers.items() if value is not None}


def _mean_correlation(a: Tensor, b: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Of (samples,), or the mean over the columns of (samples, outputs); None where one is not defined."""
    columns = zip(a.reshape(len(a), -1).T, b.reshape(len(b), -1).T, strict=True)
    found = [correlation(of(x), of(y)) for x, y in columns]
    defined = [value for value in found if value is not None]
    return torch.stack(defined).mean() if len(defined) == len(found) else None


def correlation(a: Tensor, b: Tensor) -> Tensor | None:
    """Pearson's correlation of two (samples,), or None where it is not defined: values all equal, or fewer than 2."""
    if len(a) < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return None
    a, b = a - a.mean(), b - b.mean()
    a, b = a / a.abs().max(), b / b.abs().max()  # else squares of tiny or huge values leave the range of floats
    found: Tensor = (a @ b) / (a.square().sum().sqrt() * b.square().sum().sqrt())
    return found.clamp(-1, 1)


def average_ranks(values: Tensor) -> Tensor:
    """Positions in ascending order from 1, equal values sharing the mean of theirs, float64 (samples,)."""
    _, place, size = torch.unique(values, return_inverse=True, return_counts=True)
    middle: Tensor = size.cumsum(0).double() - (size - 1) / 2
    return middle[place]


def column(name: str, values: Any) -> Tensor:
    """Values of (samples,) or (samples, 1) as float64 (samples,) on the CPU; refuses others, and what is not finite."""
    return one_each(name, _checked(name, values))


def _checked(name: str, values: Any) -> Tensor:
    """Finite float64 (samples,) or (samples, outputs > 1) on the CPU."""
    given = as_numbers(name, values)
    if given.ndim not in (1, 2) or not given.numel():
        raise ValueError(f"{name} must be (samples,) or (samples, outputs), and not empty; got {tuple(given.shape)}")
    rows = column_as_row(given.detach().cpu().double())
    if name == "predictions":
        check_finite(name, rows, "the model has diverged: lower the learning rate or take an earlier checkpoint")
    check_finite(name, rows)
    return rows


def shot_groups(targets: Tensor, density: Density, rule: str, many: int, few: int) -> dict[str, Tensor]:
    """Which targets belong to each shot and to each kind of zero-shot, bool (samples,) by name."""
    place = density.bins(targets)
    shots, unseen = density.shots(rule, many, few)[place], density.counts[place] == 0
    inside = (targets >= density.lowest) & (targets <= density.highest)
    groups = {name: shots == number for number, name in enumerate(SHOTS)}
    return {**groups, "zero_interpolation": unseen & inside, "zero_extrapolation": unseen & ~inside}


def check_rules(shot_rule: str, many: int, few: int, gmean_eps: str) -> None:
    """Refuses rules that `regression_metrics` does not know."""
    check_shot_rule(shot_rule, many, few)
    one_of("gmean_eps", gmean_eps, ("none", "zeros", "every", "every_overall"))
