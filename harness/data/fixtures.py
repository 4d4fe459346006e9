"""Stand-in data: a tiny copy of a data set's layout, written beside where the real data belong."""

from __future__ import annotations

import functools
import math
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness import disk

VERSION = "2"  # raise it when any layout changes, so that old copies are replaced


def stand_in(write: Callable[[Path], None]) -> Callable[[Path], Path]:
    """Makes of a function that fills a folder one that takes the folder of the real data; see `beside`."""

    @functools.wraps(write)
    def write_beside(root: Path) -> Path:
        return beside(root, write)

    return write_beside


def beside(root: Path, write: Callable[[Path], None]) -> Path:
    """Lets `write` fill the folder `<root>_fixture`, unless it is there already; safe with any number of processes."""
    folder = root.with_name(f"{root.name}_fixture")
    stamp = folder / ".fixture"

    def ready() -> bool:
        return stamp.is_file() and stamp.read_text() == VERSION

    if ready():
        return folder
    if folder.exists() and not stamp.is_file():
        raise FileExistsError(f"{folder} is in the way of stand-in data: it is not ours, so move it")
    building = root.with_name(f".{root.name}_fixture.{uuid.uuid4().hex}")
    try:
        with disk.named(folder):
            building.mkdir(parents=True)
            write(building)
            (building / ".fixture").write_text(VERSION)
            if stamp.is_file() and not ready():  # an older version
                shutil.rmtree(folder)
            os.rename(building, folder)
    except OSError:
        if not ready():  # else the copy of a faster process is there, which is as good
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def stripes(
    chance: np.random.Generator, angle: float, waves: float, front: Any, back: Any, height: int, width: int
) -> NDArray[np.float64]:
    """Stripes of two colours at a random place, with noise, (height, width, 3), 0 to 255 and a bit beyond."""
    y, x = np.mgrid[0:height, 0:width] / height
    wave = np.sin(2 * math.pi * waves * (x * math.cos(angle) + y * math.sin(angle)) + chance.uniform(0, 2 * math.pi))
    share = 0.5 + 0.5 * np.tanh(3 * wave)[..., None]
    pixels: NDArray[np.float64] = share * front + (1 - share) * back + chance.normal(0, 12, size=(height, width, 3))
    return pixels


def save(image: Image.Image, path: Path, gray: bool = False) -> None:
    """Saves a picture as JPEG, in a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image.convert("L") if gray else image).save(path, format="JPEG", quality=90)
