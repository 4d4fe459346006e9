"""What every data set shares: how it is looked for, read, checked, loaded and described.

The file of a data set says where its samples are and what is said of each (`read`). A kind of data, such as images
with classes, adds its own arguments and checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from harness.data import archives, jpeg
from harness.data.bad_images import BadImages
from harness.data.download import RemoteFile
from harness.data.images import ImageCache, reduced, seeded_draws
from harness.data.loading import Batch, BatchSampler, EpochLoader, PassLoader, loading_options
from harness.data.reading import Images
from harness.data.rows import Rows, check_files, fingerprint

R = TypeVar("R", bound=Rows)


class PartDataset(Dataset[Batch], Generic[R]):
    """One part of a data set, for torch's loader.

    A training set is indexed by (epoch, index) and draws its augmentation from (seed, epoch, index), in whatever
    process it is loaded; the global random generator is left as it was. An evaluation set is indexed by index.

    `transform` goes from uint8 (3, height, width) to uint8 (3, h, w), the same h and w for every picture; None leaves
    pictures as they are. `cache` keeps the outcome of `transform.prepare`. `scaled` decodes JPEGs no larger than the
    transform needs: than `transform.plan` says of the picture's height and width (see `images.Plan`), or, where there
    is no plan, `transform.prepare.least`.
    """

    def __init__(
        self,
        rows: R,
        transform: Callable[..., Any] | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
        scaled: bool = False,
    ) -> None:
        if cache is not None and not isinstance(getattr(transform, "prepare", None), nn.Module):
            raise ValueError(
                f"an image cache keeps what transform.prepare makes, and {type(transform).__name__} has none;"
                " set data.cache=null"
            )
        self.rows, self.seed, self.cache, self.scaled = rows, seed, cache, scaled
        self.transform: Any = transform
        prepare: Any = getattr(transform, "prepare", None)
        if scaled and not hasattr(prepare, "least"):
            raise ValueError(
                "pictures are decoded at a scale that transform.prepare.least finds enough, and"
                f" {type(transform).__name__} has none; set data.decode=exact"
            )
        if scaled and cache is not None and prepare.least(9999, 9999) == (9999, 9999):
            raise ValueError(
                "a cache of whole pictures cannot keep reduced ones; set data.cache=null, or give `resize`"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> Batch:
        if not isinstance(key, tuple):
            return self.sample(key)
        epoch, index = key
        with seeded_draws(self.seed, epoch, index):
            return self.sample(index)

    def sample(self, index: int) -> Batch:
        """What the sample at `index` brings to its batch."""
        sample = {**self.rows.entries(index), "index": index}
        if self.rows.pictured:
            sample["image"] = self.image(index)
        return sample

    def image(self, index: int) -> Tensor:
        """The picture at `index` after the transform: uint8 (3, h, w)."""
        crop = self.rows.crop(index)
        if self.cache is not None and self.rows.pixels is None:
            picture = self.cache.load(self.rows.path(index), self.transform.prepare, self.rows.upright, crop)
        elif self.scaled and crop is None:
            return reduced(self.rows.path(index), self._plan, self.rows.upright).contiguous()
        else:
            picture = self.rows.load(index)
        viewed: Tensor = picture if self.transform is None else self.transform(picture)
        return viewed.contiguous()

    def _plan(self, height: int, width: int) -> tuple[tuple[int, int], Callable[[Tensor], Tensor]]:
        if hasattr(self.transform, "plan"):
            planned: tuple[tuple[int, int], Callable[[Tensor], Tensor]] = self.transform.plan(height, width)
            return planned
        return self.transform.prepare.least(height, width), self.transform


class PartedData(Generic[R]):
    """A data set in parts: "train", "test" and perhaps "validation".

    A kind of data adds its arguments and checks, and calls `open_loaders` once the parts are ready.

    Args:
        root: Folder of the data.
        train_transform: Augmentation, from uint8 (3, height, width) to uint8 (3, h, w); None for other inputs.
        test_transform: The same without chance.
        cache: Folder in which resized images are kept, or None.
        decode: "exact" decodes every pixel of a picture; "scaled" decodes JPEGs at half, a quarter or an eighth of
            their size where the transform needs no more, which is faster and changes pixels a little.
        on_bad_image: What becomes of image files that cannot be decoded, see `harness.data.bad_images`: "stop" or
            "skip".
        evaluation_batch_size: Samples per batch when evaluating.
        workers: Loading processes for each loader; never more than there are processor cores.
        worker_timeout: Seconds to wait for a batch of the loading processes before giving up; None: for ever.
        seed: Decides batches and augmentation, and nothing else.
        fixture: Whether to write a tiny copy of the layout to `<root>_fixture` and use that, in few and small batches.
        pin_memory: Whether batches are copied to page-locked memory, from which a GPU fetches them without holding up
            anybody; None: where there is CUDA.

    Raises:
        FileNotFoundError: If there are no data in `root`, or only part of them.
        ValueError: If an argument makes no sense, or the counts are not those of the published split.
    """

    title: ClassVar[str]  # what people call the data set
    remedy: ClassVar[str]  # what to do when it is not there
    remedy_for_images: ClassVar[str] = ""  # and when images are not there, if that is something else
    files: ClassVar[tuple[RemoteFile, ...]] = ()  # what scripts/download.py fetches
    by_hand: ClassVar[str] = ""  # what to do where a form or a login stands before the data, which go to {root}
    expected: ClassVar[Mapping[Any, Mapping[str, Any]]] = {}  # part -> what `describe` must say in the published split

    train: EpochLoader
    evaluation: dict[str, DataLoader[Batch]]

    @property
    def downloads(self) -> tuple[str, ...]:
        """What scripts/download.py calls the data, for whoever repeats a run; empty where it does not have them."""
        return ()

    def __init__(
        self,
        root: str | Path,
        *,
        train_transform: Callable[..., Any] | None = None,
        test_transform: Callable[..., Any] | None = None,
        cache: str | Path | None = None,
        decode: str = "exact",
        on_bad_image: str = "stop",
        evaluation_batch_size: int = 128,
        workers: int = 0,
        worker_timeout: float | None = None,
        seed: int = 0,
        fixture: bool = False,
        pin_memory: bool | None = None,
    ) -> None:
        if evaluation_batch_size < 1:
            raise ValueError(f"evaluation_batch_size must be at least 1, got {evaluation_batch_size}")
        if decode not in ("exact", "scaled"):
            raise ValueError(f"decode must be exact or scaled, got {decode!r}")
        if decode == "scaled" and not jpeg.available():
            raise ValueError("decode=scaled needs libjpeg-turbo; run: pip install simplejpeg, or set data.decode=exact")
        self.train_transform, self.test_transform = train_transform, test_transform
        self.seed, self.fixture, self._batch_size = seed, fixture, evaluation_batch_size
        self._loading = {**loading_options(workers, worker_timeout, pin_memory), "collate_fn": self.collate}
        self.bad_images = BadImages(on_bad_image, self._loading["num_workers"], cache)
        self.root = self.write_fixture(Path(root)) if fixture else Path(root)
        self.parts = self.load_parts()
        self.bad_images.tell(f"{self.title} in {self.root}")
        self.fingerprint = fingerprint(self.parts)
        in_files = self.parts["train"].folder is not None
        self.scaled = decode == "scaled" and in_files
        self.cache = ImageCache(cache, self.scaled) if cache is not None and in_files else None

    def read(self, root: Path) -> dict[str, R]:
        """The parts as found below `root`."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is read")

    def write_fixture(self, root: Path, /) -> Path:
        """Writes a tiny copy of the layout beside `root` and returns where it is."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture; set data.fixture=false")

    @staticmethod
    def unpack(archive: Path, folder: Path) -> None:
        """Unpacks one of `files` that is an archive, all of it or nothing."""
        archives.unpack(archive, folder)

    def located(self, name: str, *folders: Path) -> Path:
        """The first of the folders that has the file `name`; a FileNotFoundError says if none has."""
        for folder in folders:
            if (folder / name).is_file():
                return folder
        raise FileNotFoundError(f"no {self.title} in {self.root} ({name} is missing); {self.remedy}")

    def published(self, file: RemoteFile) -> Path:
        """Where a file of a published split lies; a ValueError if it is another one, and not stand-in data."""
        path = self.located(file.name, self.root) / file.name
        fault = None if self.fixture else file.fault(path)
        if fault is not None:
            raise ValueError(f"{path} {fault}: it is damaged, or another split; remove it and {self.remedy}")
        return path

    def load_parts(self) -> dict[str, R]:
        """Reads, checks and divides; then takes out the images that cannot be read, which moves no other one."""
        parts = self.read(self.root)
        self.check(parts)
        parts = self.divided(parts)
        parts = {name: self._readable(name, rows) for name, rows in parts.items()}
        self.check_rows(parts)
        return parts

    def _readable(self, part: str, rows: R) -> R:
        if rows.folder is None or not self.bad_images.skips:
            return rows
        paths = [rows.path(index) for index in range(len(rows))]
        return rows.where(torch.tensor(self.bad_images.good(part, rows.keys(), paths, rows.upright)))

    def divided(self, parts: dict[str, R]) -> dict[str, R]:
        """The parts, where more are made of those that were read."""
        return parts

    def check_rows(self, parts: Mapping[str, R]) -> None:
        """Refuses parts of which too little is there, at last, to train or to be tested on."""

    def check(self, parts: Mapping[str, R]) -> None:
        """Compares the counts with the published ones, and looks for the files."""
        for part, facts in ({} if self.fixture else self.expected).items():
            described = parts[part].describe()
            self.check_published(f"the {part} part", {key: described.get(key, 0) for key in facts}, facts, self.remedy)
        remedy = self.remedy_for_images or self.remedy
        check_files(list(parts.values()), self.title, remedy, judge=not self.bad_images.skips)

    def check_published(self, what: str, found: Mapping[str, Any], facts: Mapping[str, Any], remedy: str) -> None:
        """Refuses other counts than the published ones."""
        if found != facts:
            raise ValueError(
                f"{self.title} in {self.root}: {what} has {_counted(found)}, and the published split has"
                f" {_counted(facts)}; {remedy}"
            )

    @staticmethod
    def collate(samples: list[Any]) -> Batch:
        """Samples to batch; to be replaced where stacking them does not do."""
        batch: Batch = default_collate(samples)
        return batch

    def open_loaders(self, batches: BatchSampler) -> None:
        """Sets `train`, in the batches given, and `evaluation`, which goes through each other part in order."""
        self.train = self.epoch_loader(batches)
        self.evaluation = {}
        for part in self.parts:
            if part != "train":
                self.evaluation[part] = PassLoader(self.dataset(part), self._batch_size, **self._loading)

    def epoch_loader(self, batches: BatchSampler) -> EpochLoader:
        """Goes through the training part in the batches of an epoch."""
        return EpochLoader(self.dataset("train"), batches, **self._loading)

    def dataset(self, part: str) -> PartDataset[R]:
        """One part as the loaders read it."""
        return PartDataset(self.parts[part], self.transform_of(part), self.seed, self.cache, self.scaled)

    def transform_of(self, part: str) -> Callable[..., Any] | None:
        """What pictures of a part go through."""
        return self.train_transform if part == "train" else self.test_transform

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What using the model needs to know of the data, in plain values; `settings` is their resolved config.

        `reader` is the config of what reads inputs, see `harness.data.reading`. A kind of data may add `classes`, the
        names of labels, and whatever else an answer of the model has to be read with.
        """
        train = self.parts["train"]
        size = None if train.pixels is None else list(train.pixels.shape[-2:])
        transform = settings.get("test_transform")
        images = {"_target_": "harness.data.reading.Images", "transform": transform, "upright": train.upright}
        reader = {"reader": {**images, "size": size}} if train.pictured else {}
        return {**reader, "batch_size": self._batch_size}

    def as_trained(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Makes the evaluation of a model that was trained on other data read them as its own were read.

        Args:
            facts: What `for_use` told of its own, as in `harness.record.standalone.Trained`.
            settings: The resolved config of these data.

        Raises:
            ValueError: If they are not what the model takes.
        """
        wanted, own = facts.get("reader") or {}, self.for_use(settings).get("reader") or {}
        if wanted and not ("transform" in wanted and "transform" in own) and own != wanted:
            raise ValueError(
                f"{self.title} in {self.root} has other inputs than the model was trained on, or numbers them otherwise"
            )
        first: dict[str, Any] = {key: wanted.get(key) for key in ("size", "invert") if wanted.get(key) != own.get(key)}
        for loader in self.evaluation.values() if any(first.values()) else ():
            dataset: Any = loader.dataset
            dataset.transform, dataset.cache, dataset.scaled = Images(dataset.transform, **first).view, None, False

    def describe(self) -> dict[str, Any]:
        """Name, counts and fingerprint, for the run record."""
        return {
            "name": self.title,
            "fixture": self.fixture,
            "fingerprint": self.fingerprint,
            **{name: rows.describe() for name, rows in self.parts.items()},
            **self.bad_images.record(),
        }


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {f'({_counted(number)})' if isinstance(number, Mapping) else f'{number:,g}'}"
        for name, number in counts.items()
    )
