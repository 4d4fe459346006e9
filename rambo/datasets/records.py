"""Records: which images a part of a data set has and what they show, and the questions asked of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.rows import Rows
from harness.seeds import fixed_order
from rambo.labels import memberships, present, several
from rambo.neighbours import items_alike

BOTH, QUERY, GALLERY = 0, 1, 2
"""Roles: leave-one-out (every image queries the others), query only, gallery only."""
ROLES = {"query": QUERY, "gallery": GALLERY}
"""What a test image is for, where lists or folders say it: both kinds make the test."""


@dataclass(frozen=True)
class Records(Rows):
    """One part of a data set: n images and what they show.

    Attributes:
        labels: Class of each image, int64 (n,), or its several labels, bool (n, classes); see `rambo.labels`.
        super_labels: Coarser class of each image, int64 (n,), where the data have one.
        roles: 0 leave-one-out, 1 query only, 2 gallery only, int64 (n,), where the data prescribe them.
        cameras: What took each image, int64 (n,), where images of one class and camera are not to be found.
        class_names: Class -> a name for people, where there is one.
    """

    labels: Tensor
    _: KW_ONLY
    super_labels: Tensor | None = None
    roles: Tensor | None = None
    cameras: Tensor | None = None
    class_names: Mapping[int, str] | None = None

    columns = (*Rows.columns, "labels", "super_labels", "roles", "cameras")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pictured:
            raise ValueError("records need either the folder of their files or their pixels")

    def entries(self, index: int) -> dict[str, Any]:
        """The label, and super-label, role and camera where there are such."""
        columns = {"label": self.labels, "super_label": self.super_labels, "role": self.roles, "camera": self.cameras}
        return {name: column[index] for name, column in columns.items() if column is not None}

    def described(self) -> Iterator[object]:
        """Names, labels, super-labels and roles, and cameras where there are such."""
        yield len(self)
        missing = [None] * len(self)
        labels = self.labels_of_each() if several(self.labels) else self.labels.tolist()
        others = (missing if column is None else column.tolist() for column in (self.super_labels, self.roles))
        cameras = () if self.cameras is None else (self.cameras.tolist(),)
        yield from zip(self.names, labels, *others, *cameras, strict=True)

    def labels_of_each(self) -> list[list[int]]:
        """The classes of each image, ascending."""
        found: list[list[int]] = [[] for _ in self.names]
        for image, label in zip(*(column.tolist() for column in memberships(self.labels)), strict=True):
            found[image].append(label)
        return found

    def answerable(self) -> Tensor:
        """Which images are queries that have an image of their class, and of another camera, to find, bool (n,)."""
        roles = torch.zeros(len(self), dtype=torch.int64) if self.roles is None else self.roles
        images, labels = memberships(self.labels)
        gallery = roles[images] != QUERY
        hidden = (roles[images] == BOTH).long()
        if self.cameras is not None:
            both = labels, self.cameras[images]
            hidden = items_alike(both, [column[gallery] for column in both])
        found = images[items_alike([labels], [labels[gallery]]) > hidden]
        return (roles != GALLERY) & torch.zeros(len(self), dtype=torch.bool).index_fill_(0, found, True)

    def class_names_here(self) -> list[str]:
        """The names of the classes that have an image here, in order of their labels."""
        names = self.class_names or {}
        return [names.get(label, str(label)) for label in present(self.labels).tolist()]

    def describe(self) -> dict[str, int]:
        """Counts for the run record."""
        counts = {"images": len(self), "classes": len(present(self.labels))}
        if several(self.labels):
            counts["labels"] = int(self.labels.sum())
        if self.super_labels is not None:
            counts["super_classes"] = len(torch.unique(self.super_labels))
        if self.roles is not None:
            counts["queries"] = int((self.roles != GALLERY).sum())
            counts["gallery"] = int((self.roles != QUERY).sum())
        if self.cameras is not None:
            counts["cameras"] = len(torch.unique(self.cameras))
        return counts


def held_out_classes(labels: Tensor, fraction: float) -> list[int]:
    """The share of the classes, at least two, that is kept from training for validation; the same for every seed.

    Neither the last classes (in Stanford Online Products they are all toasters) nor every n-th one (in CUB-200-2011 its
    neighbours are its nearest relatives) would say much about classes never seen.
    """
    classes = fixed_order(set(labels.tolist()), "held out")
    count = max(2, round(fraction * len(classes)))
    if len(classes) - count < 2:
        raise ValueError(
            f"validation_fraction={fraction} would leave {len(classes) - count} of {len(classes)} classes for training,"
            " which needs two; choose a smaller one"
        )
    return classes[:count]


def shares_drawn(records: Records, share: float, purpose: str) -> Tensor:
    """Which images of each class make its share, at least one of two, by the sha256 of their names, bool (n,).

    Of several labels, images with a rare one are looked at first, and no class gives more than its share.
    """
    keys, labels, drawn = records.keys(), records.labels_of_each(), torch.zeros(len(records), dtype=torch.bool)
    sizes = Counter(label for own in labels for label in own)
    wanted = {label: min(size - 1, max(1, round(share * size))) for label, size in sizes.items()}
    places = {key: row for row, key in enumerate(keys)}
    order = [places[key] for key in fixed_order(keys, purpose)]
    for row in sorted(order, key=lambda row: min(sizes[label] for label in labels[row])):
        if all(wanted[label] for label in labels[row]):
            drawn[row] = True
            for label in labels[row]:
                wanted[label] -= 1
    return drawn


def renumbered(records: Records) -> Records:
    """The records with their classes numbered 0..classes-1 in the same order, as proxies and classifiers need them."""
    if several(records.labels):
        old = present(records.labels)
        labels = records.labels[:, old]
    else:
        old, labels = torch.unique(records.labels, return_inverse=True)
    names = records.class_names
    renamed = None if names is None else {new: names[was] for new, was in enumerate(old.tolist()) if was in names}
    return replace(records, labels=labels, class_names=renamed)


def numbered(names: Sequence[str]) -> tuple[list[str], Tensor]:
    """The different names in order, and the place of each name among them, int64 (n,)."""
    kinds, places = np.unique(names, return_inverse=True)
    return kinds.tolist(), torch.from_numpy(places)


def numbered_together(names: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """The different names in order, and which of them each list has, bool (n, names)."""
    kinds, places = numbered([name for own in names for name in own])
    labels = torch.zeros(len(names), len(kinds), dtype=torch.bool)
    labels[torch.arange(len(names)).repeat_interleave(torch.tensor([len(own) for own in names])), places] = True
    return kinds, labels


def some(names: Sequence[str]) -> str:
    """The first names, for a sentence."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
