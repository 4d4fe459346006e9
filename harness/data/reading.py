"""From what a user hands over to the batches that a model takes, without the data set that it was trained on.

A reader has `listed(inputs)`, a sequence with an entry for each sample; `read(entry)`, that sample; and
`collate(samples)`, their batch. A data set says in `for_use` which reader stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms.v2.functional as vision
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from harness.data.images import Crop, cropped, decode, rgb
from harness.data.loading import Batch

Picture = str | Path | Image.Image | Tensor
"""A file, an image of Pillow, or a tensor (1 or 3, height, width) of uint8, or of floating point from 0 to 1."""
Entry = Picture | tuple[Picture, Crop]
"""A picture, or a pair of it and what of it is meant."""


class Images:
    """Reads pictures as evaluation did.

    Args:
        transform: From uint8 (3, height, width) to uint8 (3, h, w), the same for all; None leaves pictures as they are.
        upright: Whether pictures are turned as their EXIF orientation says.
        size: Height and width to which pictures are brought first, where the data held them in memory at that size.
        invert: Whether dark becomes light.
    """

    def __init__(
        self,
        transform: Callable[..., Any] | None = None,
        upright: bool = False,
        size: Sequence[int] | None = None,
        invert: bool = False,
    ) -> None:
        self.transform, self.upright, self.invert = transform, upright, invert
        self.size = None if size is None else list(size)

    def listed(self, inputs: Picture | Iterable[Entry]) -> Sequence[Entry]:
        """The pictures, or the only one."""
        if isinstance(inputs, str | Path | Image.Image):
            return [inputs]
        return inputs if isinstance(inputs, Sequence) else list(inputs)

    def described(self) -> str:
        """What it does, for those who do it without this class."""
        size = f"resized to {self.size[0]} x {self.size[1]} (height x width)" if self.size else ""
        steps = [
            "turned as their EXIF orientation says" if self.upright else "",
            f"where they have another size, {size} by antialiased bilinear interpolation" if size else "",
            "inverted, 255 - value" if self.invert else "",
            "" if self.transform is None else "through the transform that model.json names in reader.transform",
        ]
        said = "; ".join(filter(None, steps)) or "as they are"
        return (
            "Pictures in RGB, whole numbers 0 to 255, channels first (3, height, width), brought to one size in this "
            f"order: {said}. The network itself divides by 255 and normalises the colours."
        )

    def picture(self, entry: Entry) -> Tensor:
        """The picture before any transform: uint8 (3, height, width).

        Raises:
            OSError: If a file cannot be read; with its name.
            ValueError: If it is none of what a `Picture` is.
        """
        if isinstance(entry, str | Path):
            if not Path(entry).exists():
                raise FileNotFoundError(f"there is no image {entry}")
            return decode(Path(entry), self.upright)
        if isinstance(entry, tuple) and len(entry) == 2:
            return cropped(self.picture(entry[0]), entry[1], entry[0])
        if isinstance(entry, Image.Image):
            return rgb(entry, self.upright)
        if not isinstance(entry, Tensor):
            raise ValueError(f"a picture is a path, an image of Pillow or a tensor, got {type(entry).__name__}")
        if entry.ndim == 3 and entry.shape[0] in (1, 3):
            if entry.is_floating_point() and bool(((entry >= 0) & (entry <= 1)).all()):
                entry = (entry * 255).round().to(torch.uint8)
            if entry.dtype == torch.uint8:
                return entry.cpu().expand(3, -1, -1)
        raise ValueError(
            "a picture must be (3, height, width), of uint8 or of floating point from 0 to 1, got "
            f"{entry.dtype} {tuple(entry.shape)}"
        )

    def read(self, entry: Entry) -> Batch:
        """The sample of one picture; errors of `picture`."""
        return {"image": self.view(self.picture(entry))}

    def view(self, picture: Tensor) -> Tensor:
        """What the network sees of a picture, uint8 (3, height, width)."""
        if self.size is not None and list(picture.shape[-2:]) != self.size:
            picture = vision.resize(picture, self.size, antialias=True)
        picture = 255 - picture if self.invert else picture
        viewed: Tensor = picture if self.transform is None else self.transform(picture)
        return viewed.contiguous()

    @staticmethod
    def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
        """Their batch; a ValueError says if the transform left them of several sizes."""
        sizes = {tuple(sample["image"].shape[-2:]) for sample in samples}
        if len(sizes) > 1:
            (height, width), (other_height, other_width) = sorted(sizes)[:2]
            raise ValueError(
                f"pictures of one batch must be of one size, got {height} x {width} and {other_height} x {other_width}:"
                " this model was trained without resizing; bring them to one size, or set batch_size=1"
            )
        batch: Batch = default_collate(list(samples))
        return batch
