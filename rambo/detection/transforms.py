"""From a decoded picture and its boxes to what the detector sees.

Any transform of torchvision's v2 may stand here, called with the picture, a `tv_tensors.Image` of uint8, and a dict of
"boxes", a `tv_tensors.BoundingBoxes`, and "labels". Chance must come from torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import RandomHorizontalFlip

Target = dict[str, Any]
Transform = Callable[[Any, Target], tuple[Any, Target]]


def resized(width: int, height: int, shorter: int | None, longer: int | None) -> tuple[int, int]:
    """Width and height after the larger magnification that keeps both limits, rounded half up.

    Source: mmdetection, `keep_ratio` with a scale of (1000, 600).
    """
    limits = [limit / side for limit, side in ((shorter, min(width, height)), (longer, max(width, height))) if limit]
    scale = min(limits, default=1.0)
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


class Resize(nn.Module):
    """Brings pictures to about one size, keeping their aspect; boxes go along.

    Args:
        shorter: Pixels that the shorter side gets, unless the longer one would get too long; null for no such limit.
        longer: Pixels that the longer side has at most; null for no such limit. Both null: no resizing.

    Source: Rolinek et al. 2020 use mmdetection's recipe for Pascal VOC, which resizes to (1000, 600).
    """

    def __init__(self, shorter: int | None = 600, longer: int | None = 1000) -> None:
        super().__init__()
        for name, limit in (("shorter", shorter), ("longer", longer)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1 pixel or null, got {limit}")
        if shorter is not None and longer is not None and longer < shorter:
            raise ValueError(f"longer must be at least shorter, {shorter}, got {longer}")
        self.shorter, self.longer = shorter, longer

    def forward(self, image: Any, target: Target) -> tuple[Any, Target]:
        """The picture (3, h, w) and its target at the new size."""
        height, width = image.shape[-2:]
        new_width, new_height = resized(width, height, self.shorter, self.longer)
        if (new_width, new_height) == (width, height):
            return image, target
        size = [new_height, new_width]
        return vision.resize(image, size, antialias=True), {**target, "boxes": vision.resize(target["boxes"], size)}


class ResizeAndFlip(Resize):
    """Resizes, and mirrors at random.

    Args:
        flip: Probability of a horizontal flip; 0 where left and right matter.

    Source: mmdetection's recipe for Pascal VOC, which has no other augmentation.
    """

    def __init__(self, shorter: int | None = 600, longer: int | None = 1000, flip: float = 0.5) -> None:
        super().__init__(shorter, longer)
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability, 0 to 1, got {flip}")
        self.flip = RandomHorizontalFlip(flip)

    def forward(self, image: Any, target: Target) -> tuple[Any, Target]:
        """The picture (3, h, w) and its target at the new size, perhaps mirrored."""
        flipped: tuple[Any, Target] = self.flip(*super().forward(image, target))
        return flipped


def apply(transform: Transform, picture: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Target]:
    """Applies any v2 transform and tidies up behind it: boxes are cut at the border of the new picture.

    Takes and returns plain tensors: the picture, uint8 (3, height, width), and for each object its box, float32
    (objects, 4) as left, top, right, bottom, and its label; boxes with a side below one pixel are left out.

    Raises:
        ValueError: If the transform returns something else than a picture of uint8 and its target.
    """
    canvas = tuple(picture.shape[-2:])
    framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)
    image, target = transform(tv_tensors.Image(picture), {"boxes": framed, "labels": labels})
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        found = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"a transform must return a picture of torch.uint8 (3, height, width), and {type(transform).__name__}"
            f" returned {found}; the model converts and normalises, so leave that out"
        )
    limits = torch.tensor([image.shape[2], image.shape[1]] * 2, dtype=torch.float32)
    boxes = target["boxes"].as_subclass(Tensor).float().reshape(-1, 4).clamp(min=0).minimum(limits)
    large = (boxes[:, 2:] - boxes[:, :2] >= 1).all(dim=1)
    tidy = {"boxes": boxes[large].contiguous(), "labels": target["labels"].as_subclass(Tensor)[large]}
    return image.as_subclass(Tensor).contiguous(), tidy
