"""A data set as a regression model sees it, and the metrics of it that a run asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from harness.train.answers import answers
from ranksim.bins import Density
from ranksim.metrics import CORRELATIONS, ERRORS, GROUPS, check_rules, metrics_of_several, regression_metrics


class Predicted(NamedTuple):
    """A data set as the model sees it, on the CPU, in the loader's order.

    Attributes:
        predictions: In the unit of the targets, float32 (samples,); (samples, outputs) for vector targets.
        targets: float32, of the same shape.
        features: What the prediction is read from, float32 (samples, dimensions); (samples, 0) if not asked for.
    """

    predictions: Tensor
    targets: Tensor
    features: Tensor


def predict(model: nn.Module, loader: Iterable[Mapping[str, Any]], features: bool = True) -> Predicted:
    """Predicts all batches of `loader`; see `harness.train.answers`.

    Args:
        model: `model(batch)` has `prediction`, shaped like the targets, and `features` (samples, ...).
        loader: Batches with `target` (samples,) or (samples, outputs).
        features: Whether to keep the features.
    """

    def keep(output: Any, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        kept = output.features.flatten(1).float()[:, slice(None) if features else slice(0)]
        return output.prediction.float(), batch["target"].float(), kept

    columns = zip(*answers(model, loader, keep), strict=True)
    return Predicted(*(torch.cat(column).cpu() for column in columns))


class RegressionMetrics:
    """Predicts a data set once and measures the errors, overall and by shot.

    The training density is that of `loader.dataset.density`; without one there are neither shots nor `balanced_mae`.
    Of several targets, whose names are in `loader.dataset.several`, there is each metric of each of them too.

    Args:
        shot_rule, many, few, gmean_eps: As in `regression_metrics`.

    Raises:
        ValueError: If a rule is unknown or `few` is larger than `many`.
    """

    measures: ClassVar = {
        **{f"{error}*": {"kind": "error", "higher_is_better": False} for error in ERRORS},
        **{f"{correlation}*": {"kind": "share", "higher_is_better": True} for correlation in CORRELATIONS},
    }

    def __init__(self, shot_rule: str = "counts", many: int = 100, few: int = 20, gmean_eps: str = "none") -> None:
        check_rules(shot_rule, many, few, gmean_eps)
        self.shot_rule, self.many, self.few, self.gmean_eps = shot_rule, many, few, gmean_eps

    def names(self) -> list[str]:
        """What a call can give; each shot only where it has samples, and correlations where they are defined."""
        groups = ("", *(f"_{name}" for name in GROUPS))
        of_targets = [f"{measure}_of_*" for measure in (*ERRORS, *CORRELATIONS) if measure != "balanced_mae"]
        return [f"{measure}{group}" for group in groups for measure in (*ERRORS, *CORRELATIONS)] + of_targets

    def __call__(self, model: nn.Module, loader: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The numbers, and the errors, of `regression_metrics`; of several targets, of `metrics_of_several`."""
        data, (names, scale) = predict(model, loader, features=False), several_of(loader)
        if names:
            if self.shot_rule == "official_bins":
                raise ValueError("shot_rule official_bins is of one target, got several; set metrics.shot_rule=counts")
            return metrics_of_several(data.predictions, data.targets, names, scale, self.gmean_eps)
        rules = {"shot_rule": self.shot_rule, "many": self.many, "few": self.few, "gmean_eps": self.gmean_eps}
        return regression_metrics(data.predictions, data.targets, density_of(loader), **rules)  # type: ignore[arg-type]


def several_of(loader: Any) -> tuple[Sequence[str], float | Sequence[float]]:
    """The names of the targets of `loader`, where there are several, else none; and their scale."""
    dataset = getattr(loader, "dataset", None)
    return getattr(dataset, "several", ()), getattr(dataset, "target_scale", 1.0)


def density_of(loader: Any) -> Density | None:
    """The density of the training targets, where the data set of `loader` has it."""
    return getattr(getattr(loader, "dataset", None), "density", None)
