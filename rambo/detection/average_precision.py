"""Average precision of object detections by the rules of Pascal VOC and of COCO; pure functions on the CPU.

A rule has two parts. The first decides which detections are right, given how far boxes must overlap (intersection over
union, at least the threshold; images and classes are apart):

* `voc_outcomes`: a detection is compared with the object that it overlaps most, and with no other. The first (highest
  score) on an object is right, later ones are wrong; one on a difficult object is not counted.
* `coco_outcomes`: a detection takes, of the objects that no detection before it took, the one that it overlaps most. At
  most 100 detections of a class in an image are looked at. A difficult object is a "crowd", the COCO rule's way of not
  counting: a detection that takes no other object is not counted if the share of its own area that lies on a crowd
  reaches the threshold, however many do so.

The second makes one number of precision and recall down the list of detections, which fall in score; equal scores stay
in the order given. With P(r) the highest precision at a recall of r or more, or 0 where that recall is never reached:

* "11_point": the mean of P(0), P(0.1), ... P(1). VOC until 2009, and so on VOC2007.
* "all_point": the area under P. VOC from 2010 on.
* "101_point": the mean of P(0), P(0.01), ... P(1). COCO.

Boxes are [left, top, right, bottom] with width right - left. From the annotation of a VOC object, whose corners count
pixels from 1 and belong to it, comes [xmin - 1, ymin - 1, xmax, ymax]; overlaps then equal the development kit's, which
adds 1 to every width.

Source: Everingham et al. 2010, section 4.2, and VOCevaldet.m of the 2007 and 2010 development kits, which as here takes
an overlap equal to the threshold; COCO: cocoeval.py of pycocotools, with which the numbers agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RIGHT, WRONG, NOT_COUNTED = 1, 0, -1
COCO_DETECTIONS = 100  # of a class in an image
_ELEVEN = torch.arange(11, dtype=torch.float64) / 10
_HUNDRED_AND_ONE = torch.arange(101, dtype=torch.float64) * 0.01  # rounded as in pycocotools: 0.35000000000000003
RULES = ("11_point", "all_point", "101_point")
Boxes = Mapping[str, Tensor]


class Outcomes(NamedTuple):
    """What became of every detection, by falling score.

    Attributes:
        order: Where it stands among all detections put one after the other, int64 (detections,).
        images: int64 (detections,).
        labels: int64 (detections,).
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


class _Flat(NamedTuple):
    """The boxes of all images: (boxes, 4) float64, and one image and label each."""

    boxes: Tensor
    images: Tensor
    labels: Tensor


class _Pairs(NamedTuple):
    """Detections beside the objects of their image and class, by detection and then object; all (pairs,)."""

    detections: Tensor
    objects: Tensor
    overlaps: Tensor


def voc_outcomes(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], thresholds: Sequence[float] = (0.5,)
) -> Outcomes:
    """Which detections are right by the rule of Pascal VOC, see above.

    Args:
        detections: For each image `boxes` (detections, 4), `scores` and integer `labels` (detections,).
        ground_truth: For each image `boxes` (objects, 4), integer `labels` and bool `difficult` (objects,).
        thresholds: Of the overlap, above 0 and at most 1.

    Raises:
        ValueError: If the two differ in images, shapes disagree, a score or a box is not finite, the corners of a box
            are swapped, or a threshold is out of range.
    """
    order, found, objects, difficult = _flatten(detections, ground_truth, thresholds)
    pairs = _pairs(found, objects, torch.zeros_like(difficult))
    best = pairs.overlaps.new_full((len(order),), -1.0).scatter_reduce(0, pairs.detections, pairs.overlaps, "amax")
    is_best = pairs.overlaps == best[pairs.detections]  # of equal ones the first object, as in the development kit
    nearest = torch.full_like(order, len(difficult)).scatter_reduce(
        0, pairs.detections[is_best], pairs.objects[is_best], "amin"
    )
    hit = best >= torch.tensor(thresholds, dtype=torch.float64)[:, None]
    place = torch.arange(len(order)).where(hit, len(order))
    nobody = torch.full((len(hit), len(difficult) + 1), len(order))
    first = nobody.scatter_reduce(1, nearest.expand_as(place), place, "amin").gather(1, nearest.expand_as(place))
    on_difficult = hit & torch.cat([difficult, difficult.new_zeros(1)])[nearest]
    right = hit & ~on_difficult & (first == torch.arange(len(order)))
    verdicts = torch.where(right, RIGHT, torch.where(on_difficult, NOT_COUNTED, WRONG)).to(torch.int8)
    counted = _count(objects, difficult, len(detections))
    return Outcomes(order, found.images, found.labels, verdicts, nearest.where(right, -1), counted)


def coco_outcomes(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], thresholds: Sequence[float] = (0.5,)
) -> Outcomes:
    """Which detections are right by the rule of COCO, see above; arguments and errors as in `voc_outcomes`."""
    order, found, objects, difficult = _flatten(detections, ground_truth, thresholds)
    place = _place_in_image_and_class(found)
    order, *parts = (part[place < COCO_DETECTIONS] for part in (order, *found, place))
    found, place = _Flat(*parts[:3]), parts[3]
    pairs = _pairs(found, objects, difficult)
    least = torch.tensor(thresholds, dtype=torch.float64)[:, None]
    verdicts = torch.full((len(least), len(order)), WRONG, dtype=torch.int8)
    taken_by = torch.full((len(least), len(order)), -1)
    free = (~difficult).expand(len(least), -1).clone()
    # All images and classes at once: first their best detections choose, then their second best, and so on.
    turns = place[pairs.detections]
    by_turn = turns.argsort(stable=True)
    for turn in torch.split(by_turn, turns.bincount().tolist()):
        who, own = torch.unique_consecutive(pairs.detections[turn], return_inverse=True)
        what, far_enough = pairs.objects[turn], pairs.overlaps[turn] >= least
        overlaps = pairs.overlaps[turn].where(far_enough & free[:, what], -1.0)
        columns = own.expand_as(overlaps)
        nothing = overlaps.new_full((len(least), len(who)), -1.0)
        best = nothing.scatter_reduce(1, columns, overlaps, "amax").gather(1, columns)
        is_best = (overlaps == best) & (overlaps >= 0)  # of equal ones the last object, as in pycocotools
        taken = nothing.long().scatter_reduce(1, columns, what.where(is_best, -1), "amax")
        crowded = nothing.scatter_reduce(1, columns, (far_enough & difficult[what]).double(), "amax") > 0
        free[(taken >= 0).nonzero()[:, 0], taken[taken >= 0]] = False
        taken_by[:, who] = taken
        verdicts[:, who] = torch.where(taken >= 0, RIGHT, torch.where(crowded, NOT_COUNTED, WRONG)).to(torch.int8)
    return Outcomes(order, found.images, found.labels, verdicts, taken_by, _count(objects, difficult, len(detections)))


def average_precisions(outcomes: Outcomes, rule: str, image_weights: Tensor | None = None) -> Tensor:
    """Average precision of every class; nan for a class without an object that counts.

    Args:
        outcomes: Of `voc_outcomes` or `coco_outcomes`.
        rule: "11_point", "all_point" or "101_point", see above.
        image_weights: How often each image is in the data set, int64 (draws, images), if not once; the outcomes then
            have one threshold.

    Returns:
        float64 (thresholds, highest label), or (draws, highest label).

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
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
        result[:, label - 1] = _under_curve(right.long(), counted.long(), counts[:, label], rule)
    return result


def precision_recall(outcomes: Outcomes, label: int, row: int = 0) -> Tensor:
    """Recall and precision after each detection of a class that counts, at one of the thresholds.

    Returns:
        float64 (2, detections).
    """
    verdicts = outcomes.verdicts[row, outcomes.labels == label]
    right = (verdicts[verdicts != NOT_COUNTED] == RIGHT).double().cumsum(0)
    return torch.stack([right / outcomes.objects[:, label].sum(), right / torch.arange(1, len(right) + 1)])


def _under_curve(right: Tensor, counted: Tensor, objects: Tensor, rule: str) -> Tensor:
    """Average precision of each row; right and counted detections (rows, detections), objects (rows,)."""
    found = right.cumsum(1)
    precision = found / counted.cumsum(1).clamp(min=1).double()
    highest = precision.flip(1).cummax(1).values.flip(1) if precision.shape[1] else precision
    if rule == "all_point":
        return (right * highest).sum(1) / objects
    points = _ELEVEN if rule == "11_point" else _HUNDRED_AND_ONE
    reached = torch.searchsorted(found / objects[:, None].double(), points.expand(len(right), -1).contiguous())
    at_points = torch.cat([highest, highest.new_zeros(len(right), 1)], dim=1).gather(1, reached)
    return at_points.mean(1).where(objects > 0, float("nan"))


def _flatten(
    detections: Sequence[Boxes], ground_truth: Sequence[Boxes], thresholds: Sequence[float]
) -> tuple[Tensor, _Flat, _Flat, Tensor]:
    """The order of falling score, detections in that order, objects, and which of these are difficult."""
    if len(detections) != len(ground_truth):
        raise ValueError(f"detections of {len(detections)} images came with the objects of {len(ground_truth)}")
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"overlap thresholds must be in 0 < t <= 1, got {list(thresholds)}")
    found, scores = _put_together("detections", detections, "scores")
    objects, difficult = _put_together("objects", ground_truth, "difficult")
    order = scores.argsort(descending=True, stable=True)
    return order, _Flat(*(part[order] for part in found)), objects, difficult.bool()


def _put_together(what: str, entries: Sequence[Boxes], extra: str) -> tuple[_Flat, Tensor]:
    for image, entry in enumerate(entries):
        boxes, labels, values = (entry[key] for key in ("boxes", "labels", extra))
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) == len(labels) == len(values):
            raise ValueError(
                f"{what} of image {image} need boxes (n, 4) and n labels and {extra}, got boxes {tuple(boxes.shape)}, "
                f"labels {tuple(labels.shape)} and {extra} {tuple(values.shape)}"
            )
    together = {key: [entry[key].detach().cpu() for entry in entries] for key in ("boxes", "labels", extra)}
    boxes = torch.cat([torch.zeros(0, 4), *together["boxes"]]).double()
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *together["labels"]]).long()
    values = torch.cat([torch.zeros(0, dtype=torch.bool), *together[extra]])
    if not (bool(boxes.isfinite().all()) and bool(values.isfinite().all())):
        raise ValueError(f"some {what} have a box or score of nan or infinity; if they are found, the model diverged")
    counts = torch.tensor([len(labels) for labels in together["labels"]], dtype=torch.int64)
    images = torch.arange(len(entries)).repeat_interleave(counts)
    swapped = (boxes[:, :2] > boxes[:, 2:]).any(dim=1).nonzero()[:, 0].tolist()
    if swapped:
        raise ValueError(
            f"{what} of image {int(images[swapped[0]])} have a box {boxes[swapped[0]].tolist()} that ends before it"
            " begins; boxes are [left, top, right, bottom]"
        )
    if bool((labels < 1).any()):
        raise ValueError(f"some {what} have label {int(labels.min())}: classes count from 1, as 0 is the background")
    return _Flat(boxes, images, labels), values


def _highest(flat: _Flat) -> int:
    return int(flat.labels.max()) if len(flat.labels) else 0


def _keys(flat: _Flat, classes: int) -> Tensor:
    """One number for image and class."""
    return flat.images * classes + flat.labels


def _pairs(detections: _Flat, objects: _Flat, crowd: Tensor) -> _Pairs:
    """Intersection over union of all pairs; for a crowd, intersection over the detection's area."""
    classes = 1 + max(_highest(detections), _highest(objects))
    keys, wanted = _keys(objects, classes), _keys(detections, classes)
    by_key = keys.argsort(stable=True)
    start = torch.searchsorted(keys[by_key], wanted)
    counts = torch.searchsorted(keys[by_key], wanted, right=True) - start
    one = torch.arange(len(wanted)).repeat_interleave(counts)
    step = torch.arange(len(one)) - (counts.cumsum(0) - counts)[one]
    other = by_key[start[one] + step]
    a, b = detections.boxes[one], objects.boxes[other]
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    area, of_object = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b))
    whole = torch.where(crowd[other], area, area + of_object - shared)
    return _Pairs(one, other, (shared / whole).where(shared > 0, 0.0))


def _place_in_image_and_class(detections: _Flat) -> Tensor:
    """How many of the same image and class come before each, int64 (detections,)."""
    keys = _keys(detections, 1 + _highest(detections))
    ordered, order = keys.sort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - torch.searchsorted(ordered, ordered)
    return place


def _count(objects: _Flat, difficult: Tensor, images: int) -> Tensor:
    classes = 1 + _highest(objects)
    keys = _keys(objects, classes)[~difficult]
    return keys.bincount(minlength=images * classes).view(images, classes)
