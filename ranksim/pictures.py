"""The pictures that a regression run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ranksim.evaluation import density_of, predict, several_of
from ranksim.figures.similarity import similarity_matrices
from ranksim.figures.targets import error_by_target, predicted_against_true


class RegressionPictures:
    """Errors by target, predictions against truth, and similarity of features.

    Of several targets there is only the second, for each of them, divided by its scale.

    Args:
        shot_rule, many, few: As in `ranksim.metrics.regression_metrics`.
        quantity: What is predicted, as the axes name it.
        unit: The unit of the targets.
    """

    def __init__(
        self, shot_rule: str = "counts", many: int = 100, few: int = 20, quantity: str = "target", unit: str = ""
    ) -> None:
        self.shot_rule, self.many, self.few = shot_rule, many, few
        self.quantity, self.unit = quantity, unit

    def __call__(self, model: nn.Module, loader: Any, folder: Path, split: str) -> dict[str, Path]:
        """Draws into `folder`; returns the files by name."""
        data, density = predict(model, loader), density_of(loader)
        axes = {"quantity": self.quantity, "unit": self.unit}
        path = folder / f"predicted_against_true_{split}.png"
        paths = {"predicted_against_true": path}
        if data.targets.ndim == 2 and data.targets.shape[1] > 1:
            names, scale = several_of(loader)
            scales = torch.as_tensor(scale).expand(data.targets.shape[1])
            columns = zip((data.predictions / scales).T, (data.targets / scales).T, strict=True)
            called = names or [f"output {k}" for k in range(len(scales))]
            told = [
                name if one == 1 else f"{name} / {one:g}" for name, one in zip(called, scales.tolist(), strict=True)
            ]
            predicted_against_true(path, dict(zip(told, columns, strict=True)), **axes)
            return paths
        results = {split: (data.predictions, data.targets)}
        predicted_against_true(path, results, **axes)
        if len(torch.unique(data.targets)) > 1:
            paths["similarity"] = folder / f"similarity_{split}.png"
            similarity_matrices(paths["similarity"], {split: data.features}, data.targets, **axes)
        if density is not None:
            path = paths["error_by_target"] = folder / f"error_by_target_{split}.png"
            error_by_target(path, results, density, shot_rule=self.shot_rule, many=self.many, few=self.few, **axes)
        return paths
