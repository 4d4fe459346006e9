"""What every retrieval data set shares: records, the data set that torch loads from, the split of the training classes.

A data set's own file says where its images are and which class each shows (`read`); everything else is here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from harness.data.download import RemoteFile
from harness.data.images import ImageCache, seeded_draws
from harness.data.loading import Batch, BatchSampler, EpochLoader
from harness.device import cores
from rambo.datasets.records import Records, check_files, classes_of, fingerprint, held_out_classes, renumbered, some

log = logging.getLogger(__name__)


class RetrievalDataset(Dataset[Batch]):
    """Images with labels, for torch's loader.

    A training set is indexed by (epoch, index) and draws its augmentation from (seed, epoch, index), in whatever
    process it is loaded; the global random generator is left as it was. An evaluation set is indexed by index.

    Args:
        records: The images and what they show.
        transform: From uint8 (3, height, width) to uint8 (3, h, w), the same h and w for every picture.
        seed: Seed of the augmentation.
        cache: Where to keep the outcome of `transform.prepare`, or None.
        upright: Whether files are turned as their EXIF orientation says.
    """

    def __init__(
        self,
        records: Records,
        transform: nn.Module,
        seed: int = 0,
        cache: ImageCache | None = None,
        upright: bool = False,
    ) -> None:
        if cache is not None and not isinstance(getattr(transform, "prepare", None), nn.Module):
            raise ValueError(
                f"an image cache keeps what transform.prepare makes, and {type(transform).__name__} has none;"
                " set data.cache=null"
            )
        self.records, self.transform, self.seed, self.cache, self.upright = records, transform, seed, cache, upright
        self._labels = records.labels.tolist()
        self._super_labels = None if records.super_labels is None else records.super_labels.tolist()
        self._roles = None if records.roles is None else records.roles.tolist()

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int) -> Tensor:
        """The picture at `index` after the transform: uint8 (3, h, w)."""
        if self.cache is not None and self.records.pixels is None:
            picture = self.cache.load(self.records.path(index), self.transform.prepare, self.upright)  # type: ignore[arg-type]
        else:
            picture = self.records.load(index, self.upright)
        viewed: Tensor = self.transform(picture)
        return viewed.contiguous()

    def __getitem__(self, key: int | tuple[int, int]) -> Batch:
        if isinstance(key, tuple):
            epoch, index = key
            with seeded_draws(self.seed, epoch, index):
                image = self.image(index)
        else:
            index = key
            image = self.image(index)
        sample = {"image": image, "label": self._labels[index], "index": index}
        if self._super_labels is not None:
            sample["super_label"] = self._super_labels[index]
        if self._roles is not None:
            sample["role"] = self._roles[index]
        return sample


class Shared(TypedDict, total=False):
    """The arguments of `RetrievalData`, for data sets that add their own."""

    sampler: Callable[..., BatchSampler]
    train_transform: nn.Module
    test_transform: nn.Module
    evaluation_batch_size: int
    workers: int
    seed: int
    validation_fraction: float
    fixture: bool
    cache: str | Path | None
    pin_memory: bool


class RetrievalData:
    """A retrieval data set: training batches, evaluation loaders and facts for the run record.

    Args:
        root: Folder of the data.
        sampler: Called with `labels`, `super_labels` and `seed`; returns the batch sampler of the training part.
        train_transform: Augmentation, from uint8 (3, height, width) to uint8 (3, h, w).
        test_transform: The same without chance.
        evaluation_batch_size: Images per batch when evaluating.
        workers: Loading processes for each loader; never more than there are processor cores.
        seed: Decides batches and augmentation, and nothing else.
        validation_fraction: Share of the training classes kept from training and evaluated as "validation", where the
            data have no validation classes of their own.
        fixture: Whether to write a tiny copy of the layout to `<root>_fixture` and use that, in few and small batches.
        cache: Folder in which resized images are kept, or None.
        pin_memory: Whether batches are copied to page-locked memory.

    Raises:
        FileNotFoundError: If there are no data in `root`, or only part of them.
        ValueError: If an argument makes no sense, or the counts are not those of the published split.
    """

    title: ClassVar[str]
    """What people call the data set."""
    remedy: ClassVar[str]
    """What to do when it is not there."""
    files: ClassVar[tuple[RemoteFile, ...]] = ()
    """What scripts/download.py fetches."""
    by_hand: ClassVar[str] = ""
    """What to do instead where a form or a login stands before the data; {root} is replaced by their folder."""
    expected: ClassVar[Mapping[str, Mapping[str, int]]] = {}
    """Part -> counts of the published split."""

    upright = False

    def __init__(
        self,
        root: str | Path,
        *,
        sampler: Callable[..., BatchSampler],
        train_transform: nn.Module,
        test_transform: nn.Module,
        evaluation_batch_size: int = 128,
        workers: int = 0,
        seed: int = 0,
        validation_fraction: float = 0.0,
        fixture: bool = False,
        cache: str | Path | None = None,
        pin_memory: bool = False,
    ) -> None:
        if evaluation_batch_size < 1:
            raise ValueError(f"evaluation_batch_size must be at least 1, got {evaluation_batch_size}")
        if workers < 0:
            raise ValueError(f"workers must be at least 0, got {workers}")
        workers = min(workers, cores())  # more would only wait for each other, and torch would warn
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction must be at least 0 and below 1, got {validation_fraction}")
        self.root, self.fixture, self.validation_fraction = Path(root), fixture, validation_fraction
        if fixture:
            self.root = self.write_fixture(self.root)
        parts = self.load_parts()
        self.fingerprint = fingerprint(parts)

        kept = None if cache is None or parts["train"].pixels is not None else ImageCache(cache)
        self.parts = {**parts, "train": renumbered(parts["train"])}
        train = self.parts["train"]
        self.classes = len(classes_of(train.labels))
        labelled = {"labels": train.labels, "super_labels": train.super_labels, "seed": seed}
        batches = _for_fixture(sampler)(**labelled) if fixture else sampler(**labelled)
        dataset = RetrievalDataset(train, train_transform, seed, kept, self.upright)
        self.train = EpochLoader(dataset, batches, workers, pin_memory)
        self.evaluation: dict[str, DataLoader[Batch]] = {
            name: DataLoader(
                RetrievalDataset(records, test_transform, seed, kept, self.upright),
                batch_size=evaluation_batch_size,
                num_workers=workers,
                pin_memory=pin_memory,
                generator=torch.Generator(),  # else each pass would draw from the global generator
            )
            for name, records in self.parts.items()
            if name != "train"
        }

    def read(self, root: Path) -> dict[str, Records]:
        """The parts "train" and "test" (and "validation", where the data have one) as found below `root`."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is read")

    def write_fixture(self, root: Path) -> Path:
        """Writes a tiny copy of the layout beside `root` and returns where it is."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture; set data.fixture=false")

    def load_parts(self) -> dict[str, Records]:
        """Reads, checks and splits."""
        parts = self.read(self.root)
        self._check(parts)
        if self.validation_fraction and "validation" in parts:
            log.info("%s has validation classes of its own: data.validation_fraction is not used", self.root)
            self.validation_fraction = 0.0
        if self.validation_fraction:
            train = parts["train"]
            held_out = held_out_classes(train.labels, self.validation_fraction)
            chosen = torch.isin(train.labels, torch.tensor(sorted(held_out)))
            parts["train"], parts["validation"] = train.where(~chosen), train.where(chosen)
        for name, records in parts.items():
            if not bool(records.answerable().any()):
                raise ValueError(self._nothing_to_find(name, records))
        return parts

    def _nothing_to_find(self, part: str, records: Records) -> str:
        if records.roles is not None:
            return (
                f"no query of the {part} part of {self.root} has an image of its class in the gallery;"
                " check the labels of both"
            )
        held_out = part == "validation" and self.validation_fraction
        where, remedy = f"of the {part} part", "use classes of two images or more"
        if held_out:
            where = "held out for validation"
            remedy = "set data.validation_fraction=0, or another share, or name data.validation_classes (data=folder)"
        names = records.class_names_here()
        return (
            f"each of the {len(names):,} classes {where} of {self.root} ({some(names)}) has one image, so none has"
            f" another to find; {remedy}"
        )

    def _check(self, parts: Mapping[str, Records]) -> None:
        for name, counts in ({} if self.fixture else self.expected).items():
            found = {key: parts[name].describe().get(key, 0) for key in counts}
            if found != counts:
                raise ValueError(
                    f"{self.title} in {self.root}: the {name} part has {_counted(found)}, and the published split has"
                    f" {_counted(counts)}; {self.remedy}"
                )
        for records in parts.values():
            check_files(records, self.title, self.remedy, self.upright)

    def describe(self) -> dict[str, Any]:
        """Name, counts and fingerprint, for the run record."""
        return {
            "name": self.title,
            "fixture": self.fixture,
            "fingerprint": self.fingerprint,
            "validation_fraction": self.validation_fraction,
            **{name: records.describe() for name, records in self.parts.items()},
        }


def _for_fixture(sampler: Callable[..., BatchSampler]) -> Callable[..., BatchSampler]:
    """The same sampler with batches that the few images of a fixture can fill, and few of them."""
    most = {"batch_size": 16, "batches_per_pair": 1, "batches_per_epoch": 4}
    given = getattr(sampler, "keywords", {})
    fewer = {name: min(given[name], limit) for name, limit in most.items() if given.get(name) is not None}
    return partial(sampler, **fewer) if fewer else sampler


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name.replace('_', '-')}" for name, number in counts.items())
