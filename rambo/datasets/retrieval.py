"""What every retrieval data set shares: the split of the training classes, checks of queries, batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.dataset import PartedData
from harness.data.loading import BatchSampler
from rambo.datasets.records import Records, held_out_classes, renumbered, some
from rambo.labels import present, several

log = logging.getLogger(__name__)


class RetrievalData(PartedData[Records]):
    """A data set of images with classes, in which the images of a class are to be found.

    Args:
        root: Folder of the data.
        sampler: Called with `labels`, `super_labels` and `seed`; returns the batch sampler of the training part.
        validation_fraction: Share of the training classes kept from training and evaluated as "validation", where the
            data have no validation classes of their own.
        shared: As in `PartedData`.

    Raises:
        ValueError: If an argument makes no sense, or no query of a part has anything to find.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        sampler: Callable[..., BatchSampler],
        validation_fraction: float = 0.0,
        **shared: Any,
    ) -> None:
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction must be at least 0 and below 1, got {validation_fraction}")
        self.validation_fraction = validation_fraction
        super().__init__(root, **shared)
        train = self.parts["train"] = renumbered(self.parts["train"])
        self.classes = len(present(train.labels))
        self.several_labels = several(train.labels)
        sampler = _for_fixture(sampler) if self.fixture else sampler
        self.open_loaders(sampler(labels=train.labels, super_labels=train.super_labels, seed=self.seed))

    def divided(self, parts: dict[str, Records]) -> dict[str, Records]:
        """ "train", "test" and perhaps "validation"."""
        if self.validation_fraction and "validation" in parts:
            log.info("%s has validation classes of its own: data.validation_fraction is not used", self.root)
            self.validation_fraction = 0.0
        if self.validation_fraction:
            train = parts["train"]
            held_out = self.held_out(train).tolist()
            parts |= train.parted(["validation" if held else "train" for held in held_out])
        parts["train"] = replace(parts["train"], cameras=None)  # a loss ranks all images of its batch
        return parts

    def check_rows(self, parts: Mapping[str, Records]) -> None:
        """Refuses a part without a query that has anything to find."""
        for name, records in parts.items():
            if not bool(records.answerable().any()):
                raise ValueError(self._nothing_to_find(name, records))

    def held_out(self, train: Records) -> Tensor:
        """Which training images `validation_fraction` takes: those of that share of the classes, bool (n,)."""
        return torch.isin(train.labels, torch.tensor(held_out_classes(train.labels, self.validation_fraction)))

    def _nothing_to_find(self, part: str, records: Records) -> str:
        if records.cameras is not None:
            return (
                f"no query of the {part} part of {self.root} has an image of its class by another camera to find; check"
                " the labels and the cameras, or set data.camera_column=null"
            )
        if records.roles is not None:
            return (
                f"no query of the {part} part of {self.root} has an image of its class in the gallery;"
                " check the labels of both"
            )
        where, remedy = f"of the {part} part", "use classes of two images or more"
        if part == "validation" and self.validation_fraction:
            where = "held out for validation"
            remedy = "set data.validation_fraction=0, or another share, or name data.validation_classes (data=folder,"
            remedy += " split=open)"
        names = records.class_names_here()
        return (
            f"each of the {len(names):,} classes {where} of {self.root} ({some(names)}) has one image, so none has"
            f" another to find; {remedy}"
        )

    def listed(self, path: Path, columns: Sequence[str], header: int = 0) -> list[list[str]]:
        """The lines of a list that comes with the data, cut at white space, without the first `header` ones.

        Raises:
            FileNotFoundError: If the list is missing.
            ValueError: If the header, or a line, does not have these columns.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.title} in {path.parent} is incomplete: {path.name} is missing; {self.remedy}"
            )
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = lines[header:]
        if any(len(row) != len(columns) for row in rows) or (header and lines[header - 1 : header] != [list(columns)]):
            raise ValueError(f"{path} is damaged: expected lines of {', '.join(columns)}; {self.remedy}")
        return rows

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """How pictures are read, and what the classes of training were called."""
        return {**super().for_use(settings), "classes": self.parts["train"].class_names_here()}

    def describe(self) -> dict[str, Any]:
        """What every data set tells, and the share held out."""
        return {**super().describe(), "validation_fraction": self.validation_fraction}


def _for_fixture(sampler: Callable[..., BatchSampler]) -> Callable[..., BatchSampler]:
    """The same sampler with batches that the few images of a fixture can fill, and few of them."""
    most = {"batch_size": 16, "samples_per_class": 8, "batches_per_pair": 1, "batches_per_epoch": 4}
    given: Mapping[str, Any] = getattr(sampler, "keywords", {})
    fewer = {name: min(given[name], limit) for name, limit in most.items() if given.get(name) is not None}
    return partial(sampler, **fewer) if fewer else sampler
