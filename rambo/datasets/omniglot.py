"""Omniglot: handwritten characters of eight alphabets, a small benchmark of real images."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor

from harness.data.download import RemoteFile
from harness.data.images import decode
from rambo.datasets.fixture import write_omniglot
from rambo.datasets.records import Records, numbered
from rambo.datasets.retrieval import RetrievalData

_HOME = "https://raw.githubusercontent.com/brendenlake/omniglot/32aee47094f15296299b761dcaa01400b90c60d5/python"
_SMALL = "images_background_small"
TRAIN = ("Korean", "Japanese_(katakana)", "Greek", "Balinese")


class Omniglot(RetrievalData):
    """Omniglot's two small background sets, merged: 242 characters of 8 alphabets, each drawn once by 20 people.

    Classes are characters, super-classes are alphabets, and no alphabet is in both halves: training on Korean,
    Katakana, Greek and Balinese (135 classes, 2,700 images), test on Sanskrit, Early Aramaic, Tagalog and Latin
    (107 classes, 2,140 images), where each image queries all others. This split is ours; Omniglot was published for
    one-shot classification. The originals are 105 x 105, strokes black on white; they are resized once and held in
    memory. Both archives are read as they are; unpacked folders of the same names will do.

    Args:
        root: Folder with the two archives, or with what they unpack to.
        image_size: Side of the images in pixels.
        invert: Whether to make the strokes white on black instead.

    Source: Lake, Salakhutdinov and Tenenbaum 2015; MIT licence.
    """

    title = "Omniglot"
    remedy = "run: python scripts/download.py omniglot"
    downloads = ("omniglot",)
    files = tuple(
        RemoteFile(f"{source}.zip", urls=(f"{_HOME}/{source}.zip",), size=size, sha256=sha256)
        for source, size, sha256 in (
            (f"{_SMALL}1", 1_319_022, "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"),
            (f"{_SMALL}2", 1_580_917, "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f"),
        )
    )
    expected = {  # noqa: RUF012
        "train": {"images": 2700, "classes": 135, "super_classes": 4},
        "test": {"images": 2140, "classes": 107, "super_classes": 4},
    }
    write_fixture = staticmethod(write_omniglot)

    def __init__(self, root: str | Path, image_size: int = 48, invert: bool = False, **shared: Any) -> None:
        if not 8 <= image_size <= 105:
            raise ValueError(f"image_size must be 8 to 105, the size of the originals, got {image_size}")
        self.image_size, self.invert = image_size, invert
        super().__init__(root, **shared)

    def read(self, root: Path) -> dict[str, Records]:
        """The two groups of alphabets."""
        drawings = dict(self._files(root))  # what is in both is the same
        names = sorted(name for name in drawings if "/._" not in name)
        characters, labels = numbered([name.rsplit("/", 1)[0] for name in names])
        _, super_labels = numbered([name.split("/")[0] for name in names])
        everything = Records(
            names=names,
            labels=labels,
            super_labels=super_labels,
            pixels=torch.stack([self._pixels(name, drawings[name]) for name in names]),
            class_names={number: character.replace("/", " ") for number, character in enumerate(characters)},
            marks=[hashlib.sha256(drawings[name]).hexdigest() for name in names],
        )
        return everything.parted(["train" if name.split("/")[0] in TRAIN else "test" for name in names])

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As usual, inverted if these are."""
        found = super().for_use(settings)
        found["reader"]["invert"] = self.invert
        return found

    def _files(self, root: Path) -> Iterator[tuple[str, bytes]]:
        """("<alphabet>/<character>/<file>.png", its bytes) of both archives."""
        for file in self.files:
            folder = root / Path(file.name).stem
            if folder.is_dir() and not (root / file.name).is_file():
                for path in folder.rglob("*.png"):
                    yield path.relative_to(folder).as_posix(), path.read_bytes()
                continue
            with zipfile.ZipFile(self.published(file)) as opened:
                for name in opened.namelist():
                    if name.endswith(".png"):
                        yield name.split("/", 1)[1], opened.read(name)

    def _pixels(self, name: str, content: bytes) -> Tensor:
        """uint8 (1, image_size, image_size)."""
        image: Tensor = vision.resize(decode(Path(name), content=content)[:1], [self.image_size] * 2, antialias=True)
        return 255 - image if self.invert else image
