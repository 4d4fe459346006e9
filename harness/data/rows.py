"""The row store under every data set: n samples by name, their pictures, and what is said of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from harness.data.images import Crop, cropped, decode, file_marks


@dataclass(frozen=True)
class Rows:
    """One part of a data set. A kind of data adds its columns, names them in `columns`, and writes the last methods."""

    names: list[str]  # what each sample is called: its image's path below `folder`, or any unique text
    _: KW_ONLY
    folder: Path | None = None  # of the image files, if there are any
    pixels: Tensor | None = None  # uint8 (n, 1 or 3, height, width), for images that are held in memory
    marks: list[str] | None = None  # what tells the file of each image from another, where `pixels` came from files
    upright: bool = False  # whether image files are turned as their EXIF orientation says
    crops: list[Crop | None] | None = None  # what of each image file is looked at; several rows may name one file

    # The attributes with a row for each sample: tensors, lists, mappings of these, or None.
    columns: ClassVar[tuple[str, ...]] = ("names", "pixels", "marks", "crops")

    def __post_init__(self) -> None:
        for what in self.columns:
            column = getattr(self, what)
            for name, rows in column.items() if isinstance(column, Mapping) else [(what, column)]:
                if rows is not None and len(rows) != len(self):
                    raise ValueError(f"{name} must have a row for each of the {len(self)} samples, got {len(rows)}")
        if self.folder is not None and self.pixels is not None:
            raise ValueError("samples have either the folder of their image files or the pixels, not both")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pictured(self) -> bool:
        """Whether the samples are images."""
        return self.folder is not None or self.pixels is not None

    def where(self, chosen: Tensor) -> Self:
        """The samples at which the boolean (n,) `chosen` is true."""
        return replace(self, **{name: _picked(getattr(self, name), chosen) for name in self.columns})

    def parted(self, parts: Sequence[str]) -> dict[str, Self]:
        """The samples of each part, where `parts` says for each sample: train, validation or test."""
        found = [name for name in ("train", "validation", "test") if name in parts]
        return {name: self.where(torch.tensor([part == name for part in parts])) for name in found}

    def keys(self) -> list[str]:
        """What tells each sample from all others: its name, and its crop."""
        return [f"{name} {crop}" if (crop := self.crop(row)) else name for row, name in enumerate(self.names)]

    def crop(self, index: int) -> Crop | None:
        """What of the picture at `index` is looked at; None: all."""
        return None if self.crops is None else self.crops[index]

    def path(self, index: int) -> Path:
        """The image file of the sample at `index`."""
        assert self.folder is not None
        return self.folder / self.names[index]

    def load(self, index: int) -> Tensor:
        """The picture at `index` as uint8 (3, height, width)."""
        if self.pixels is not None:
            return self.pixels[index].expand(3, -1, -1)
        path = self.path(index)
        return cropped(decode(path, self.upright), self.crop(index), path)

    def entries(self, index: int) -> dict[str, Any]:
        """What the sample at `index` brings to its batch, beside its picture."""
        raise NotImplementedError

    def described(self) -> Iterator[object]:
        """What a fingerprint covers beside the files: a line for each item, the first one about the part as a whole."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Counts for the run record."""
        raise NotImplementedError


def fingerprint(parts: Mapping[str, Rows]) -> str:
    """sha256 over which samples are in which part, what is said of them, and what their files hold (see `file_marks`).

    Of images that are drawn rather than read, the pixels do not enter: they follow from the config.
    """
    digest = hashlib.sha256()
    for part, rows in sorted(parts.items()):
        on_disk = rows.pictured and rows.pixels is None
        marks = rows.marks or (file_marks([rows.path(i) for i in range(len(rows))]) if on_disk else [])
        whole, *lines = rows.described()
        for line in (f"{part} {whole}", marks, *lines, *([] if rows.crops is None else [rows.crops])):
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def check_files(parts: Sequence[Rows], title: str, remedy: str, judge: bool = True) -> None:
    """Looks whether every image file is there and not empty, and decodes a few, before anything is trained.

    Without `judge`, every file that is there passes.
    """
    on_disk = [rows for rows in parts if rows.folder is not None]
    lacks = is_lost if judge else lambda path: not os.path.exists(path)
    lost = [name for rows in on_disk for name in rows.names if lacks(os.path.join(str(rows.folder), name))]
    if lost:
        total, what = sum(map(len, on_disk)), "missing or empty" if judge else "missing"
        raise FileNotFoundError(
            f"{title} in {on_disk[0].folder} is incomplete: {len(lost):,} of {total:,} images are {what}"
            f" ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}); {remedy}"
        )
    for rows in on_disk if judge else ():
        for index in range(0, len(rows), max(1, len(rows) // 4)):
            rows.load(index)


def is_lost(path: str) -> bool:
    """Whether a file is missing or empty."""
    try:
        return os.stat(path).st_size == 0
    except OSError:
        return True


def _picked(column: Any, chosen: Tensor) -> Any:
    if column is None:
        return None
    if isinstance(column, Mapping):
        return {name: _picked(rows, chosen) for name, rows in column.items()}
    return column[chosen] if isinstance(column, Tensor) else [column[i] for i in chosen.nonzero()[:, 0].tolist()]
