"""Scenes: rendered shapes with boxes, a detection data set that needs no download."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from harness.data.fixtures import beside
from rambo.detection.data import VOCStyle
from rambo.detection.fixture import write_sets
from rambo.detection.rendering import SHAPES, VERSION, Look
from rambo.detection.transforms import Resize, ResizeAndFlip

_FOLDER = "VOCdevkit/VOC2007"


class Scenes(VOCStyle):
    """RENDERED scenes with circles, crosses, squares and triangles: a toy, which says nothing of photographs.

    They are written below `root` in the layout of Pascal VOC when they are first asked for, in a folder whose name says
    which they are, and read from there ever after. The same arguments give the same scenes, whatever `seed` is.

    Args:
        root: Where to write them.
        train_images: Number of scenes to train on.
        validation_images: Number of scenes to choose a checkpoint on; 0: none.
        test_images: Number of scenes to test on.
        image_size: Side of a scene in pixels.
        rotation: Shapes are turned by up to so many degrees either way: 17 is easy, 180 is hard.
        background: Contrast of the background, 0 to 1: 0.3 is mild.
        scene_seed: Another one draws other scenes; results are comparable on the same scenes only.
        shared: See `VOCStyle`; unless other transforms are given, nothing is resized.

    Raises:
        ValueError: If an argument makes no sense.
    """

    title = "scenes"
    remedy = "remove that folder, and it is written anew"
    default_sets = {  # noqa: RUF012
        "train": [[_FOLDER, "train"]],
        "validation": [[_FOLDER, "val"]],
        "test": [[_FOLDER, "test"]],
    }
    default_classes = SHAPES

    def __init__(
        self,
        root: str | Path,
        *,
        train_images: int = 400,
        validation_images: int = 100,
        test_images: int = 200,
        image_size: int = 160,
        rotation: float = 17.0,
        background: float = 0.3,
        scene_seed: int = 0,
        **shared: Any,
    ) -> None:
        counts = {"train": train_images, "val": validation_images, "test": test_images}
        for name, count in counts.items():
            if count < (0 if name == "val" else 1):
                raise ValueError(f"scenes need images to train and to test on; got {count} for {name}")
        look = Look(width=image_size, height=image_size, rotation=rotation, background=background)
        if shared.get("fixture"):
            counts = {name: min(count, 16 if name == "train" else 8) for name, count in counts.items()}
        if not validation_images:
            shared.setdefault("validation", [])
        shared = {"train_transform": ResizeAndFlip(None, None), "test_transform": Resize(None, None), **shared}
        which = hashlib.sha256(f"{VERSION} {counts} {look} {scene_seed}".encode()).hexdigest()[:10]
        sets = {name: count for name, count in counts.items() if count}
        written = beside(  # unless it is there; safe with any number of processes
            Path(root) / f"{image_size}px_{which}",
            lambda folder: write_sets(folder / _FOLDER, sets, SHAPES, look, scene_seed),
        )
        super().__init__(written, **shared)

    def write_fixture(self, root: Path) -> Path:
        """Nothing more to write: a fixture is few scenes."""
        return root
