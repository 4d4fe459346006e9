"""What training minimises: a regression loss, weighted by the rarity of the label, and a regulariser of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.named_class import class_named
from harness.train.optimization import parameter_groups
from rambo.ranking.exact import one_of
from ranksim.bins import of_one_target
from ranksim.datasets.regression import RegressionData
from ranksim.imbalance import Reweighting
from ranksim.inputs import register_scale
from ranksim.model import Regressed


class RegressionObjective(nn.Module):
    """Base loss + regulariser, as named scalars.

    Args:
        loss: Called as `loss(prediction, target, weight)`: a module, or the dotted name of a class, as in a config.
        weighting: The weight of a sample by the rarity of its target; acts on the base loss, and on a regulariser that
            wants it. None: all alike.
        regularizer: Called as `regularizer(features, targets)`, already multiplied by its own weight; one that has
            `wants_predictions` gets them as a third argument, and one that has `wants_weights` the weights of the
            samples as `weights`, as officially ConR does and RankSim does not. None: none.
        regularized: Which features it sees where feature smoothing is on: `"smoothed"`, as in the official code, or
            `"raw"`.
        target_scale: What predictions and targets are divided by for the base loss; the regulariser sees neither. Or
            one number for each of several targets, and the regulariser sees predictions and targets divided by them,
            too: distances between amounts of different units would mean nothing.
        settings: What the named class is built with.

    Raises:
        TypeError: If `loss` is neither a module nor a name, or the class does not take one of the settings.
        ValueError: If a value is outside its range; shown.
        ImportError: If there is no class of that name.

    Source: Gong et al. 2022, arXiv:2205.15236, section 3 (the sum of both terms).
    """

    target_scale: float | Tensor

    def __init__(
        self,
        loss: nn.Module | str,
        weighting: Reweighting | None = None,
        regularizer: nn.Module | None = None,
        regularized: str = "smoothed",
        target_scale: float | Sequence[float] = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        one_of("regularized", regularized, ("raw", "smoothed"))
        if isinstance(loss, str):
            kind, _ = class_named(loss, settings)
            self.loss = kind(**settings)
        elif isinstance(loss, nn.Module) and not settings:
            self.loss = loss
        else:
            raise TypeError(f"loss must be a torch module, or the name of a class and its settings, got {loss!r}")
        if weighting is not None and weighting.kind != "none" and not getattr(self.loss, "takes_weights", True):
            raise ValueError(
                f"{type(self.loss).__name__} corrects the imbalance itself and takes no weights: set weighting=none"
            )
        self.weighting, self.regularizer = weighting, regularizer
        self.encoder_is_frozen = False
        self.regularized = regularized
        register_scale(self, "target_scale", target_scale)
        self._scale_on_host = self.target_scale.clone() if isinstance(self.target_scale, Tensor) else None

    @property
    def settings(self) -> dict[str, str]:
        """For the run record."""
        parts = {"loss": self.loss, "weighting": self.weighting, "regularizer": self.regularizer}
        named = {name: "none" if part is None else str(part) for name, part in parts.items()}
        if getattr(self.regularizer, "views_in_paper", 1) > 1:
            named["regularizer"] += f", on one view of each sample (its paper: {self.regularizer.views_in_paper})"  # type: ignore[union-attr]
        return named

    def prepare(self, data: RegressionData) -> None:
        """Learns the density of the training targets; to be called before the optimizer is built.

        Several targets have none. RankSim then compares them by their distance, if nothing else was asked for: amounts
        in proportion, such as price and rent of a small house and of a large one, are alike by their cosine.

        Raises:
            ValueError: If the loss or the weighting needs a density, and there is none.
        """
        if self.weighting is not None and (self.weighting.kind != "none" or data.density is not None):
            self.weighting.prepare(of_one_target(data.density, "re-weighting", "set weighting=none"))
        prepare = getattr(self.loss, "prepare", None)
        if prepare is not None:
            name = type(self.loss).__name__
            prepare(of_one_target(data.density, name, "choose another loss, such as loss=l1"), self.target_scale)
        if data.density is None and getattr(self.regularizer, "label_similarity", "none to choose") is None:
            self.regularizer.label_similarity = "distance"  # type: ignore[union-attr]

    def second_stage(self) -> None:
        """Says that all but the last layer has been frozen."""
        self.encoder_is_frozen = True

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The loss's own parameters (the noise of Balanced MSE), with the rate that it asks for."""
        groups = parameter_groups(self.loss)
        return groups if self.regularizer is None else groups + parameter_groups(self.regularizer)

    def forward(self, output: Regressed, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `"loss"`, a scalar to minimise, its two terms, and what the regulariser says of its health.

        In a second stage, behind a frozen encoder, the regulariser has no way to any weight and is left out.

        Raises:
            ValueError: If there is a regulariser, but nothing to train before the features.
        """
        target: Tensor = batch["target"]
        weighted = self.weighting is not None and self.weighting.kind != "none"
        weight = self.weighting(target) if weighted else None  # type: ignore[misc]
        base: Tensor = self.loss(output.prediction / self.target_scale, target / self.target_scale, weight)
        features = output.smoothed if self.regularized == "smoothed" else output.features
        if self.regularizer is None or self.encoder_is_frozen:
            return {**_health(self.loss), "loss": base}
        if self.training and torch.is_grad_enabled() and not features.requires_grad:
            raise ValueError(
                "the regulariser acts on features, and nothing before them is trained: set regularizer=none, or train "
                "the encoder (for a frozen sentence transformer, set model.encoder.projection)"
            )
        given: tuple[Tensor, ...] = (
            (output.prediction,) if getattr(self.regularizer, "wants_predictions", False) else ()
        )
        weights = {"weights": weight} if getattr(self.regularizer, "wants_weights", False) else {}
        if isinstance(self.target_scale, Tensor):
            target, given = self._scaled(target), tuple(one / self.target_scale for one in given)
        extra: Tensor = self.regularizer(features, target, *given, **weights)
        named = {"base_loss": base.detach(), "regularizer": extra.detach(), "loss": base + extra}
        return {**_health(self.loss), **_health(self.regularizer), **named}

    def _scaled(self, target: Tensor) -> Tensor:
        """Targets divided by the scale of each, with their copy on the host (see `to_device`), if there is one."""
        scaled = target / self.target_scale
        if (host := getattr(target, "on_host", None)) is not None:
            scaled.on_host = host / self._scale_on_host  # type: ignore[attr-defined]
        return scaled


def _health(part: nn.Module) -> dict[str, Any]:
    return dict(getattr(part, "health", None) or {})
