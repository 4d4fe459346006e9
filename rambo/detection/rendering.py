"""Renders scenes of plain shapes on textured backgrounds, with a box around each: pictures for trials and tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float64]
Circle = tuple[float, float, float]  # x, y, radius
SHAPES = ("circle", "cross", "square", "triangle")
VERSION = 1  # raise it when equal arguments would give other pictures
_FAINT = 0.15  # share of its contrast at which a difficult object is drawn


@dataclass(frozen=True)
class Look:
    """How scenes look.

    Attributes:
        width, height: Pixels.
        objects: Most objects in a scene; the least is 1.
        radius: Smallest and largest radius of an object, as a share of the shorter side.
        rotation: Objects are turned by up to so many degrees either way. 17 is easy; at 180 square, cross and triangle
            are easily confused.
        background: Contrast of the background, 0 to 1; 1 is loud.
        noise: Standard deviation of the noise, in grey levels.
        difficult: Share of objects that are drawn so faintly that they are marked as difficult.
        bars: Most thin bars in a scene, which are no objects.
    """

    width: int = 160
    height: int = 160
    objects: int = 4
    radius: tuple[float, float] = (0.09, 0.22)
    rotation: float = 17.0
    background: float = 0.3
    noise: float = 12.0
    difficult: float = 0.08
    bars: int = 2

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 32:
            raise ValueError(f"scenes must be at least 32 pixels wide and high, got {self.width} x {self.height}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must be 0 to 180 degrees, got {self.rotation}")
        if not 0 <= self.background <= 1:
            raise ValueError(f"background must be a contrast, 0 to 1, got {self.background}")


class Drawn(NamedTuple):
    """An object in a scene; its corners count pixels from 1 and include both ends, as Pascal VOC's do."""

    kind: int
    corners: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


def render(
    look: Look, chance: np.random.Generator, kinds: int = 4, first: int | None = None, special: str = ""
) -> tuple[Image.Image, list[Drawn]]:
    """Draws one scene.

    Args:
        look: How it looks.
        chance: Where every draw comes from.
        kinds: Number of classes. The first four are the plain shapes; those after have a hole, stripes, a spot, halves.
        first: Class of the first object; None draws it like the others.
        special: "empty" for a scene without objects, "difficult" for one whose only object is difficult.

    Returns:
        The picture, and its objects from the lowest to the uppermost.
    """
    grid = Image.fromarray(chance.integers(0, 256, (10, 10, 3), dtype=np.uint8))
    texture = np.asarray(grid.resize((look.width, look.height), Image.Resampling.BICUBIC), dtype=np.float64)
    pixels = 128 + look.background * (texture - 128)
    for _ in range(chance.integers(look.bars + 1)):
        (x, y), (z, w) = (chance.random((2, 2)) * (look.width, look.height)).tolist()
        mask = Image.new("L", (look.width, look.height))
        ImageDraw.Draw(mask).line([(x, y), (z, w)], fill=255, width=int(chance.integers(1, 4)))
        _blend(pixels, np.asarray(mask) / 255.0, chance.uniform(0, 255, 3))
    objects: list[Drawn] = []
    circles: list[Circle] = []
    for number in range({"empty": 0, "difficult": 1}.get(special, int(chance.integers(1, look.objects + 1)))):
        circle = _place(look, chance, circles)
        if circle is None:
            continue
        circles.append(circle)
        kind = int(chance.integers(kinds))
        kind = first if number == 0 and first is not None else kind
        faint = bool(chance.random() < look.difficult) or special == "difficult"
        corners, truncated = _draw_object(pixels, look, chance, kind, circle, faint)
        objects.append(Drawn(kind, corners, truncated, faint))
    pixels += chance.normal(0, look.noise, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), objects


def _place(look: Look, chance: np.random.Generator, others: list[Circle]) -> Circle | None:
    """A circle with little overlap; its centre is inside the picture, the rest need not be."""
    for _ in range(20):
        radius = chance.uniform(*look.radius) * min(look.width, look.height)
        x = chance.uniform(0.4 * radius, look.width - 0.4 * radius)
        y = chance.uniform(0.4 * radius, look.height - 0.4 * radius)
        if all(math.hypot(x - a, y - b) > 0.85 * (radius + other) for a, b, other in others):
            return x, y, radius
    return None


def _draw_object(
    pixels: Floats, look: Look, chance: np.random.Generator, kind: int, circle: Circle, faint: bool
) -> tuple[tuple[int, int, int, int], bool]:
    """Draws an object; returns the corners of what is to be seen of it, and whether the border cuts it."""
    mean = pixels.mean(axis=(0, 1))
    colour = chance.uniform(0, 255, 3)
    while np.abs(colour - mean).sum() < 120:
        colour = chance.uniform(0, 255, 3)
    angle = math.radians(chance.uniform(-look.rotation, look.rotation))
    outline = _outline(SHAPES[kind % 4], circle, angle)
    mask = _filled(outline, look)
    left, top, right, bottom = Image.fromarray(mask > 0.5).getbbox() or (0, 0, 0, 0)
    xs, ys = zip(*outline, strict=True)
    truncated = min(xs) < 0 or min(ys) < 0 or max(xs) > look.width or max(ys) > look.height

    x, y, radius = circle
    spot = _filled(_outline("circle", (x, y, 0.4 * radius), 0), look)
    across = np.add.outer(np.arange(look.height) - y, np.arange(look.width) - x)
    style, strength = kind // 4, _FAINT if faint else 1.0
    if style == 1:
        mask = mask * (1 - spot)
    elif style == 2:
        mask = mask * (np.floor(across * 5 / radius) % 2)
    _blend(pixels, strength * mask, colour)
    if style == 3:
        _blend(pixels, strength * spot, 255 - colour)
    elif style >= 4:
        _blend(pixels, strength * mask * (across > 0), 255 - colour)
    return (left + 1, top + 1, right, bottom), truncated


def _outline(shape: str, circle: Circle, angle: float) -> list[tuple[float, float]]:
    x, y, radius = circle
    if shape == "cross":
        arm, corner = math.hypot(1, 0.3), math.hypot(0.3, 0.3)  # of a cross with arms 2 long and 0.6 wide
        tilt = math.atan2(0.3, 1)
        quarter = [(1, -tilt), (1, tilt), (corner / arm, math.pi / 4)]
        polar = [(share, turn + i * math.pi / 2) for i in range(4) for share, turn in quarter]
    else:
        count, start = {"circle": (48, 0.0), "square": (4, math.pi / 4), "triangle": (3, -math.pi / 2)}[shape]
        polar = [(1.0, start + i * 2 * math.pi / count) for i in range(count)]
    return [
        (x + radius * share * math.cos(turn + angle), y + radius * share * math.sin(turn + angle))
        for share, turn in polar
    ]


def _filled(outline: list[tuple[float, float]], look: Look) -> Floats:
    """How much of each pixel is inside, 0 to 1; shapes are drawn twice as large and reduced, for soft edges."""
    fine = Image.new("L", (2 * look.width, 2 * look.height))
    # Pillow's coordinates are the middles of pixels.
    ImageDraw.Draw(fine).polygon([(2 * x - 0.5, 2 * y - 0.5) for x, y in outline], fill=255)
    return np.asarray(fine.reduce(2), dtype=np.float64) / 255


def _blend(pixels: Floats, share: Floats, colour: Floats) -> None:
    pixels += share[..., None] * (colour - pixels)
