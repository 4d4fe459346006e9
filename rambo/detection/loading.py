"""The data set that torch's loader reads detection samples from, and how samples become a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from harness.data.images import seeded_draws
from harness.data.loading import Batch
from rambo.detection.records import AnnotatedImages
from rambo.detection.transforms import Transform, apply

GroundTruth = dict[str, Tensor]


class DetectionDataset(Dataset[dict[str, Any]]):
    """Images with boxes, for torch's loader.

    A training set is indexed by (epoch, index) and draws its augmentation from (seed, epoch, index), in whatever
    process it is loaded; the global random generator is left as it was. An evaluation set is indexed by index.

    Args:
        images: The images and their objects.
        transform: From picture and target to picture and target, see `rambo.detection.transforms`.
        seed: Seed of the augmentation.
        with_difficult: Whether objects that are marked as difficult are among the targets. The ground truth always has
            them, with their mark.
    """

    def __init__(
        self, images: AnnotatedImages, transform: Transform, seed: int = 0, with_difficult: bool = False
    ) -> None:
        self.images, self.transform, self.seed, self.with_difficult = images, transform, seed, with_difficult
        self.classes = images.classes

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ground_truth(self) -> list[GroundTruth]:
        """For each image, in order: "boxes" float32 (objects, 4) in pixels of the original, "labels", "difficult"."""
        columns = zip(self.images.boxes, self.images.labels, self.images.difficult, strict=True)
        return [{"boxes": boxes, "labels": labels, "difficult": difficult} for boxes, labels, difficult in columns]

    def image(self, index: int) -> Tensor:
        """The original picture at `index`: uint8 (3, height, width)."""
        return self.images.load(index)

    def target(self, index: int) -> tuple[Tensor, Tensor]:
        """The boxes to be learnt, in pixels of the original, and their labels."""
        boxes, labels = self.images.boxes[index], self.images.labels[index]
        if self.with_difficult:
            return boxes, labels
        easy = ~self.images.difficult[index]
        return boxes[easy], labels[easy]

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(key, tuple):
            epoch, index = key
            with seeded_draws(self.seed, epoch, index):
                image, target = apply(self.transform, self.image(index), *self.target(index))
            return {"image": image, "target": target, "index": index}
        original = self.image(key)
        image, target = apply(self.transform, original, *self.target(key))
        scale = (image.shape[2] / original.shape[2], image.shape[1] / original.shape[1])
        return {"image": image, "target": target, "index": key, "scale": scale}


def collate(samples: list[Mapping[str, Any]]) -> Batch:
    """A batch of pictures that differ in size.

    Returns:
        "images": list of uint8 (3, h, w); "targets": list of {"boxes" float32 (objects, 4), "labels" int64 (objects,)}
        in pixels of those; "index" int64 (n,); when evaluating also "scales" float32 (n, 2), new size over original
        size, horizontally and vertically.
    """
    batch: Batch = {
        "images": [sample["image"] for sample in samples],
        "targets": [sample["target"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
    }
    if "scale" in samples[0]:
        batch["scales"] = torch.tensor([sample["scale"] for sample in samples], dtype=torch.float32)
    return batch
