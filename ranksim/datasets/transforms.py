"""From a decoded picture to what the network sees: modules on uint8 (3, height, width), random ones drawing from torch.

Each has `prepare`, its deterministic and idempotent first step; the outcome of that is what an image cache keeps, and
`prepare.least` says how large a picture must be decoded for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
import torchvision.transforms.v2.functional as vision
from torch import Tensor, nn


class Resize(nn.Module):
    """Makes every picture square, antialiased bilinear, letting the aspect go, as evaluation does.

    Args:
        size: Pixels of each side.

    Source: Yang et al. 2021 (DIR), official code.
    """

    def __init__(self, size: int = 224) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        self.size = size

    @property
    def prepare(self) -> nn.Module:
        """All of it is deterministic."""
        return self

    def forward(self, image: Tensor) -> Tensor:
        """The resized picture, (3, size, size)."""
        resized: Tensor = vision.resize(image, [self.size, self.size], antialias=True)
        return resized

    def least(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of a picture that are enough, as it is only made smaller."""
        return self.size, self.size

    def extra_repr(self) -> str:
        """Part of an image cache's key."""
        return f"{self.size}, antialiased bilinear"


class PaddedCrop(nn.Module):
    """Resize, a random shift that uncovers black, and a random horizontal flip: the augmentation of the age data sets.

    Args:
        size: Pixels of each side.
        padding: Largest shift either way in pixels.
        flip: Probability of a horizontal flip; 0 where left and right matter to the target.

    Source: Yang et al. 2021 (DIR) and Gong et al. 2022, official code (224 pixels, padding 16, flip 0.5).
    """

    def __init__(self, size: int = 224, padding: int = 16, flip: float = 0.5) -> None:
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding must be at least 0 pixels, got {padding}")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability, 0 to 1, got {flip}")
        self.size, self.padding, self.flip = size, padding, flip
        self.prepare = Resize(size)

    def forward(self, image: Tensor) -> Tensor:
        """The picture shifted and perhaps mirrored, (3, size, size)."""
        padded = functional.pad(self.prepare(image), [self.padding] * 4)
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        image = padded[..., top : top + self.size, left : left + self.size]
        return image.flip(-1) if float(torch.rand(())) < self.flip else image
