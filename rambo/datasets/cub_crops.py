"""Birds of CUB-200-2011, cut out by their boxes: a small benchmark of photographs."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torchvision.transforms.v2.functional as vision
from PIL import Image
from torch import nn

from harness.data.archives import move_into, unpack
from harness.data.download import RemoteFile
from harness.data.images import decode, file_marks, files_below
from harness.files import sync_everything
from rambo.datasets.cub import CUB200
from rambo.datasets.fixture import write_cub_crops, write_listed
from rambo.datasets.listing import from_table
from rambo.datasets.records import Records, numbered, some
from rambo.datasets.retrieval import RetrievalData
from rambo.sampling import ClassBalancedBatches

MANIFEST = Path(__file__).with_name("cub_crops.csv.gz")
SIDE = 227  # pixels
_COMMIT = "16a8a47ea88abb31d9b61b81dbbe09347bf72385"


class CUBCrops(RetrievalData):
    """100 classes of CUB-200-2011 with all their images, each cut to the bird's box and squashed to 227 x 227.

    Those of the official classes 1-100 are for training (58 classes, 3,428 images), those of 101-200 for the test (42
    classes, 2,474 images), where each image queries all others. That is not the protocol of the papers, which have
    whole photographs of 200 classes: no number on these belongs beside one on `CUB200`.

    `root` holds `images/<class>/<image>` and `images.csv` (path, label, split). The published crops are known by the
    sha256 of every image (`manifest`). `cut` makes crops of the same images from the official photographs; resampling
    gives them other pixels, so they are other data, with another name and fingerprint.

    Raises:
        ValueError: If crops that go by the published names are not listed as published, or hold something else.

    Source: serizba/vision, ex03/task2/bird_dataset; Wah et al. 2011, whose terms apply (non-commercial research).
    """

    title = "CUB-200-2011 crops"
    remedy = "run: python scripts/download.py cub_crops"
    files = (
        RemoteFile(
            "vision.zip",  # packed anew for each download, so that it has no lasting hash
            urls=(
                f"https://github.com/serizba/vision/archive/{_COMMIT}.zip",
                f"https://codeload.github.com/serizba/vision/zip/{_COMMIT}",
            ),
            unpack=True,
        ),
    )
    expected = {"train": {"images": 3428, "classes": 58}, "test": {"images": 2474, "classes": 42}}  # noqa: RUF012
    write_fixture = staticmethod(write_cub_crops)
    published_ones = False

    @property
    def downloads(self) -> tuple[str, ...]:
        """The published crops can be downloaded, others cannot."""
        return ("cub_crops",) if self.published_ones else ()

    def read(self, root: Path) -> dict[str, Records]:
        """The two halves of the classes."""
        rows = from_table(self.located("images.csv", root) / "images.csv")
        classes, labels = numbered([row.label for row in rows])
        everything = Records(
            names=[row.path for row in rows],
            labels=labels,
            folder=root,
            class_names={number: name.split(".", 1)[-1].replace("_", " ") for number, name in enumerate(classes)},
        )
        known = {row["path"]: (row["label"], row["split"]) for row in ([] if self.fixture else manifest())}
        listed = {row.path: (row.label, row.split) for row in rows}
        self.published_ones = not known.keys().isdisjoint(listed)
        if self.published_ones and listed != known:
            raise ValueError(f"{root / 'images.csv'} is not the published one; remove it and {self.remedy}")
        return everything.parted([row.split for row in rows])

    def check(self, parts: Mapping[str, Records]) -> None:
        """Compares counts and, of the published crops, what the files hold."""
        super().check(parts)
        if not self.published_ones:
            return
        marks = {row["path"]: row["sha256"] for row in manifest()}
        names = [name for records in parts.values() for name in records.names]
        found = file_marks([self.root / name for name in names])
        others = [name for name, mark in zip(names, found, strict=True) if mark != marks[name]]
        if others:
            raise ValueError(
                f"{self.title} in {self.root}: {len(others):,} of {len(names):,} images are not the published ones"
                f" ({some(others)}); {self.remedy}"
            )

    def describe(self) -> dict[str, Any]:
        """As every data set, with a name of their own for crops that were cut here."""
        name = self.title if self.published_ones or self.fixture else f"{self.title}, cut here"
        return {**super().describe(), "name": name}

    @staticmethod
    def unpack(archive: Path, folder: Path) -> None:
        """Brings the images of the manifest, whatever they are called in the archive, into `folder`; all or none.

        Raises:
            UnsafeArchive: As `harness.data.archives.unpack`.
            ValueError: If the archive is damaged, or an image is not in it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".unpacking") as inside, _built(folder) as building:
            unpack(archive, Path(inside))
            paths = sorted(path for path in files_below(Path(inside)) if path.suffix.lower() == ".jpg")
            there = dict(zip((mark for path in paths for mark in file_marks([path])), paths, strict=True))
            rows = manifest()
            missing = [row["path"] for row in rows if row["sha256"] not in there]
            if missing:
                raise ValueError(
                    f"{archive} lacks {len(missing):,} of {len(rows):,} images ({some(missing)}); delete it, and if it"
                    " is the same the next time, its source has changed: see --from"
                )
            for row in rows:
                place = building / row["path"]
                place.parent.mkdir(parents=True, exist_ok=True)
                there[row["sha256"]].rename(place)
            write_listed(building, [(row["path"], row["label"], row["split"]) for row in rows])


def manifest() -> list[dict[str, str]]:
    """path, sha256, label and split of every published crop."""
    with gzip.open(MANIFEST, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cut(official: Path, folder: Path) -> None:
    """Cuts the same images out of the official CUB-200-2011 in `official`, by its boxes, into `folder`; all or none.

    Raises:
        FileExistsError: If there are crops in `folder`.
        FileNotFoundError, ValueError: If the official data are not there or not whole.
    """
    if (folder / "images.csv").exists():
        raise FileExistsError(f"{folder} has crops already; remove it, or name another folder with --root")
    sampler = partial(ClassBalancedBatches, batch_size=4, samples_per_class=2)
    birds = CUB200(official, sampler=sampler, train_transform=nn.Identity(), test_transform=nn.Identity())
    images = birds.parts["train"].folder
    assert images is not None
    lists = images.parent
    columns = ("number", "left", "top", "width", "height")
    boxes = {number: list(map(float, box)) for number, *box in birds.listed(lists / "bounding_boxes.txt", columns)}
    splits = {row["label"]: row["split"] for row in manifest()}
    rows = []
    with _built(folder) as building:
        for number, name in birds.listed(lists / "images.txt", ("number", "name")):
            label = name.split("/")[0]
            if label not in splits:
                continue
            left, top, width, height = boxes[number]
            picture = decode(images / name)
            picture = picture[:, round(top) : round(top + height), round(left) : round(left + width)]
            crop = vision.resize(picture, [SIDE, SIDE], antialias=True).permute(1, 2, 0)
            place = building / "images" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop.numpy()).save(place, quality=95)
            rows.append((f"images/{name}", label, splits[label]))
        write_listed(building, sorted(rows))


@contextmanager
def _built(folder: Path) -> Iterator[Path]:
    """A folder to write to, of which everything is moved into `folder` in the end if nothing was raised."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".building") as building:
        yield Path(building)
        sync_everything()
        move_into(Path(building), folder)
