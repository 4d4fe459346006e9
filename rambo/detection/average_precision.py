"""Average precision of object detections by the rules of Pascal VOC and of COCO; pure functions on the CPU.

A rule has two parts. The first decides which detections are right, where boxes overlap by intersection over union,
images and classes are apart, and an overlap equal to the threshold is enough:

* VOC: a detection is compared with the object that it overlaps most, and with no other. The first (highest score) on an
  object is right, later ones are wrong; one on a difficult object is not counted.
* COCO: a detection takes, of the objects that none before it took, the one that it overlaps most. At most 100
  detections of a class in an image are looked at. A detection that takes no object is not counted if the share of its
  own area that lies on a difficult object (a "crowd") reaches the threshold, however many do so.

The second makes one number of precision and recall down the list of detections, which fall in score; equal scores stay
in the order given. With P(r) the highest precision at a recall of r or more, or 0 where that recall is never reached:

* "11_point": the mean of P(0), P(0.1), ... P(1). VOC until 2009, and so on VOC2007.
* "all_point": the area under P. VOC from 2010 on.
* "101_point": the mean of P(0), P(0.01), ... P(1). COCO.

Source: Everingham et al. 2010, section 4.2, and VOCevaldet.m of the 2007 and 2010 development kits; cocoeval.py of
pycocotools, with which the numbers agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

RIGHT, WRONG, NOT_COUNTED = 1, 0, -1
COCO_DETECTIONS = 100  # of a class in an image
POINTS = {
    "11_point": torch.arange(11, dtype=torch.float64) / 10,
    "all_point": None,
    "101_point": torch.arange(101, dtype=torch.float64) * 0.01,  # rounded as in pycocotools: 0.35000000000000003
}
Boxes = Mapping[str, Tensor]
Array = np.ndarray[Any, Any]


class Outcomes(NamedTuple):
    """What became of every detection, by falling score.

    Attributes:
        order: Where it stands among all detections put one after the other, int64 (detections,).
        images, labels: int64 (detections,).
        verdicts: `RIGHT`, `WRONG` or `NOT_COUNTED`, int8 (thresholds, detections).
        found: For right ones the object, where it stands among all objects put one after the other, else -1; int64
            (thresholds, detections).
        objects: How many objects of each class count, int64 (images, 1 + highest label).
    """

    order: Tensor
    images: Tensor
    labels: Tensor
    verdicts: Tensor
    found: Tensor
    objects: Tensor


def voc_outcomes(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], thresholds: Sequence[float] = (0.5,)
) -> Outcomes:
    """Which detections are right by the rule of Pascal VOC.

    Args:
        detections: For each image `boxes` (detections, 4) as left, top, right, bottom, `scores` and integer `labels`.
        ground_truth: For each image `boxes` (objects, 4), integer `labels` and bool `difficult` (objects,).
        thresholds: Of the overlap, above 0 and at most 1.

    Raises:
        ValueError: If the two differ in images, shapes disagree, a score or a box is not finite, the corners of a box
            are swapped, or a threshold is out of range.
    """
    return _outcomes(detections, ground_truth, thresholds, _by_voc)


def coco_outcomes(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], thresholds: Sequence[float] = (0.5,)
) -> Outcomes:
    """Which detections are right by the rule of COCO; arguments and errors as in `voc_outcomes`."""
    return _outcomes(detections, ground_truth, thresholds, _by_coco, COCO_DETECTIONS)


def _by_voc(overlaps: Array, difficult: Array, least: Array) -> tuple[Array, Array]:
    """The object that each detection finds, or -1, and whether it does not count; (thresholds, detections) both."""
    best, nearest = overlaps[0].max(1), overlaps[0].argmax(1)  # of equal ones the first, as in the development kit
    hit = best >= least
    rows, place = np.arange(len(least))[:, None], np.arange(len(best))
    first = np.full((len(least), len(difficult)), len(best))
    np.minimum.at(first, (rows, nearest), np.where(hit, place, len(best)))
    on_difficult = hit & difficult[nearest]
    return np.where(hit & ~on_difficult & (first[rows, nearest] == place), nearest, -1), on_difficult


def _by_coco(overlaps: Array, difficult: Array, least: Array) -> tuple[Array, Array]:
    """As `_by_voc`."""
    found = np.full((len(least), overlaps.shape[1]), -1)
    free = np.tile(~difficult, (len(least), 1))
    for place in np.flatnonzero(overlaps[0].max(1) >= least.min()):
        options = np.where(free & (overlaps[0, place] >= least), overlaps[0, place], -1.0)
        what = options.shape[1] - 1 - options[:, ::-1].argmax(1)  # of equal ones the last, as in pycocotools
        rows = np.flatnonzero(options.max(1) >= 0)
        found[rows, place], free[rows, what[rows]] = what[rows], False
    return found, ((overlaps[1] >= least[..., None]) & difficult).any(2)


def _outcomes(
    detections: Sequence[Boxes],
    ground_truth: Sequence[Boxes],
    thresholds: Sequence[float],
    judge: Callable[[Array, Array, Array], tuple[Array, Array]],
    most: int | None = None,
) -> Outcomes:
    """Has the detections of each image judged, of each class the best `most`, all others not counting."""
    images = len(detections)
    if images != len(ground_truth) or not images:
        raise ValueError(f"detections of {images} images came with the objects of {len(ground_truth)}; give one each")
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"overlap thresholds must be in 0 < t <= 1, got {list(thresholds)}")
    boxes, shown, labels, scores = _put_together("detections", detections, "scores")
    their_boxes, their_images, their_labels, flags = _put_together("objects", ground_truth, "difficult")
    order, difficult, least = np.argsort(-scores, kind="stable"), flags > 0, np.array(thresholds)[:, None]
    boxes, shown, labels = boxes[order], shown[order], labels[order]
    what, excused = np.full((len(least), len(order)), -1), np.ones((len(least), len(order)), dtype=bool)
    for mine, theirs in zip(_by_image(shown, images), _by_image(their_images, images), strict=True):
        same = labels[mine, None] == their_labels[theirs]
        if most is not None:
            ahead = np.tril(labels[mine, None] == labels[mine], -1).sum(1)
            mine, same = mine[ahead < most], same[ahead < most]
        overlaps = _overlaps(boxes[mine], their_boxes[theirs], same)
        found, excused[:, mine] = judge(overlaps, np.append(difficult[theirs], False), least)
        what[:, mine] = np.append(theirs, -1)[found]
    verdicts = np.where(what >= 0, RIGHT, np.where(excused, NOT_COUNTED, WRONG)).astype(np.int8)
    counts = np.zeros((images, 1 + max(labels.max(initial=0), their_labels.max(initial=0))), dtype=np.int64)
    np.add.at(counts, (their_images, their_labels), ~difficult)
    return Outcomes(*map(torch.from_numpy, (order, shown, labels, verdicts, what, counts)))


def _by_image(images: Array, count: int) -> list[Array]:
    """The places of each image's boxes, in the order in which they stand."""
    return np.split(np.argsort(images, kind="stable"), np.bincount(images, minlength=count).cumsum()[:-1])


def _overlaps(a: Array, b: Array, same: Array) -> Array:
    """Intersection of each a (n, 4) and b (m, 4) over their union, and over the area of a; (2, n, m + 1).

    It is -1 where they are not of the `same` class, bool (n, m), and in the last column, for nobody.
    """
    shared = (np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])).clip(min=0).prod(2)
    area, other = ((box[:, 2:] - box[:, :2]).prod(1) for box in (a, b))
    overlaps = np.full((2, len(a), len(b) + 1), -1.0)
    for place, whole in enumerate((area[:, None] + other - shared, area[:, None])):
        share = np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)
        overlaps[place, :, :-1] = np.where(same, share, -1.0)
    return overlaps


def average_precisions(outcomes: Outcomes, rule: str, image_weights: Tensor | None = None) -> Tensor:
    """Average precision of every class; nan for a class without an object that counts.

    Args:
        outcomes: Of `voc_outcomes` or `coco_outcomes`.
        rule: "11_point", "all_point" or "101_point".
        image_weights: How often each image is in the data set, int64 (draws, images), if not once; the outcomes then
            have one threshold.

    Returns:
        float64 (thresholds, highest label), or (draws, highest label).

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule not in POINTS:
        raise ValueError(f"rule must be one of {', '.join(POINTS)}, got {rule!r}")
    verdicts, weights, counts = outcomes.verdicts, image_weights, outcomes.objects
    counts = counts.sum(0).expand(len(verdicts), -1) if weights is None else weights @ counts
    result = torch.full((len(counts), counts.shape[1] - 1), float("nan"), dtype=torch.float64)
    for label in range(1, counts.shape[1]):
        if not bool(counts[:, label].any()):
            continue
        own = (outcomes.labels == label).nonzero()[:, 0]
        right, counted = verdicts[:, own] == RIGHT, verdicts[:, own] != NOT_COUNTED
        if weights is not None:
            often = weights[:, outcomes.images[own]]
            right, counted = right * often, counted * often
        result[:, label - 1] = _under_curve(right.long(), counted.long(), counts[:, label], POINTS[rule])
    return result


def precision_recall(outcomes: Outcomes, label: int) -> Tensor:
    """Recall and precision after each detection of a class that counts, at the first threshold: (2, detections)."""
    verdicts = outcomes.verdicts[0, outcomes.labels == label]
    right = (verdicts[verdicts != NOT_COUNTED] == RIGHT).double().cumsum(0)
    return torch.stack([right / outcomes.objects[:, label].sum(), right / torch.arange(1, len(right) + 1)])


def _under_curve(right: Tensor, counted: Tensor, objects: Tensor, points: Tensor | None) -> Tensor:
    """Average precision of each row; right and counted detections (rows, detections), objects (rows,)."""
    found = right.cumsum(1)
    precision = found / counted.cumsum(1).clamp(min=1).double()
    highest = precision.flip(1).cummax(1).values.flip(1) if precision.shape[1] else precision
    if points is None:
        return (right * highest).sum(1) / objects
    reached = torch.searchsorted(found / objects[:, None].double(), points.expand(len(right), -1).contiguous())
    at_points = torch.cat([highest, highest.new_zeros(len(right), 1)], dim=1).gather(1, reached)
    return at_points.mean(1).where(objects > 0, float("nan"))


def _put_together(what: str, entries: Sequence[Boxes], extra: str) -> tuple[Array, Array, Array, Array]:
    """The boxes of all images: (boxes, 4) float64, and one image, label and value each."""
    for image, entry in enumerate(entries):
        boxes, labels, values = (entry[key] for key in ("boxes", "labels", extra))
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) == len(labels) == len(values):
            raise ValueError(
                f"{what} of image {image} need boxes (n, 4) and n labels and {extra}, got boxes {tuple(boxes.shape)}, "
                f"labels {tuple(labels.shape)} and {extra} {tuple(values.shape)}"
            )
        if len(swapped := boxes[(boxes[:, :2] > boxes[:, 2:]).any(dim=1)]):
            raise ValueError(
                f"{what} of image {image} have a box {swapped[0].tolist()} that ends before it begins; boxes are"
                " [left, top, right, bottom]"
            )
    boxes, labels, values = (
        torch.cat([entry[key].detach().cpu() for entry in entries]) for key in ("boxes", "labels", extra)
    )
    if not (bool(boxes.isfinite().all()) and bool(values.isfinite().all())):
        raise ValueError(f"some {what} have a box or score of nan or infinity; if they are found, the model diverged")
    if bool((labels < 1).any()):
        raise ValueError(f"some {what} have label {int(labels.min())}: classes count from 1, as 0 is the background")
    images = np.repeat(np.arange(len(entries)), [len(entry["labels"]) for entry in entries])
    return boxes.double().numpy(), images, labels.long().numpy(), values.double().numpy()
