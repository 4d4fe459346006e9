"""Samples: what a part of a data set holds and which target each has, and the questions asked of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.images import decode, file_marks
from harness.data.spreadsheet import PARTS, read_spreadsheet


@dataclass(frozen=True)
class Samples:
    """One part of a data set: n inputs and their targets.

    Attributes:
        names: What each sample is called: the path of its image below `folder`, or any unique text.
        targets: float32 (n,).
        folder: Where the image files are, if there are any.
        pixels: uint8 (n, 1 or 3, height, width), for images that are held in memory.
        columns: Anything else that a sample brings to its batch: name of the batch entry -> n values.
    """

    names: list[str]
    targets: Tensor
    folder: Path | None = None
    pixels: Tensor | None = None
    columns: Mapping[str, Sequence[Any] | Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, column in {"targets": self.targets, "pixels": self.pixels, **self.columns}.items():
            if column is not None and len(column) != len(self.names):
                raise ValueError(f"{what} must have a row for each of the {len(self.names)} samples, got {len(column)}")
        if self.targets.dim() != 1 or self.targets.dtype != torch.float32:
            raise ValueError(f"targets must be float32 (n,), got {self.targets.dtype} {tuple(self.targets.shape)}")
        if self.folder is not None and self.pixels is not None:
            raise ValueError("samples have either the folder of their image files or the pixels, not both")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pictured(self) -> bool:
        """Whether the samples are images."""
        return self.folder is not None or self.pixels is not None

    def where(self, chosen: Tensor) -> Samples:
        """The samples at which the boolean (n,) `chosen` is true."""
        kept = chosen.nonzero()[:, 0].tolist()
        return replace(
            self,
            names=[self.names[i] for i in kept],
            targets=self.targets[chosen],
            pixels=None if self.pixels is None else self.pixels[chosen],
            columns={
                name: column[chosen] if isinstance(column, Tensor) else [column[i] for i in kept]
                for name, column in self.columns.items()
            },
        )

    def load(self, index: int, upright: bool = False) -> Tensor:
        """The picture at `index` as uint8 (3, height, width)."""
        if self.pixels is not None:
            return self.pixels[index].expand(3, -1, -1)
        return decode(self.path(index), upright)

    def path(self, index: int) -> Path:
        """The image file of the sample at `index`."""
        assert self.folder is not None
        return self.folder / self.names[index]

    def describe(self) -> dict[str, float]:
        """Counts of the targets for the run record: how many, how many different ones, their range, the commonest."""
        values, counts = torch.unique(self.targets, return_counts=True)
        return {
            "samples": len(self),
            "different": len(values),
            "lowest": float(values[0]),
            "highest": float(values[-1]),
            "commonest": float(values[counts.argmax()]),
            "largest_count": int(counts.max()),
        }


def fingerprint(parts: Mapping[str, Samples]) -> str:
    """sha256 over which samples are in which part with which target and columns, and what their files hold.

    For files see `file_marks`. Of images that are drawn rather than read, the pixels do not enter: they follow from the
    config.
    """
    digest = hashlib.sha256()
    for part, samples in sorted(parts.items()):
        digest.update(f"{part} {len(samples)}\n".encode())
        marks = [] if samples.folder is None else file_marks([*map(samples.path, range(len(samples)))])
        digest.update(f"{marks}\n".encode())
        for row in zip(samples.names, samples.targets.tolist(), strict=True):
            digest.update(f"{row}\n".encode())
        for name, column in sorted(samples.columns.items()):
            rows = column.tolist() if isinstance(column, Tensor) else column
            digest.update(f"{name}\n".encode())
            for value in rows:
                digest.update(f"{value}\n".encode())
    return digest.hexdigest()


def read_split(table: Path, target: str, remedy: str) -> dict[str, Samples]:
    """The parts that a split file lists: CSV with the columns `target`, path and split, paths relative to its folder.

    Raises:
        ValueError: If it has other columns, or a line that is not a number, a path and a split; names the line.
    """
    rows: dict[str, list[tuple[str, float]]] = {"train": [], "validation": [], "test": []}
    sheet = read_spreadsheet(table)
    if sorted(sheet.header) != sorted((target, "path", "split")):
        raise ValueError(
            f"{table} should begin with the columns {target}, path, split, got {','.join(sheet.header)!r}; {remedy}"
        )
    for line, row in zip(sheet.lines, sheet.rows, strict=True):
        try:
            rows[PARTS[row["split"]]].append((row["path"], float(row[target])))
        except (KeyError, ValueError):
            raise ValueError(
                f"{table}, line {line}: expected a number, a path and train, val or test, got"
                f" {','.join(row.values())!r}; {remedy}"
            ) from None
    return {
        part: Samples([path for path, _ in listed], torch.tensor([value for _, value in listed]), folder=table.parent)
        for part, listed in rows.items()
    }


def check_targets(samples: Samples, where: str, lowest: float | None = None) -> None:
    """Refuses targets that are not finite, or lower than can be.

    Raises:
        ValueError: Says how many, and names the first samples.
    """
    for wrong, fault in (
        (~samples.targets.isfinite(), "not a finite number"),
        (samples.targets < (float("-inf") if lowest is None else lowest), f"below {lowest or 0:g}"),
    ):
        rows = wrong.nonzero()[:, 0].tolist()
        if rows:
            first = ", ".join(f"{samples.names[row]}: {float(samples.targets[row]):g}" for row in rows[:3])
            raise ValueError(
                f"{where} has {len(rows):,} of {len(samples):,} targets that are {fault}"
                f" ({first}{', ...' if len(rows) > 3 else ''}); correct these rows, or leave them out"
            )


def check_files(parts: Sequence[Samples], title: str, remedy: str, upright: bool = False, decoded: int = 4) -> None:
    """Looks whether every image file is there and not empty, and decodes a few, before anything is trained.

    Raises:
        FileNotFoundError: If files are missing or empty; says how many of all parts and names the first.
        OSError: If one of the few decoded of each part is unreadable.
    """
    pictured = [part for part in parts if part.folder is not None]
    lost = [name for part in pictured for name in part.names if _is_lost(part, name)]
    if lost:
        total = sum(len(part) for part in pictured)
        raise FileNotFoundError(
            f"{title} in {pictured[0].folder} is incomplete: {len(lost):,} of {total:,} images are missing or empty"
            f" ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}); {remedy}"
        )
    for part in pictured:
        for index in range(0, len(part), max(1, len(part) // decoded)):
            part.load(index, upright)


def _is_lost(part: Samples, name: str) -> bool:
    assert part.folder is not None
    try:
        return os.stat(os.path.join(part.folder, name)).st_size == 0
    except OSError:
        return True
