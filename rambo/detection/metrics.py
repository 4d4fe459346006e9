"""How well a detector finds objects: average precision by the rules of Pascal VOC and COCO, each under its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from harness.train.answers import answers
from rambo.detection.average_precision import Boxes, Outcomes, average_precisions, coco_outcomes, voc_outcomes

__all__ = ["DetectionMetrics", "Interval", "bootstrap", "collect", "detection_metrics"]

VOC_RULES = ("11_point", "all_point")
THRESHOLDS = tuple((50 + 5 * step) / 100 for step in range(10))
_DRAW_ENTRIES = 2**22  # draws x detections held at once


class Interval(NamedTuple):
    """A number, the percentile interval around it, and the values of all draws, float64 (draws,)."""

    value: float
    low: float
    high: float
    draws: Tensor


def collect(model: nn.Module, loader: Any) -> list[dict[str, Tensor]]:
    """Detections of every image of the loader's data set, in its order, on the CPU; see `harness.train.answers`.

    Args:
        model: `model(batch)` gives for each image `boxes` (detections, 4) in pixels of the original image, `scores` and
            `labels` (detections,).
        loader: Batches with `index` int64 (images,), the images' places in `loader.dataset`.

    Raises:
        ValueError: If the loader leaves out an image, or the model answers for more or fewer images than it was given.
    """

    def keep(found: Sequence[Boxes], batch: Mapping[str, Any]) -> dict[int, dict[str, Tensor]]:
        indices = batch["index"].tolist()
        if len(found) != len(indices):
            raise ValueError(f"the model gave detections of {len(found)} images for {len(indices)}")
        on_cpu = [{key: boxes[key].cpu() for key in ("boxes", "scores", "labels")} for boxes in found]
        return dict(zip(indices, on_cpu, strict=True))

    by_place = {index: boxes for part in answers(model, loader, keep) for index, boxes in part.items()}
    images = len(loader.dataset)
    if sorted(by_place) != list(range(images)):
        raise ValueError(
            f"the evaluation loader gave {len(by_place)} of the {images} images of its data set, so the objects of the "
            "others would count as missed: let it go through the whole set"
        )
    return [by_place[index] for index in range(images)]


def detection_metrics(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], classes: Sequence[str], rule: str = "11_point"
) -> dict[str, float]:
    """The numbers of a detector, by name.

    Each lies between 0 and 1 and is the mean over classes of the average precision, where boxes must overlap by one
    half (`ap50`), by three quarters (`ap75`), or the mean over the ten thresholds 0.5, 0.55, ... 0.95 (`ap`):

    * `ap50_11_point`, `ap75_11_point`, `ap_11_point`: the rule of VOC2007.
    * `ap50_all_point`, `ap75_all_point`, `ap_all_point`: the rule of VOC2010 and later.
    * `coco_ap50`, `coco_ap75`, `coco_ap`: the rule of COCO.
    * `ap50_11_point_<class>` or `ap50_all_point_<class>`: one class, by the rule of the two that was chosen.

    `rambo.detection.average_precision` tells the rules; they disagree by several points on the same detections. A class
    of which no object counts has no key and is left out of the means. Rolinek et al. 2020 report AP50 on VOC2007 test,
    without saying by which rule; their framework, mmdetection, scores VOC2007 by the 11-point rule.

    Args:
        detections: For each image `boxes` (detections, 4), `scores` and `labels` (detections,).
        ground_truth: For each image `boxes` (objects, 4), `labels` and bool `difficult` (objects,).
        classes: The name of label 1, of label 2, and so on.
        rule: Of the numbers of single classes, "11_point" or "all_point".

    Raises:
        ValueError: As `voc_outcomes`, or if the rule is unknown, a label has no name, or no object counts.
    """
    found = _counted(detections, ground_truth, rule, THRESHOLDS)
    highest = found.objects.shape[1] - 1
    if highest > len(classes):
        raise ValueError(f"there is label {highest} but names of only {len(classes)} classes: {', '.join(classes)}")
    by_rule = {name: average_precisions(found, name) for name in VOC_RULES}
    numbers: dict[str, float] = {}
    for name, precisions in by_rule.items():
        numbers |= _named("", f"_{name}", precisions)
    numbers |= _named("coco_", "", average_precisions(coco_outcomes(detections, ground_truth, THRESHOLDS), "101_point"))
    for name, precision in zip(classes, by_rule[rule][0].tolist(), strict=False):  # up to the highest label there is
        if precision == precision:
            numbers[f"ap50_{rule}_{name}"] = precision
    return numbers


def bootstrap(
    detections: Sequence[Boxes],
    ground_truth: Sequence[Boxes],
    rule: str = "11_point",
    threshold: float = 0.5,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """How far the mean average precision would move with other images, told by drawing images with replacement.

    As many images are drawn as there are, and the mean is taken anew, without classes of which a draw has no object.
    Draws depend on the seed and the number of images alone, so the draws of two detectors of the same images can be
    subtracted one by one, for the interval of their difference. Of another training this says nothing.

    Args:
        detections: As in `detection_metrics`.
        ground_truth: As in `detection_metrics`.
        rule: "11_point" or "all_point".
        threshold: Of the overlap.
        draws: How many.
        seed: Of the draws.
        level: The share of draws that the interval holds, its ends cutting off equal shares.

    Raises:
        ValueError: As `voc_outcomes`, or if the rule is unknown, no object counts, or a number is out of range.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"bootstrap needs at least one draw and a level in 0 < p < 1, got {draws} and {level}")
    found = _counted(detections, ground_truth, rule, [threshold])
    value, images = float(average_precisions(found, rule).nanmean()), len(detections)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(images, (draws, images), generator=generator)
    often = torch.zeros(draws, images, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    rows = max(1, _DRAW_ENTRIES // max(1, len(found.order)))
    parts = [average_precisions(found, rule, weights).nanmean(1) for weights in torch.split(often, rows)]
    values = torch.cat(parts)
    low, high = values[~values.isnan()].quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()).tolist()
    return Interval(value, low, high, values)


class DetectionMetrics:
    """Detects once on every image of a data set, and measures.

    `loader.dataset` has `ground_truth`, a list of `boxes` in pixels of the original images, `labels` and `difficult`,
    in its order, and `classes`, the names of labels 1, 2, ...

    Args:
        rule: Of the numbers of single classes, "11_point" (VOC2007) or "all_point".
        draws: Of images, for the 95 % interval of AP50 by `bootstrap`: `ap50_<rule>_low` and `_high`. 0: none.

    Raises:
        ValueError: If the rule is unknown or `draws` is negative.
    """

    measures: ClassVar = {"*": {"kind": "share", "higher_is_better": True}}

    def __init__(self, rule: str = "11_point", draws: int = 0) -> None:
        _check_rule(rule)
        if draws < 0:
            raise ValueError(f"draws must be >= 0, got {draws}; 1000 give an interval")
        self.rule, self.draws = rule, draws

    def names(self) -> list[str]:
        """What a call gives; * stands for the name of a class."""
        endings = ("_11_point", "_all_point")
        by_rule = [f"{name}{rule}" for rule in endings for name in ("ap50", "ap75", "ap")]
        ends = [f"ap50{rule}_{end}" for rule in endings for end in ("low", "high")] if self.draws else []
        return [*by_rule, *ends, "coco_ap50", "coco_ap75", "coco_ap", f"ap50_{self.rule}_*"]

    def __call__(self, model: nn.Module, loader: Any) -> dict[str, float]:
        """The numbers of `detection_metrics`, and the ends of the intervals if there are draws.

        Raises:
            ValueError: As `collect` and `detection_metrics`.
        """
        data = loader.dataset
        detections = collect(model, loader)
        numbers = detection_metrics(detections, data.ground_truth, data.classes, self.rule)
        for rule in VOC_RULES if self.draws else ():
            interval = bootstrap(detections, data.ground_truth, rule, draws=self.draws)
            numbers |= {f"ap50_{rule}_low": interval.low, f"ap50_{rule}_high": interval.high}
        return numbers


def _named(before: str, after: str, precisions: Tensor) -> dict[str, float]:
    """AP50, AP75 and AP of (thresholds, classes)."""
    means = precisions.nanmean(1).tolist()
    values = {"ap50": means[0], "ap75": means[THRESHOLDS.index(0.75)], "ap": sum(means) / len(means)}
    return {f"{before}{name}{after}": value for name, value in values.items()}


def _check_rule(rule: str) -> None:
    if rule not in VOC_RULES:
        raise ValueError(f"rule must be 11_point (VOC2007) or all_point (VOC2010 and later), got {rule!r}")


def _counted(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], rule: str, thresholds: Sequence[float]
) -> Outcomes:
    """`voc_outcomes`, of which some object must count."""
    _check_rule(rule)
    found = voc_outcomes(detections, ground_truth, thresholds)
    if not bool(found.objects.any()):
        raise ValueError(
            f"the {len(detections)} images hold no object that is not difficult, so there is nothing to measure"
        )
    return found
