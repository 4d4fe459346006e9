"""The data set that torch's loader reads detection samples from, and how samples become a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.data.dataset import PartDataset
from harness.data.images import ImageCache
from harness.data.loading import Batch
from rambo.detection.records import AnnotatedImages
from rambo.detection.transforms import Transform, apply

GroundTruth = dict[str, Tensor]


class DetectionDataset(PartDataset[AnnotatedImages]):
    """One part of a data set, with boxes.

    Args:
        rows: The images and their objects.
        transform: From picture and target to picture and target, see `rambo.detection.transforms`.
        seed: Seed of the augmentation.
        with_difficult: Whether objects that are marked as difficult are among the targets. The ground truth always has
            them, with their mark.
    """

    def __init__(
        self,
        rows: AnnotatedImages,
        transform: Transform | None,
        seed: int = 0,
        with_difficult: bool = False,
        cache: ImageCache | None = None,
    ) -> None:
        super().__init__(rows, transform, seed, cache)
        self.with_difficult = with_difficult
        self.classes = rows.classes

    @property
    def ground_truth(self) -> list[GroundTruth]:
        """For each image, in order: "boxes" float32 (objects, 4) in pixels of the original, "labels", "difficult"."""
        return [self.rows.entries(index) for index in range(len(self))]

    def image(self, index: int) -> Tensor:
        """The original picture at `index`: uint8 (3, height, width)."""
        return self.rows.load(index)

    def sample(self, index: int) -> Batch:
        """Picture and target, transformed, and by how much the size changed, horizontally and vertically."""
        original, truth = self.image(index), self.rows.entries(index)
        learnt = torch.ones_like(truth["difficult"]) if self.with_difficult else ~truth["difficult"]
        image, target = apply(self.transform, original, truth["boxes"][learnt], truth["labels"][learnt])
        scale = (image.shape[2] / original.shape[2], image.shape[1] / original.shape[1])
        return {"image": image, "target": target, "index": index, "scale": scale}


def collate(samples: list[Mapping[str, Any]]) -> Batch:
    """A batch of pictures that differ in size.

    Returns:
        "images": list of uint8 (3, h, w); "targets": list of {"boxes" float32 (objects, 4), "labels" int64 (objects,)}
        in pixels of those; "index" int64 (n,); "scales" float32 (n, 2), new size over original size, horizontally and
        vertically, which means nothing where the transform cuts.
    """
    return {
        "images": [sample["image"] for sample in samples],
        "targets": [sample["target"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
        "scales": torch.tensor([sample["scale"] for sample in samples], dtype=torch.float32),
    }
