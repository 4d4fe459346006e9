"""The two halves of Faster R-CNN behind the backbone: torchvision's, with what has no argument there overridden.

Known differences to the mmdetection of 2019: torchvision also trains anchors that cross the border of the image, gives
every object its best anchor however small the overlap, and has no legacy `+ 1` in the width of a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, batched_nms, clip_boxes_to_image, remove_small_boxes

from harness import distributed
from rambo.detection.settings import AnchorSettings, ProposalSettings, RegionSettings


class Detected(NamedTuple):
    """What a detector makes of a training batch: rows, so that those of several processes make one output.

    Attributes:
        class_logits: Of every region that is trained on, background first, float32 (regions, classes + 1).
        labels: What each region shows, 0 for background, int64 (regions,).
        region_boxes: The smooth L1 loss of the box of every region with an object, (regions with one, 4).
        objectness: The logit of every anchor that is trained on, float32 (anchors,).
        on_object: 1 for anchors on an object, 0 for others, float32 (anchors,).
        anchor_boxes: The smooth L1 loss of the box of every anchor on an object, (anchors on one, 4).
    """

    class_logits: Tensor
    labels: Tensor
    region_boxes: Tensor
    objectness: Tensor
    on_object: Tensor
    anchor_boxes: Tensor

    @property
    def losses(self) -> dict[str, Tensor]:
        """Named scalars, means over all anchors or regions; `cross_entropy` is the baseline's classification loss."""
        return {
            "rpn_objectness": F.binary_cross_entropy_with_logits(self.objectness, self.on_object),
            "rpn_box": self.anchor_boxes.sum() / len(self.on_object),
            "roi_box": self.region_boxes.sum() / len(self.labels),
            "cross_entropy": F.cross_entropy(self.class_logits, self.labels),
        }


def at_least_single(values: Tensor) -> Tensor:
    """Half precision, which is too coarse for coordinates and ranks, as float32; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


class Sampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]
    """torchvision's, with the draws that one process would make for the images of all.

    Attributes:
        padding: Whether the image of this process does not count.
    """

    padding = False

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Which places of each image are drawn among those with a label from 1, and among those with the label 0."""
        if distributed.world() == 1:
            return super().__call__(labels)  # type: ignore[no-any-return]
        if self.padding:  # there is nothing to draw from
            labels = [torch.full_like(labels[0], -1)]
        counts = torch.stack([torch.stack([(shown >= 1).sum(), (shown == 0).sum()]) for shown in labels])
        rows, own = distributed.gather(counts)
        everyone = [labels[0].new_tensor([1, 0]).repeat_interleave(count) for count in rows]  # draws depend on counts
        everyone[own] = labels
        positive, negative = super().__call__(everyone)
        return positive[own], negative[own]


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors at given strides, where torchvision's class guesses them from the sizes of the maps, and in float32."""

    def __init__(self, strides: Sequence[int], settings: AnchorSettings) -> None:
        sizes = tuple(tuple(stride * scale for scale in settings.scales) for stride in strides)
        super().__init__(sizes, (tuple(settings.ratios),) * len(sizes))
        self.strides = list(strides)

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of every image, float32 (anchors, 4) as x1, y1, x2, y2."""
        device = maps[0].device
        self.set_cell_anchors(torch.float32, device)
        strides = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors([part.shape[-2:] for part in maps], strides))
        return [anchors] * len(images.image_sizes)


class _Float32Head(RPNHead):  # type: ignore[misc]
    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, offsets = super().forward(maps)
        return [at_least_single(part) for part in logits], [at_least_single(part) for part in offsets]


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, with the anchors above, in float32, and with a choice of the smooth L1 loss."""

    def __init__(self, channels: int, anchors: Anchors, settings: ProposalSettings) -> None:
        super().__init__(
            anchors,
            _Float32Head(channels, anchors.num_anchors_per_location()[0]),
            settings.positive_iou,
            settings.negative_iou,
            settings.samples,
            settings.positive_fraction,
            {"training": settings.train_before_nms, "testing": settings.test_before_nms},
            {"training": settings.train_after_nms, "testing": settings.test_after_nms},
            settings.nms_iou,
        )
        self.box_beta = settings.box_beta
        self.fg_bg_sampler = Sampler(settings.samples, settings.positive_fraction)

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """`objectness` and `on_object` of `Detected`, and its `anchor_boxes`."""
        positive, negative = (torch.cat(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        sampled, targets = positive | negative, torch.cat(regression_targets).to(pred_bbox_deltas)
        boxes = F.smooth_l1_loss(pred_bbox_deltas[positive], targets[positive], beta=self.box_beta, reduction="none")
        return (objectness.flatten()[sampled], torch.cat(labels)[sampled].to(objectness)), boxes


class RegionHeads(RoIHeads):  # type: ignore[misc]
    """Classes and boxes of regions, pooled from the maps named; the classification loss is left to whoever called.

    Initial weights are those of mmdetection and detectron2: Xavier for the two layers, normal with a deviation of 0.01
    for logits and 0.001 for box offsets.
    """

    def __init__(self, channels: int, pooled: Sequence[str], settings: RegionSettings) -> None:
        super().__init__(
            MultiScaleRoIAlign(
                list(pooled), settings.pool_size, settings.pool_samples, canonical_scale=settings.canonical_size
            ),
            TwoMLPHead(channels * settings.pool_size**2, settings.hidden),
            None,
            settings.positive_iou,
            settings.negative_iou,
            settings.samples,
            settings.positive_fraction,
            tuple(1 / deviation for deviation in settings.box_std),
            settings.score_threshold,
            settings.nms_iou,
            settings.detections,
        )
        self.settings = settings
        self.fg_bg_sampler = Sampler(settings.samples, settings.positive_fraction)
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def build_outputs(self, classes: int) -> None:
        """Adds the last layer, for so many classes besides background."""
        outputs = FastRCNNPredictor(self.settings.hidden, classes + 1)
        for layer, deviation in ((outputs.cls_score, 0.01), (outputs.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
        self.box_predictor = outputs.to(self.box_head.fc7.weight.device)

    def forward(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None,
        padded: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor] | list[dict[str, Tensor]]:
        """In training mode, the first three of `Detected`, otherwise `detections`.

        `image_shapes` are without padding; by `padded`, height and width with it, the strides of the maps are known.
        """
        if self.training:
            proposals, _, labels, box_targets = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, [padded])
        logits, offsets = (at_least_single(output) for output in self.box_predictor(self.box_head(pooled)))
        if not self.training:
            return self.detections(logits, offsets, proposals, image_shapes)
        shown = torch.cat(labels)
        return logits, shown, region_box_losses(offsets, shown, torch.cat(box_targets), self.settings.box_beta)

    def subsample(self, labels: list[Tensor]) -> list[Tensor]:
        """Positions of the regions to train on, by image."""
        if self.settings.sampling:
            return super().subsample(labels)  # type: ignore[no-any-return]
        return [torch.where(shown >= 0)[0] for shown in labels]

    def detections(
        self, logits: Tensor, offsets: Tensor, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """`boxes`, `scores` and `labels` of every image's detections, best first."""
        counts = [len(part) for part in proposals]
        boxes = torch.split(self.box_coder.decode(offsets, proposals).view(*logits.shape, 4)[:, 1:], counts)
        scores = torch.split(foreground(logits, self.settings.scored_by), counts)
        return [self._best(*image) for image in zip(boxes, scores, image_shapes, strict=True)]

    def _best(self, boxes: Tensor, scores: Tensor, image_shape: tuple[int, int]) -> dict[str, Tensor]:
        """Detections of one image, from boxes (regions, classes, 4) and scores (regions, classes)."""
        region, place = torch.where(scores > self.settings.score_threshold)
        if self.settings.candidates is not None:
            best = scores[region, place].argsort(descending=True, stable=True)[: self.settings.candidates]
            region, place = region[best], place[best]
        clipped = clip_boxes_to_image(boxes[region, place], image_shape)
        large = remove_small_boxes(clipped, min_size=1e-2)
        found = {"boxes": clipped[large], "scores": scores[region, place][large], "labels": place[large] + 1}
        final = batched_nms(found["boxes"], found["scores"], found["labels"], self.settings.nms_iou)
        return {name: values[final[: self.settings.detections]] for name, values in found.items()}


def foreground(logits: Tensor, kind: str) -> Tensor:
    """Scores of the classes without background, (regions, classes): "logits", "softmax" or "sigmoid"."""
    if kind == "softmax":
        return logits.softmax(dim=1)[:, 1:]
    return logits[:, 1:].sigmoid() if kind == "sigmoid" else logits[:, 1:]


def region_box_losses(offsets: Tensor, labels: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Smooth L1 loss of the boxes of regions with an object, each by the offsets of its own class, (objects, 4).

    Their loss is the sum over the number of all regions, as in torchvision and mmdetection; offsets (regions,
    4 * (classes + 1)), labels (regions,) with 0 for background, targets (regions, 4).
    """
    shows = torch.where(labels > 0)[0]
    own = offsets.reshape(len(offsets), offsets.shape[1] // 4, 4)[shows, labels[shows]]
    return F.smooth_l1_loss(own, targets[shows], beta=beta, reduction="none")
