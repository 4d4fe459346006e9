"""How a Faster R-CNN is set up; a ValueError names a value that is out of range.

Defaults are mmdetection's of 2019, the recipe of the paper's detection experiments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SCORED_BY = ("softmax", "sigmoid")
_COUNTS = (
    "samples", "train_before_nms", "train_after_nms", "test_before_nms", "test_after_nms",
    "pool_size", "pool_samples", "canonical_size", "hidden", "candidates", "detections",
)  # fmt: skip
_SHARES = ("positive_fraction", "positive_iou", "negative_iou", "nms_iou", "score_threshold")
_POSITIVE = ("scales", "ratios", "box_std")


class _Checked:
    def __post_init__(self) -> None:
        given = vars(self)
        for name, value in given.items():
            if name in _COUNTS and value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if name in _SHARES and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in 0..1, got {value}")
            if name in _POSITIVE and not (len(value) and all(0 < number < math.inf for number in value)):
                raise ValueError(f"{name} must be > 0, got {value}")
        positive, negative = given.get("positive_iou", 1), given.get("negative_iou", 0)
        if negative > positive:
            raise ValueError(f"negative_iou must be at most positive_iou, got {negative} > {positive}")
        if not given.get("box_beta", 0) >= 0:
            raise ValueError(f"box_beta must be >= 0, got {given['box_beta']}")


@dataclass(frozen=True)
class AnchorSettings(_Checked):
    """Boxes from which proposals start.

    Args:
        scales: Side of a square anchor in strides of its level.
        ratios: Height over width.
    """

    scales: Sequence[float] = (8.0,)
    ratios: Sequence[float] = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class ProposalSettings(_Checked):
    """How the proposal network is trained, and how many proposals it makes.

    Args:
        samples: Anchors of an image in its loss.
        positive_fraction: Largest share of positive anchors among them.
        positive_iou: Anchors that overlap an object so much are positive.
        negative_iou: Anchors that overlap no object so much are negative; those between are left out.
        train_before_nms, test_before_nms: Proposals of a level that enter non-maximum suppression.
        train_after_nms, test_after_nms: Proposals of an image that are left.
        nms_iou: Of two proposals of a level that overlap more than this, the worse is dropped.
        box_beta: Where the smooth L1 loss turns from squared to absolute, >= 0.
    """

    samples: int = 256
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    train_before_nms: int = 2000
    train_after_nms: int = 2000
    test_before_nms: int = 1000
    test_after_nms: int = 1000
    nms_iou: float = 0.7
    box_beta: float = 1 / 9


@dataclass(frozen=True)
class RegionSettings(_Checked):
    """How the heads on pooled regions are trained, and what they return.

    Args:
        sampling: Whether a fixed number of regions is drawn for training; False trains on every proposal, which is not
            in the paper. It does say that sequences of 320,000 scores occur, which 8 images of 2,000 proposals and 20
            classes would make. `roi_box`, a mean over regions, then becomes smaller.
        samples: Regions of an image in the losses.
        positive_fraction: Largest share of regions with an object among them.
        positive_iou: A region shows the object that it overlaps so much.
        negative_iou: A region that overlaps no object so much is background; those between are left out.
        pool_size: Side of the grid to which a region is pooled.
        pool_samples: Points along a side of each of the grid's cells.
        canonical_size: Side of a region that is pooled from stride 16; half of it from stride 8, and so on.
        hidden: Width of the two layers before the outputs.
        box_std: By which the four box offsets are divided: centre x, centre y, width, height.
        box_beta: Where the smooth L1 loss turns from squared to absolute: 1 in mmdetection, 1/9 in torchvision.
        scored_by: How logits become the scores of detections: "softmax" over all classes and background, or "sigmoid"
            of each class on its own, without background.
        score_threshold: Detections with this score or a lower one are dropped. A ranking loss does not calibrate
            scores, so that a lower threshold than the usual 0.05 may find more.
        candidates: Largest number of boxes of an image that enter non-maximum suppression, best first; None: all.
        nms_iou: Of two boxes of a class that overlap more than this, the worse is dropped.
        detections: Largest number of detections of an image.

    Source: Rolinek et al. 2020, section 5.3, for the length of sequences.
    """

    sampling: bool = True
    samples: int = 512
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    negative_iou: float = 0.5
    pool_size: int = 7
    pool_samples: int = 2
    canonical_size: int = 224
    hidden: int = 1024
    box_std: Sequence[float] = (0.1, 0.1, 0.2, 0.2)
    box_beta: float = 1.0
    scored_by: str = "softmax"
    score_threshold: float = 0.05
    candidates: int | None = None
    nms_iou: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.box_std) != 4:
            raise ValueError(f"box_std must give four numbers, got {list(self.box_std)}")
        if self.scored_by not in SCORED_BY:
            raise ValueError(f"scored_by must be softmax or sigmoid, got {self.scored_by!r}")
