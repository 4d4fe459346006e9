"""Records: which images a part of a data set has and what they show, and the questions asked of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from harness.data.images import decode, file_marks

BOTH, QUERY, GALLERY = 0, 1, 2
"""Roles: leave-one-out (every image queries the others), query only, gallery only."""


@dataclass(frozen=True)
class Records:
    """One part of a data set: n images and what they show.

    Attributes:
        names: What each image is called: its path below `folder`, or any unique text if the pixels are in memory.
        labels: Class of each image, int64 (n,).
        folder: Where the files are; None if the pixels are in memory.
        pixels: uint8 (n, 1 or 3, height, width), for a data set that is held in memory.
        super_labels: Coarser class of each image, int64 (n,), where the data have one.
        roles: 0 leave-one-out, 1 query only, 2 gallery only, int64 (n,), where the data prescribe them.
        class_names: Class -> a name for people, where there is one.
        marks: What tells the file of each image from another of its name, where `pixels` came from files.
    """

    names: list[str]
    labels: Tensor
    folder: Path | None = None
    pixels: Tensor | None = None
    super_labels: Tensor | None = None
    roles: Tensor | None = None
    class_names: Mapping[int, str] | None = None
    marks: list[str] | None = None

    def __post_init__(self) -> None:
        for what in ("labels", "super_labels", "roles", "pixels"):
            column = getattr(self, what)
            if column is not None and len(column) != len(self.names):
                raise ValueError(f"{what} must have a row for each of the {len(self.names)} images, got {len(column)}")
        if (self.folder is None) == (self.pixels is None):
            raise ValueError("records need either the folder of their files or their pixels")

    def __len__(self) -> int:
        return len(self.names)

    def where(self, chosen: Tensor) -> Records:
        """The records at which the boolean (n,) `chosen` is true."""
        return replace(
            self,
            names=[self.names[i] for i in chosen.nonzero()[:, 0].tolist()],
            labels=self.labels[chosen],
            pixels=_rows(self.pixels, chosen),
            super_labels=_rows(self.super_labels, chosen),
            roles=_rows(self.roles, chosen),
            marks=None if self.marks is None else [self.marks[i] for i in chosen.nonzero()[:, 0].tolist()],
        )

    def answerable(self) -> Tensor:
        """Which images are queries that have an image of their class to find, bool (n,)."""
        roles = torch.zeros_like(self.labels) if self.roles is None else self.roles
        _, kinds = torch.unique(self.labels, return_inverse=True)
        searched = kinds[roles != QUERY].bincount(minlength=len(kinds))
        found: Tensor = (roles != GALLERY) & (searched[kinds] > (roles == BOTH))
        return found

    def class_names_here(self) -> list[str]:
        """The names of the classes that have an image here, in order of their labels."""
        names = self.class_names or {}
        return [names.get(label, str(label)) for label in classes_of(self.labels).tolist()]

    def without_roles(self) -> Records:
        """The same records, leave-one-out."""
        return replace(self, roles=None)

    def load(self, index: int, upright: bool = False) -> Tensor:
        """The picture at `index` as uint8 (3, height, width)."""
        if self.pixels is not None:
            return self.pixels[index].expand(3, -1, -1)
        return decode(self.path(index), upright)

    def path(self, index: int) -> Path:
        """The file of the picture at `index`."""
        assert self.folder is not None
        return self.folder / self.names[index]

    def describe(self) -> dict[str, int]:
        """Counts for the run record."""
        counts = {"images": len(self), "classes": len(classes_of(self.labels))}
        if self.super_labels is not None:
            counts["super_classes"] = len(classes_of(self.super_labels))
        if self.roles is not None:
            counts["queries"] = int((self.roles != GALLERY).sum())
            counts["gallery"] = int((self.roles != QUERY).sum())
        return counts


def fingerprint(parts: Mapping[str, Records]) -> str:
    """sha256 over which images are in which part under which label, and what their files hold (see `file_marks`).

    Of images that are drawn rather than read, the pixels do not enter: they follow from the config.
    """
    digest = hashlib.sha256()
    for part, records in sorted(parts.items()):
        digest.update(f"{part} {len(records)}\n".encode())
        marks = records.marks or (
            [] if records.folder is None else file_marks([*map(records.path, range(len(records)))])
        )
        digest.update(f"{marks}\n".encode())
        columns = [
            [None] * len(records) if column is None else column.tolist()
            for column in (records.labels, records.super_labels, records.roles)
        ]
        for row in zip(records.names, *columns, strict=True):
            digest.update(f"{row}\n".encode())
    return digest.hexdigest()


def held_out_classes(labels: Tensor, fraction: float) -> set[int]:
    """The share of the classes that is kept from training for validation; the same for every seed.

    The classes, at least two, whose sha256 of "held out <class>" comes first: a fixed shuffle that no library's
    generator decides. Neither the last classes (in Stanford Online Products they are all toasters) nor every n-th one
    (in CUB-200-2011 its neighbours are its nearest relatives) would say much about classes never seen.
    """
    classes = sorted(set(labels.tolist()), key=lambda label: hashlib.sha256(f"held out {label}".encode()).digest())
    count = max(2, round(fraction * len(classes)))
    if len(classes) - count < 2:
        raise ValueError(
            f"validation_fraction={fraction} would leave {len(classes) - count} of {len(classes)} classes for training,"
            " which needs two; choose a smaller one"
        )
    return set(classes[:count])


def check_files(records: Records, title: str, remedy: str, upright: bool = False, decoded: int = 4) -> None:
    """Looks whether every file is there and not empty, and decodes a few, before anything is trained.

    Raises:
        FileNotFoundError: If files are missing or empty; says how many and names the first.
        OSError: If one of the few decoded is unreadable.
    """
    if records.folder is None:
        return
    lost = []
    for index, name in enumerate(records.names):
        try:
            if records.path(index).stat().st_size == 0:
                lost.append(name)
        except OSError:
            lost.append(name)
    if lost:
        first = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        raise FileNotFoundError(
            f"{title} in {records.folder} is incomplete: {len(lost):,} of {len(records):,} images are missing or empty"
            f" ({first}); {remedy}"
        )
    for index in range(0, len(records), max(1, len(records) // decoded)):
        records.load(index, upright)


def renumbered(records: Records) -> Records:
    """The records with their classes numbered 0..classes-1 in the same order, as proxies and classifiers need them."""
    old, labels = torch.unique(records.labels, return_inverse=True)
    names = records.class_names
    renamed = None if names is None else {new: names[was] for new, was in enumerate(old.tolist()) if was in names}
    return replace(records, labels=labels, class_names=renamed)


def classes_of(labels: Tensor) -> Tensor:
    """The different labels in order, int64 (classes,)."""
    found: Tensor = torch.unique(labels)
    return found


def _rows(column: Tensor | None, chosen: Tensor) -> Tensor | None:
    return None if column is None else column[chosen]


def some(names: Sequence[str]) -> str:
    """The first names, for a sentence."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
