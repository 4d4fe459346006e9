"""Which items are relevant to which: those of one class or, where items have several labels, those that share a label.

Labels are one class number per item, int64 (items,), or what each item has of all classes, bool (items, classes).
"""

from __future__ import annotations

import torch
from torch import Tensor

_COMPARED = 2**24  # bools held at a time


def several(labels: Tensor) -> bool:
    """Whether an item may have several labels: bool (items, classes)."""
    return labels.dtype == torch.bool and labels.ndim == 2


def one_each(labels: Tensor, items: int) -> bool:
    """Whether these are labels of so many items."""
    return (labels.ndim == 1 or several(labels)) and len(labels) == items


def as_labels(labels: Tensor) -> Tensor:
    """Class numbers as int64; several labels as they are."""
    return labels if several(labels) else labels.long()


def check_alike(labels: Tensor, others: Tensor) -> None:
    """Refuses labels of two kinds, or over other classes.

    Raises:
        ValueError: If they cannot be compared.
    """
    if labels.ndim != others.ndim or labels.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"labels of shapes {tuple(labels.shape)} and {tuple(others.shape)} cannot be compared; give one class"
            " number per item on both sides, or bool (items, classes) over the same classes"
        )


def alike(labels: Tensor, others: Tensor) -> Tensor:
    """Which of the others is relevant to each item, bool (items, others).

    Raises:
        ValueError: If they cannot be compared.
    """
    check_alike(labels, others)
    if not several(labels):
        return labels[:, None] == others
    return labels.float() @ others.float().T > 0


def alike_at(labels: Tensor, others: Tensor, places: Tensor) -> Tensor:
    """Which of the others at its own places, (items, some), is relevant to each item; bool, of the same shape."""
    if not several(labels):
        return others[places] == labels[:, None]
    rows = max(1, _COMPARED // max(1, places.shape[1] * labels.shape[1]))
    pairs = zip(torch.split(labels, rows), torch.split(places, rows), strict=True)
    return torch.cat([(others[there] & own[:, None]).any(dim=2) for own, there in pairs])


def memberships(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which item is in which class: places of items, ascending, and numbers of classes, each int64 (memberships,)."""
    if several(labels):
        items, classes = labels.nonzero(as_tuple=True)
        return items, classes
    return torch.arange(len(labels), device=labels.device), labels


def present(labels: Tensor) -> Tensor:
    """The numbers of the classes that have an item, ascending."""
    return labels.any(dim=0).nonzero()[:, 0] if several(labels) else torch.unique(labels)
