"""From a decoded picture to what the network sees: modules on uint8 (3, height, width), random ones drawing from torch.

Each begins with `prepare`, a deterministic and idempotent step; its outcome is what an image cache keeps, and of the
size that it brings pictures to, `prepare.least` says how large they must be decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil

import torch
import torch.nn.functional as functional
import torchvision.transforms.v2.functional as vision
from torch import Tensor, nn


class Resize(nn.Module):
    """Brings a picture to one size, with antialiased bilinear interpolation.

    Args:
        size: Pixels. None leaves every picture as it is.
        mode: "squash" makes it size x size and lets the aspect go, as "resize to 256x256" reads in the paper;
            "shorter" brings the shorter side to `size` and keeps the aspect, as most other code does.
    """

    def __init__(self, size: int | None, mode: str = "squash") -> None:
        super().__init__()
        if size is not None and size < 1:
            raise ValueError(f"resize must be at least 1 pixel or null, got {size}")
        if mode not in ("squash", "shorter"):
            raise ValueError(f"resize_mode must be one of squash, shorter, got {mode!r}")
        self.size, self.mode = size, mode

    def forward(self, image: Tensor) -> Tensor:
        """The resized picture, (3, size, size) or with the shorter side at `size`."""
        if self.size is None:
            return image
        size = [self.size, self.size] if self.mode == "squash" else [self.size]
        resized: Tensor = vision.resize(image, size, antialias=True)
        return resized

    def least(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of a picture that are enough, as it is only made smaller."""
        if self.size is None:
            return height, width
        shorter = self.size / min(height, width)
        return (self.size, self.size) if self.mode == "squash" else (ceil(height * shorter), ceil(width * shorter))

    def extra_repr(self) -> str:
        """Part of an image cache's key."""
        return f"{self.size}, {self.mode}, antialiased bilinear"


class CentreCrop(nn.Module):
    """Resize and centre crop: the same picture every time.

    Args:
        size: Side of the crop in pixels.
        resize: Size before the crop; None crops from the picture as it is.
        resize_mode: "squash" or "shorter", see `Resize`.

    Source: RaMBO, section 5 (resize to 256x256, centre crop 224x224).
    """

    def __init__(self, size: int = 224, resize: int | None = 256, resize_mode: str = "squash") -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        if resize is not None and resize < size:
            raise ValueError(f"resize must be at least the crop's size {size}, got {resize}")
        self.size = size
        self.prepare = Resize(resize, resize_mode)

    def forward(self, image: Tensor) -> Tensor:
        """The middle, (3, size, size)."""
        cropped: Tensor = vision.center_crop(self.prepare(image), [self.size, self.size])
        return cropped


class RandomCrop(CentreCrop):
    """Resize, random crop, random horizontal flip.

    Args:
        size, resize, resize_mode: As in `CentreCrop`.
        crop: "random" cuts a size x size window, as the paper words it; "random_resized" cuts a window of random area
            and aspect and brings it to size x size, as the pipeline that the paper builds on does.
        scale: Smallest and largest share of the area for "random_resized".
        ratio: Smallest and largest aspect for "random_resized".
        flip: Probability of a horizontal flip; 0 for characters.

    Source: RaMBO, section 5 (resize to 256x256, random crop to 224x224, random horizontal flip).
    """

    def __init__(
        self,
        size: int = 224,
        resize: int | None = 256,
        resize_mode: str = "squash",
        crop: str = "random",
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
    ) -> None:
        super().__init__(size, resize, resize_mode)
        if crop not in ("random", "random_resized"):
            raise ValueError(f"crop must be random or random_resized, got {crop!r}")
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(f"scale must be two shares of the area, 0 < smallest <= largest <= 1, got {scale}")
        if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"ratio must be two aspects, 0 < smallest <= largest, got {ratio}")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability, 0 to 1, got {flip}")
        self.crop, self.scale, self.ratio, self.flip = crop, tuple(scale), tuple(ratio), flip

    def forward(self, image: Tensor) -> Tensor:
        """A random crop, (3, size, size); a ValueError if the picture is smaller than that."""
        image = self.prepare(image)
        height, width = image.shape[-2:]
        return self._view((height, width), self._window(height, width), image)

    def plan(self, height: int, width: int) -> tuple[tuple[int, int], Callable[[Tensor], Tensor]]:
        """How large a picture must be decoded for the crop, and what cuts that from it: here the window is drawn."""
        if self.prepare.size is not None or self.crop == "random":
            return self.prepare.least(height, width), self
        window = self._window(height, width)
        least = ceil(self.size * height / window[2]), ceil(self.size * width / window[3])
        return least, partial(self._view, (height, width), window)

    def _window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the next one in a picture."""
        return self._random_window(height, width) if self.crop == "random" else self._window_to_resize(height, width)

    def _view(self, size: tuple[int, int], window: tuple[int, int, int, int], image: Tensor) -> Tensor:
        """The window in a picture of a size, cut from `image`, which may be that picture made smaller."""
        down, right = (now / was for now, was in zip(image.shape[-2:], size, strict=True))
        top, left, height, width = window
        bottom, other = round((top + height) * down), round((left + width) * right)  # never beyond the picture
        top, left = round(top * down), round(left * right)
        height, width = bottom - top, other - left
        if self.crop == "random":
            image = image[..., top : top + height, left : left + width]
        else:
            image = vision.resized_crop(image, top, left, height, width, [self.size, self.size], antialias=True)
        return vision.horizontal_flip(image) if float(torch.rand(())) < self.flip else image

    def _random_window(self, height: int, width: int) -> tuple[int, int, int, int]:
        if height < self.size or width < self.size:
            raise ValueError(
                f"cannot cut {self.size} x {self.size} from a picture of {height} x {width}; give `resize`"
            )
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        return top, left, self.size, self.size

    def _window_to_resize(self, height: int, width: int) -> tuple[int, int, int, int]:
        for _ in range(10):  # a wide window of large area may not fit: draw again, then take the middle
            area = height * width * float(torch.empty(()).uniform_(*self.scale))
            aspect = math.exp(float(torch.empty(()).uniform_(math.log(self.ratio[0]), math.log(self.ratio[1]))))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                return int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ())), h, w
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side


class CharacterWarp(nn.Module):
    """Small random rotation, scale, shear and shift for characters, which must not be mirrored.

    What the moved picture uncovers repeats its border, so it fits dark on light and light on dark alike.

    Args:
        size: Side in pixels; pictures of another size are resized first.
        rotation: Largest rotation either way, in degrees.
        translation: Largest shift either way, as a share of the side.
        scale: Smallest and largest magnification.
        shear: Largest horizontal slant either way, in degrees.
    """

    def __init__(
        self,
        size: int,
        rotation: float = 10.0,
        translation: float = 0.08,
        scale: Sequence[float] = (0.85, 1.15),
        shear: float = 8.0,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        if not 0 <= rotation <= 180:
            raise ValueError(f"rotation must be 0 to 180 degrees, got {rotation}")
        if not 0 <= translation < 1:
            raise ValueError(f"translation must be a share of the side, 0 to 1, got {translation}")
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1]):
            raise ValueError(f"scale must be two magnifications, 0 < smallest <= largest, got {scale}")
        if not 0 <= shear < 90:
            raise ValueError(f"shear must be at least 0 and below 90 degrees, got {shear}")
        self.rotation, self.translation, self.scale, self.shear = rotation, translation, tuple(scale), shear
        self.prepare = Resize(size, "squash")

    def forward(self, image: Tensor) -> Tensor:
        """The picture moved, (3, size, size)."""
        image = self.prepare(image)
        turn, slant, magnify, right, down = torch.rand(5, dtype=torch.float64).tolist()
        angle = math.radians(self.rotation) * (2 * turn - 1)
        lean = math.tan(math.radians(self.shear) * (2 * slant - 1))
        size = 1 / (self.scale[0] + (self.scale[1] - self.scale[0]) * magnify)  # the grid runs from output to input
        cos, sin = size * math.cos(angle), size * math.sin(angle)
        shift = [2 * self.translation * (2 * right - 1), 2 * self.translation * (2 * down - 1)]
        matrix = torch.tensor([[[cos, cos * lean - sin, shift[0]], [sin, sin * lean + cos, shift[1]]]])
        grid = functional.affine_grid(matrix, [1, 1, *image.shape[-2:]], align_corners=False)
        moved = functional.grid_sample(image[None].float(), grid, padding_mode="border", align_corners=False)
        return moved[0].round().to(torch.uint8)
