"""What every regression data set shares: samples, the data set that torch loads from, checks, loaders, description.

A data set's own file says what its samples are and which target each has (`read`); everything else is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from harness.data.download import RemoteFile
from harness.data.images import ImageCache, seeded_draws
from harness.data.loading import Batch, EpochLoader, ShuffledBatches, checked_loading
from ranksim.bins import Bins, Density
from ranksim.datasets.samples import Samples, check_files, check_targets, fingerprint


class RegressionDataset(Dataset[Batch]):
    """Samples with targets, for torch's loader.

    A training set is indexed by (epoch, index) and draws its augmentation from (seed, epoch, index), in whatever
    process it is loaded; the global random generator is left as it was. An evaluation set is indexed by index.

    Args:
        samples: Inputs and targets.
        density: The targets of the training part.
        transform: From uint8 (3, height, width) to uint8 (3, h, w), the same h and w for every picture; None for
            pictures that are to stay as they are, and for samples that are none.
        seed: Seed of the augmentation.
        cache: Where to keep the outcome of `transform.prepare`, or None.
        upright: Whether image files are turned as their EXIF orientation says.
    """

    def __init__(
        self,
        samples: Samples,
        density: Density,
        transform: nn.Module | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
        upright: bool = False,
    ) -> None:
        if cache is not None and not isinstance(getattr(transform, "prepare", None), nn.Module):
            raise ValueError(
                f"an image cache keeps what transform.prepare makes, and {type(transform).__name__} has none;"
                " set data.cache=null"
            )
        self.samples, self.density, self.transform = samples, density, transform
        self.seed, self.cache, self.upright = seed, cache, upright
        self.targets = samples.targets

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Tensor:
        """The picture at `index` after the transform: uint8 (3, h, w)."""
        if self.cache is not None and self.transform is not None:
            picture = self.cache.load(self.samples.path(index), self.transform.prepare, self.upright)  # type: ignore[arg-type]
        else:
            picture = self.samples.load(index, self.upright)
        viewed: Tensor = picture if self.transform is None else self.transform(picture)
        return viewed.contiguous()

    def __getitem__(self, key: int | tuple[int, int]) -> Batch:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        sample: Batch = {"target": self.targets[index], "index": index}
        if self.samples.pictured:
            if epoch is None or self.transform is None:
                sample["image"] = self.image(index)
            else:
                with seeded_draws(self.seed, epoch, index):
                    sample["image"] = self.image(index)
        for name, column in self.samples.columns.items():
            sample[name] = column[index]
        return sample


class Shared(TypedDict, total=False):
    """The arguments of `RegressionData`, for data sets that add their own."""

    bins: Bins | int
    batch_size: int
    evaluation_batch_size: int
    train_transform: nn.Module | None
    test_transform: nn.Module | None
    target_scale: float
    workers: int
    seed: int
    fixture: bool
    cache: str | Path | None
    pin_memory: bool


class RegressionData:
    """A regression data set: training batches, evaluation loaders, the density of the targets, facts for the record.

    Args:
        root: Folder of the data.
        bins: Bins of the target, in which the training samples are counted. A number stands for that many bins of equal
            width over the range of all targets: of the test's too, so that a target far from every training target has
            a bin of its own instead of the nearest one.
        batch_size: Samples in a training batch; the last one of an epoch may be smaller, as in the official code.
        evaluation_batch_size: Samples per batch when evaluating.
        train_transform: Augmentation, from uint8 (3, height, width) to uint8 (3, h, w); None for other inputs.
        test_transform: The same without chance.
        target_scale: What the losses divide targets by. Nothing here uses it: configs of models and losses refer to it.
        workers: Loading processes for each loader; never more than there are processor cores.
        seed: Decides batches and augmentation, and nothing else.
        fixture: Whether to write a tiny copy of the layout to `<root>_fixture` and use that, in small batches.
        cache: Folder in which resized images are kept, or None.
        pin_memory: Whether batches are copied to page-locked memory.

    Raises:
        FileNotFoundError: If there are no data in `root`, or only part of them.
        ValueError: If an argument or a target makes no sense, or the counts are not those of the published split.
    """

    title: ClassVar[str]
    """What people call the data set."""
    remedy: ClassVar[str]
    """What to do when it is not there."""
    remedy_for_images: ClassVar[str] = ""
    """What to do when images are not there, if that is something else."""
    files: ClassVar[tuple[RemoteFile, ...]] = ()
    """What scripts/download.py fetches."""
    by_hand: ClassVar[str] = ""
    """What to do instead where a form or a login stands before the data; {root} is replaced by their folder."""
    expected: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """Part -> what `Samples.describe` must say of the published split."""
    lowest_target: ClassVar[float | None] = None
    """No target can be lower than this: 0 for ages."""

    official_shots: Mapping[str, Sequence[int]] | None = None
    """Shot -> bins, where the official evaluation lists them instead of counting."""
    upright = False

    def __init__(
        self,
        root: str | Path,
        *,
        bins: Bins | int,
        batch_size: int = 64,
        evaluation_batch_size: int = 256,
        train_transform: nn.Module | None = None,
        test_transform: nn.Module | None = None,
        target_scale: float = 1.0,
        workers: int = 0,
        seed: int = 0,
        fixture: bool = False,
        cache: str | Path | None = None,
        pin_memory: bool = False,
    ) -> None:
        workers = checked_loading(batch_size, evaluation_batch_size, workers)
        if not 0 < target_scale < float("inf"):
            raise ValueError(f"target_scale must be a positive number, got {target_scale}")
        self.root, self.fixture, self.target_scale = Path(root), fixture, target_scale
        self._bins = bins
        if fixture:
            self.root, batch_size = self.write_fixture(self.root), min(batch_size, 16)
        self.parts = self.read(self.root)
        self._check()
        self.fingerprint = fingerprint(self.parts)
        self.bins = self.binned(torch.cat([samples.targets for samples in self.parts.values()]))

        self.density = Density(self.parts["train"].targets, self.bins, self.official_shots)
        on_disk = self.parts["train"].folder is not None
        kept = None if cache is None or not on_disk else ImageCache(cache)
        train = RegressionDataset(self.parts["train"], self.density, train_transform, seed, kept, self.upright)
        batches = ShuffledBatches(len(train), batch_size, seed)
        self.train, self._pass = (EpochLoader(train, batches, workers, pin_memory, self.collate) for _ in range(2))
        self.evaluation: dict[str, DataLoader[Batch]] = {
            name: DataLoader(
                RegressionDataset(self.parts[name], self.density, test_transform, seed, kept, self.upright),
                batch_size=evaluation_batch_size,
                num_workers=workers,
                pin_memory=pin_memory,
                collate_fn=self.collate,
                generator=torch.Generator(),  # else each pass would draw from the global generator
            )
            for name in ("validation", "test")
        }

    def read(self, root: Path) -> dict[str, Samples]:
        """The parts "train", "validation" and "test" as found below `root`."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is read")

    def write_fixture(self, root: Path) -> Path:
        """Writes a tiny copy of the layout beside `root` and returns where it is."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture; set data.fixture=false")

    def binned(self, targets: Tensor) -> Bins:
        """The bins asked for: as given, or a number of them over the range of all `targets`, float32 (n,).

        Raises:
            ValueError: If a number is asked for that is not positive, or all targets are equal.
        """
        if isinstance(self._bins, Bins):
            return self._bins
        low, high = float(targets.min()), float(targets.max())
        if low == high:
            raise ValueError(
                f"every target of {self.title} in {self.root} is {low:g} (as float32): there is nothing to learn; "
                "check the column, or scale targets that differ by less than one part in 16 million"
            )
        if self._bins < 1:
            raise ValueError(
                f"cannot lay {self._bins} bins over targets from {low:g} to {high:g}; give data.bins a positive number,"
                " or edges"
            )
        return Bins.uniform(low, high, (high - low) / self._bins)

    @staticmethod
    def collate(samples: list[Batch]) -> Batch:
        """Samples to batch; to be replaced where samples differ in length."""
        batch: Batch = default_collate(samples)
        return batch

    def training_pass(self, epoch: int) -> Iterable[Batch]:
        """Every training sample once, augmented, in batches as large as training's, for statistics at epoch end.

        Order and augmentation are drawn from (seed, epoch) too, but are others than training's: drawn as for an epoch
        that training never reaches. The order is shuffled because batch norm, in train mode, mixes what meets in a
        batch, and the samples may be sorted by target.
        """
        self._pass.set_epoch(-1 - epoch)
        return self._pass

    def describe(self) -> dict[str, Any]:
        """Name, counts and fingerprint, for the run record."""
        return {
            "name": self.title,
            "fixture": self.fixture,
            "fingerprint": self.fingerprint,
            "bins": self.bins.count,
            "target_scale": self.target_scale,
            **{name: samples.describe() for name, samples in self.parts.items()},
        }

    def _check(self) -> None:
        for part in ("train", "validation", "test"):
            least = 2 if part == "train" else 1
            found = len(self.parts[part])
            if found < least:
                raise ValueError(
                    f"{self.title} in {self.root}: the {part} part has {found} samples and needs {least}; {self.remedy}"
                )
        for part, samples in self.parts.items():
            check_targets(samples, f"{self.title} in {self.root}: the {part} part", self.lowest_target)
        for part, facts in ({} if self.fixture else self.expected).items():
            described = self.parts[part].describe()
            told = {key: described[key] for key in facts}
            if told != facts:
                raise ValueError(
                    f"{self.title} in {self.root}: the {part} part has {_counted(told)}, and the published split has"
                    f" {_counted(facts)}; {self.remedy}"
                )
        check_files(list(self.parts.values()), self.title, self.remedy_for_images or self.remedy, self.upright)


def _counted(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,g}" for name, number in counts.items())
