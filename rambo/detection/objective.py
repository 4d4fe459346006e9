"""What training a detector minimises: any classification loss on region scores, and the detector's own box losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.named_class import class_named
from rambo.detection.heads import Detected, at_least_single, foreground
from rambo.detection.settings import SCORED_BY
from rambo.ranking.exact import one_of, positive

SCORES = ("logits", *SCORED_BY)


class DetectionObjective(nn.Module):
    """Classification loss plus the proposal network's two losses and the box loss of regions.

    The paper replaces the classifier's cross-entropy and nothing else. It does not say which scores are ranked;
    there is no column for background here in any case, whose regions are irrelevant to every class.

    Args:
        classification: "cross_entropy", the baseline; or a loss called as `loss(scores, relevance)`, both (regions,
            classes): a module, or the dotted name of a class, as in a config.
        scores: What is ranked: "logits"; "softmax", probabilities over classes and background, whose gradient is small
            at a random start; or "sigmoid". With logits the output for background gets no gradient of its own.
            Unused by cross-entropy.
        scored_by: How the detector turns logits into the scores of detections, "softmax" or "sigmoid"; configs hand it
            to the model. It must be what is trained: softmax or sigmoid scores by themselves, cross-entropy by
            softmax, logits by either.
        classification_weight: By what the classification loss and its gradient are multiplied. It changes nothing
            else, because the gradient of our losses is worked out before anything scales it. In the official code a
            weight w also acts as if lambda were w times as large; to have that, multiply `interpolation` by w too.
        settings: What the named class is built with.

    Raises:
        TypeError: If `classification` is neither a module nor a name, or the class does not take one of the settings.
        ValueError: If a name is unknown, a number out of range, or `scores` and `scored_by` do not go together.
        ImportError: If there is no class of that name.

    Source: Rolinek et al. 2020, section 5.2 and table 5.
    """

    def __init__(
        self,
        classification: nn.Module | str,
        scores: str = "logits",
        scored_by: str = "softmax",
        classification_weight: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        one_of("scores", scores, SCORES)
        one_of("scored_by", scored_by, SCORED_BY)
        self.classification: nn.Module | None = None
        if isinstance(classification, nn.Module) and not settings:
            self.classification = classification
        elif isinstance(classification, str) and classification != "cross_entropy":
            kind, _ = class_named(classification, settings)
            self.classification = kind(**settings)
        elif classification != "cross_entropy" or settings:
            raise TypeError(
                "classification must be cross_entropy, a torch module, or the name of a class and its settings, got "
                f"{classification!r} with {settings}"
            )
        trained = "softmax" if self.classification is None else scores
        if trained not in ("logits", scored_by):
            raise ValueError(
                f"training on {trained} scores needs detections scored by {trained}, got scored_by={scored_by}; set "
                f"loss.scored_by={trained}"
            )
        self.scores, self.scored_by = scores, scored_by
        self.classification_weight = positive("classification_weight", classification_weight)

    def forward(self, output: Detected, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `"loss"`, a scalar to minimise, and its parts for the log.

        The parts are `classification`, `rpn_objectness`, `rpn_box` and `roi_box`; `cross_entropy`, whatever is trained;
        `positive_regions`, the number of regions with an object; and the `health` of the classification loss.
        """
        losses = dict(output.losses)
        cross_entropy = losses.pop("cross_entropy")
        classification = cross_entropy if self.classification is None else self._ranked(output)
        total = sum(losses.values(), start=self.classification_weight * classification)
        return {
            **(getattr(self.classification, "health", None) or {}),
            **{name: value.detach() for name, value in losses.items()},
            "classification": classification.detach(),
            "cross_entropy": cross_entropy.detach(),
            "positive_regions": (output.labels > 0).sum(),
            "loss": total,
        }

    def _ranked(self, output: Detected) -> Tensor:
        logits, loss = output.class_logits, self.classification
        with torch.autocast(logits.device.type, enabled=False):  # in half precision many scores are equal
            logits = at_least_single(logits)
            classes = torch.arange(1, logits.shape[1], device=logits.device)
            return loss(foreground(logits, self.scores), output.labels[:, None] == classes)  # type: ignore[misc, no-any-return]

    @property
    def settings(self) -> dict[str, Any]:
        """Which loss this is, and the choices it wants to see in the run record."""
        loss = self.classification
        own = {"scored_by": self.scored_by, "classification_weight": self.classification_weight}
        if loss is None:
            return {"loss": "cross_entropy", **own}
        name = f"{type(loss).__module__}.{type(loss).__qualname__}"
        return {"loss": name, "scores": self.scores, **own, **dict(getattr(loss, "settings", None) or {})}
