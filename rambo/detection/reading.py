"""Pictures for a detector, whose boxes are brought back to the original; see `harness.data.reading`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.data.loading import Batch
from harness.data.reading import Entry, Images
from rambo.detection.transforms import Transform, apply


def scaled(transform: Transform, original: Tensor, boxes: Tensor, labels: Tensor) -> Batch:
    """A picture and its target, transformed, and by how much the size changed, horizontally and vertically."""
    image, target = apply(transform, original, boxes, labels)
    scale = (image.shape[2] / original.shape[2], image.shape[1] / original.shape[1])
    return {"image": image, "target": target, "scale": scale}


class ScaledImages(Images):
    """Reads pictures as evaluation did.

    Args:
        transform: See `rambo.detection.transforms`.
        upright: Whether pictures are turned as their EXIF orientation says.
    """

    def __init__(self, transform: Transform, upright: bool = False) -> None:
        super().__init__(upright=upright)
        self.boxed = transform

    def read(self, entry: Entry) -> Batch:
        """The sample of one picture, without objects."""
        return scaled(self.boxed, self.picture(entry), torch.empty(0, 4), torch.empty(0, dtype=torch.int64))

    @staticmethod
    def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
        """Pictures that differ in size, `images`, and how much larger they are than the originals, `scales`."""
        scales = torch.tensor([sample["scale"] for sample in samples], dtype=torch.float32)
        return {"images": [sample["image"] for sample in samples], "scales": scales}
