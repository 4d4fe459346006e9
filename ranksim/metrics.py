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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ranksim.bins import SHOTS, Density
from ranksim.inputs import as_numbers, as_targets
from ranksim.shots import check_shot_rule, shot_groups

ERRORS, CORRELATIONS = ("mae", "mse", "gmean", "balanced_mae"), ("pearson", "spearman")
GROUPS = (*SHOTS, "zero_interpolation", "zero_extrapolation")
GMEAN_RULES = ("none", "zeros", "every", "every_overall")
GMEAN_EPS = 1e-10


@dataclass(frozen=True)
class Predicted:
    """A data set as the model sees it, on the CPU, in the loader's order.

    Attributes:
        predictions: In the unit of the targets, float32 (samples,); (samples, outputs) for vector targets.
        targets: float32, of the same shape.
        features: What the prediction is read from, float32 (samples, dimensions); (samples, 0) if not asked for.
        indices: Position in the data set, int64 (samples,).
    """

    predictions: Tensor
    targets: Tensor
    features: Tensor
    indices: Tensor


def predict(model: nn.Module, loader: Iterable[Mapping[str, Any]], features: bool = True) -> Predicted:
    """Predicts all batches of `loader` without gradients, in evaluation mode; leaves the model in the mode it was in.

    Args:
        model: `model(batch)` has `prediction`, shaped like the targets, and `features` (samples, ...).
        loader: Batches with `target` (samples,) or (samples, outputs), and `index` (samples,).
        features: Whether to keep the features.

    Raises:
        ValueError: If the loader gives no batch.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    columns: list[list[Tensor]] = [[], [], [], []]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in loader:
                there = {name: part.to(device) if isinstance(part, Tensor) else part for name, part in batch.items()}
                output = model(there)
                kept = output.features.flatten(1).float()[:, slice(None) if features else slice(0)]
                row = (output.prediction.float(), there["target"].float(), kept, there["index"].long())
                for parts, part in zip(columns, row, strict=True):
                    parts.append(part)
    finally:
        model.train(was_training)
    if not columns[0]:
        raise ValueError("the evaluation loader gave no batch: its data set is empty")
    predictions, targets, kept, indices = (torch.cat(column).cpu() for column in columns)
    return Predicted(predictions, targets, kept, indices)


class RegressionMetrics:
    """Predicts a data set once and measures the errors, overall and by shot.

    The training density is that of `loader.dataset.density`; without one there are neither shots nor `balanced_mae`.

    Args:
        shot_rule: As in `ranksim.shots.shots_of`.
        many: As in `ranksim.shots.shots_of`.
        few: As in `ranksim.shots.shots_of`.
        gmean_eps: As in `regression_metrics`.
        quantity: What is predicted, as the pictures name it.
        unit: The unit of the targets, as the pictures name it.

    Raises:
        ValueError: If a rule is unknown or `few` is larger than `many`.
    """

    measures: ClassVar = {
        **{f"{error}*": {"kind": "error", "higher_is_better": False} for error in ERRORS},
        **{f"{correlation}*": {"kind": "share", "higher_is_better": True} for correlation in CORRELATIONS},
    }

    def __init__(
        self,
        shot_rule: str = "counts",
        many: int = 100,
        few: int = 20,
        gmean_eps: str = "none",
        quantity: str = "target",
        unit: str = "",
    ) -> None:
        _check_rules(shot_rule, many, few, gmean_eps)
        self.shot_rule, self.many, self.few, self.gmean_eps = shot_rule, many, few, gmean_eps
        self.quantity, self.unit = quantity, unit

    def names(self) -> list[str]:
        """What a call can give; each shot only where it has samples, and correlations where they are defined."""
        groups = ("", *(f"_{name}" for name in GROUPS))
        return [f"{measure}{group}" for group in groups for measure in (*ERRORS, *CORRELATIONS)]

    def __call__(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The numbers of `regression_metrics`.

        Raises:
            ValueError: As `regression_metrics`, or if the loader gives no batch.
        """
        data = predict(model, loader, features=False)
        return regression_metrics(
            data.predictions,
            data.targets,
            _density(loader),
            shot_rule=self.shot_rule,
            many=self.many,
            few=self.few,
            gmean_eps=self.gmean_eps,
        )

    def pictures(self, model: nn.Module, loader: Any, folder: Path, split: str) -> dict[str, Path]:
        """Errors by target, predictions against truth, and similarity of features, as images in `folder`, by name.

        Of vector targets there is only the second, for each output.
        """
        from ranksim.figures import similarity as similarity_figure
        from ranksim.figures import targets as figures  # here, so that measuring does not need matplotlib

        data, density = predict(model, loader), _density(loader)
        named = {"quantity": self.quantity, "unit": self.unit}
        path = folder / f"predicted_against_true_{split}.png"
        paths = {"predicted_against_true": path}
        if data.targets.ndim == 2 and data.targets.shape[1] > 1:
            by_output = zip(data.predictions.T, data.targets.T, strict=True)
            figures.predicted_against_true(path, {f"output {k}": pair for k, pair in enumerate(by_output)}, **named)
            return paths
        results = {split: (data.predictions, data.targets)}
        figures.predicted_against_true(path, results, **named)
        if len(torch.unique(data.targets)) > 1:
            paths["similarity"] = folder / f"similarity_{split}.png"
            similarity_figure.similarity_matrices(paths["similarity"], {split: data.features}, data.targets, **named)
        if density is not None:
            paths["error_by_target"] = folder / f"error_by_target_{split}.png"
            figures.error_by_target(
                paths["error_by_target"],
                results,
                density,
                shot_rule=self.shot_rule,
                many=self.many,
                few=self.few,
                **named,
            )
        return paths


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
        predictions: In the unit of the targets, of the same shape; a column may stand where targets are (samples,). A
            tensor, an array or a list, as the targets.
        targets: (samples,), or (samples, outputs) for vectors: their errors are pooled, and their correlations the mean
            over the outputs.
        density: Of the training targets; if None there are neither shots nor `balanced_mae`.
        shot_rule: As in `ranksim.shots.shots_of`.
        many: As in `ranksim.shots.shots_of`.
        few: As in `ranksim.shots.shots_of`.
        gmean_eps: What keeps an exact hit from making the geometric mean 0, all by 1e-10. `none`: nothing (the official
            code for AgeDB). `zeros`: added to the errors that are zero (the official code for STS-B). `every`: added to
            every error. `every_overall`: added to every error, but not within the shots (the official RankSim code for
            IMDB-WIKI).

    Returns:
        The metrics by name, those of a shot with its name behind: `mae`, `mae_many`, `mae_zero_interpolation`.

    Raises:
        TypeError: If predictions or targets are no numbers.
        ValueError: If shapes disagree, there is no sample, a value is not finite, a rule is unknown, vector targets
            come with a density, or targets in half precision are too large to be told apart.
    """
    _check_rules(shot_rule, many, few, gmean_eps)
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
    bins = density.bins(truth.float())
    numbers = _measures(guess, truth, bins, gmean_eps)
    within = "none" if gmean_eps == "every_overall" else gmean_eps
    groups = shot_groups(truth.float(), density, shot_rule, many, few)
    for name, chosen in groups.items():
        if bool(chosen.any()):
            shot = _measures(guess[chosen], truth[chosen], bins[chosen], within)
            numbers |= {f"{metric}_{name}": value for metric, value in shot.items()}
    return numbers


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


def _density(loader: Any) -> Density | None:
    density: Density | None = getattr(getattr(loader, "dataset", None), "density", None)
    return density


def column(name: str, values: Any) -> Tensor:
    """Values of (samples,) or (samples, 1) as float64 (samples,) on the CPU; refuses others, and what is not finite."""
    numbers = _checked(name, values)
    if numbers.ndim != 1:
        raise ValueError(f"{name} must be one number a sample, (samples,) or (samples, 1), got {tuple(numbers.shape)}")
    return numbers


def _checked(name: str, values: Any) -> Tensor:
    """Finite float64 (samples,) or (samples, outputs > 1) on the CPU."""
    given = as_numbers(name, values)
    if given.ndim not in (1, 2) or not given.numel():
        raise ValueError(f"{name} must be (samples,) or (samples, outputs), and not empty; got {tuple(given.shape)}")
    rows = given.detach().cpu().double()
    rows = rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
    strange = int((~torch.isfinite(rows)).sum())
    if strange:
        way_out = {"predictions": "the model has diverged; lower the learning rate or take an earlier checkpoint"}
        raise ValueError(
            f"{strange} of {rows.numel()} {name} are nan or infinite, so no error can be measured: "
            + way_out.get(name, "correct these samples or leave them out")
        )
    return rows


def _check_rules(shot_rule: str, many: int, few: int, gmean_eps: str) -> None:
    check_shot_rule(shot_rule, many, few)
    if gmean_eps not in GMEAN_RULES:
        raise ValueError(f"gmean_eps must be one of {', '.join(GMEAN_RULES)}, got {gmean_eps!r}")
