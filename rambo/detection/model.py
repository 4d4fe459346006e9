"""Faster R-CNN whose classification loss comes from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from harness import distributed
from harness.data.backbones import colours, register_colours
from harness.data.loading import PADDING
from rambo.detection.backbone import TimmPyramid
from rambo.detection.heads import Anchors, Detected, ProposalNetwork, RegionHeads
from rambo.detection.settings import AnchorSettings, ProposalSettings, RegionSettings

__all__ = ["Detected", "FasterRCNN"]

Detections = list[dict[str, Tensor]]
PADDED_TO = 32  # sides of a batch are multiples of this, as in the recipe


class _HasClasses(Protocol):
    @property
    def classes(self) -> int | Sequence[str]: ...


class FasterRCNN(nn.Module):
    """Faster R-CNN on a timm backbone and a feature pyramid network.

    Args:
        backbone: The name of any timm model that gives feature maps, each half as large as the one before.
        weights: `"hub"` downloads those timm knows, `"packaged"` takes those of an installed package, `"none"` starts
            from scratch; anything else is the path of a state dict. They must fit the whole classification network.
        levels: Which feature maps, counted from the stem (0). 1 to 4 have strides 4 to 32 in a ResNet.
        pyramid_channels: Width of the pyramid's maps.
        extra_level: Whether the proposal network gets one more level, with twice the last stride.
        frozen_stages: The stem and so many stages behind it do not learn (1 in mmdetection); 0 is the stem alone, None
            freezes nothing.
        freeze_batch_norm: Whether the backbone's batch norm keeps its running statistics in training too; its scale
            and shift still learn where the stage is not frozen. Switch it off when training from scratch.
        backbone_options: Further arguments of `timm.create_model`.
        classes: Number of classes besides background; None asks the data, in `prepare`.
        anchors: Boxes from which proposals start; None: the recipe's.
        proposals: The proposal network's settings; None: the recipe's.
        regions: The settings of the heads on regions; None: the recipe's.
        backbone_learning_rate_factor: How much faster than the rest the backbone learns.
        mean: Of the colour channels, subtracted after scaling to [0, 1]; None takes what the backbone was trained with.
        std: Of the colour channels, by which they are then divided; None as above.

    Raises:
        ValueError: If a value is out of range, the backbone is unknown or gives no such maps, or weights do not fit;
            and other errors as `harness.data.backbones.build_backbone`.

    Source: Ren et al. 2015, arXiv:1506.01497; Lin et al. 2017, arXiv:1612.03144; set up as in Rolinek et al. 2020,
    section 5.2.
    """

    task = "detection"
    takes_no_chunks = "a detector pads pictures to the largest of the batch, and draws regions of all of them in turn"
    draws_for_all = True  # of several processes: see `harness.train.step.Step.seed` and `heads.Sampler`
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        weights: str | Path = "hub",
        levels: Sequence[int] = (1, 2, 3, 4),
        pyramid_channels: int = 256,
        extra_level: bool = True,
        frozen_stages: int | None = 1,
        freeze_batch_norm: bool = True,
        backbone_options: Mapping[str, Any] | None = None,
        classes: int | None = None,
        anchors: AnchorSettings | None = None,
        proposals: ProposalSettings | None = None,
        regions: RegionSettings | None = None,
        backbone_learning_rate_factor: float = 1.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if classes is not None and classes < 1:
            raise ValueError(f"classes must be at least 1, background not counted, got {classes}")
        if not backbone_learning_rate_factor > 0:  # also refuses nan
            raise ValueError(f"backbone_learning_rate_factor must be > 0, got {backbone_learning_rate_factor}")
        self.backbone = TimmPyramid(
            backbone, levels, pyramid_channels, extra_level, weights, frozen_stages, freeze_batch_norm, backbone_options
        )
        grid = Anchors(self.backbone.strides, anchors or AnchorSettings())
        self.proposals = ProposalNetwork(pyramid_channels, grid, proposals or ProposalSettings())
        self.regions = RegionHeads(pyramid_channels, self.backbone.pooled, regions or RegionSettings())
        self.backbone_learning_rate_factor = backbone_learning_rate_factor
        register_colours(self, self.backbone.body, mean, std)
        self.classes: int | None = None
        if classes is not None:
            self._build(classes)

    def prepare(self, data: _HasClasses) -> None:
        """Learns how many classes there are from `data.classes`, their number or their names.

        To be called before the optimizer is built.

        Raises:
            ValueError: If the model was built for another number.
        """
        classes = data.classes if isinstance(data.classes, int) else len(data.classes)
        if self.classes is None:
            self._build(classes)
        elif self.classes != classes:
            raise ValueError(f"the model has {self.classes} classes and the data {classes}; set model.classes=null")

    def _build(self, classes: int) -> None:
        self.classes = classes
        self.regions.build_outputs(classes)

    def forward(self, batch: Mapping[str, Any]) -> Detected | Detections:
        """What the losses need in training mode, detections otherwise.

        Args:
            batch: `"images"`, a list of uint8 (3, height, width), resized already, of any sizes; in training
                `"targets"`, for every image `boxes` float32 (objects, 4) as x1, y1, x2, y2 in pixels of the resized
                image and `labels` int64 (objects,) from 1, where `objects` may be 0; otherwise optionally `"scales"`,
                float32 (images, 2): how much larger than the original the image is, horizontally and vertically.

        Returns:
            In training mode `Detected`; otherwise for every image `boxes` in pixels of the original, `scores` and
            `labels` (detections,), best first.

        Raises:
            ValueError: If shapes, types or labels are not as above, or a box is empty.
            RuntimeError: If the number of classes is not known yet.
        """
        if self.classes is None:
            raise RuntimeError("the detector needs the number of classes: give classes, or call prepare(data) first")
        padding = PADDING in batch
        self.proposals.fg_bg_sampler.padding = self.regions.fg_bg_sampler.padding = padding
        images = self._batched(batch["images"], padding)
        targets = self._checked(batch) if self.training else None
        maps = self.backbone(images.tensors)
        proposals, losses = self.proposals(images, maps, targets)
        padded = (int(images.tensors.shape[2]), int(images.tensors.shape[3]))
        found: Any = self.regions(maps, proposals, images.image_sizes, targets, padded)
        if self.training:
            return Detected._make((*found, *losses["loss_objectness"], losses["loss_rpn_box_reg"]))
        if "scales" in batch:
            for image, scale in zip(found, batch["scales"].to(self.mean), strict=True):
                image["boxes"] = image["boxes"] / scale.repeat(2)
        return found  # type: ignore[no-any-return]

    def without_data(self) -> dict[str, Any]:
        """The settings by which it is built again when its weights are at hand, and no other file."""
        return {"weights": "none", "classes": self.classes, **colours(self)}

    def _batched(self, images: Sequence[Tensor], padding: bool = False) -> ImageList:
        """The images, normalised, at the top left of one float tensor that is zero elsewhere.

        In training it is as large as the images of all processes need, because the padding has anchors too.
        """
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
                raise ValueError(
                    f'batch["images"] must be uint8 (3, height, width) each, got {image.dtype} {tuple(image.shape)}'
                )
        if not images:
            raise ValueError('batch["images"] is empty')
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        multiple = max(PADDED_TO, self.backbone.strides[len(self.backbone.pooled) - 1])
        everyone = distributed.gather_objects([] if padding else sizes) if self.training else [sizes]
        height, width = (-(-max(sides) // multiple) * multiple for sides in zip(*chain(*everyone), strict=True))
        padded = self.mean.new_zeros(len(images), 3, height, width)
        for place, image in zip(padded, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = (image.to(self.mean) / 255 - self.mean) / self.std
        return ImageList(padded, sizes)

    def _checked(self, batch: Mapping[str, Any]) -> list[dict[str, Tensor]]:
        """The targets, if they are ones to train on."""
        targets: list[dict[str, Tensor]] = batch["targets"]
        if len(targets) != len(batch["images"]):
            raise ValueError(f"got {len(targets)} targets for {len(batch['images'])} images; give one each")
        for target in targets:
            boxes, labels = target["boxes"], target["labels"]
            if boxes.shape != (len(labels), 4) or boxes.dtype != torch.float32 or labels.dtype != torch.int64:
                raise ValueError(
                    "targets must be float32 boxes (objects, 4) and int64 labels (objects,), got "
                    f"{boxes.dtype} {tuple(boxes.shape)} and {labels.dtype} {tuple(labels.shape)}"
                )
        # all images at once, because on a GPU every look at a number waits for it
        boxes, labels = (torch.cat([target[name] for target in targets]) for name in ("boxes", "labels"))
        if not bool((boxes[:, 2:] > boxes[:, :2]).all()):
            raise ValueError("a box of the batch is inverted or empty; boxes are x1, y1, x2, y2 with x2 > x1, y2 > y1")
        if not bool(((labels >= 1) & (labels <= (self.classes or 0))).all()):
            raise ValueError(
                f"labels must be 1 to {self.classes}, 0 being background, got {sorted(set(labels.tolist()))}"
            )
        return targets

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone and all the rest, each with its learning-rate factor, for the optimizer."""
        backbone = list(self.backbone.body.parameters())
        own = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in own]
        return [
            {"params": backbone, "name": "backbone", "learning_rate_factor": self.backbone_learning_rate_factor},
            {"params": rest, "name": "detector", "learning_rate_factor": 1.0},
        ]
