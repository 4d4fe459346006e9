"""Pascal VOC, of any year that has a devkit: 2007 and 2012 in the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data.download import RemoteFile
from rambo.detection.data import ImageSet, VOCStyle
from rambo.detection.fixture import VOC_CLASSES, write_voc

__all__ = ["VOC2007", "VOC2012", "VOC_CLASSES", "PascalVOC", "VOCStyle"]

_TEST_OBJECTS = (
    285, 337, 459, 263, 469, 213, 1201, 358, 756, 244, 206, 489, 348, 325, 4528, 480, 242, 239, 282, 308,
)  # fmt: skip


def _archive(name: str, year: int, size: int, sha256: str) -> RemoteFile:
    homes = (
        f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}",
        f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}",
        "https://pjreddie.com/media/files",
        "https://huggingface.co/datasets/JimmyUnleashed/Pascal_VOC/resolve/main",
    )
    return RemoteFile(name, tuple(f"{home}/{name}" for home in homes), size, sha256, unpack=True)


class PascalVOC(VOCStyle):
    """Pascal VOC: photographs with boxes around the objects of twenty classes.

    2007 has 5,011 images in trainval and 4,952 in test, with 12,608 and 12,032 objects that are not difficult; 2012 has
    11,540 images in trainval, and no public boxes for its test. Training on 07+12 means both trainvals, tested on 07.
    Image sets are pairs of year and name. `root` is the folder that has `VOCdevkit`, or that folder itself.

    In training, objects marked as difficult are left out by default, as in mmdetection, whose recipe the paper uses;
    detectron2 keeps them. mmdetection also leaves out images without a target; `train_on_empty_images` decides here.

    Source: Everingham et al. 2010, table 2 and the table of test objects; the VOC 2012 development kit.
    """

    title = "Pascal VOC"
    default_sets = {"train": [[2007, "trainval"]], "test": [[2007, "test"]]}  # noqa: RUF012
    default_classes = VOC_CLASSES
    expected = {  # noqa: RUF012
        (2007, "train"): {"images": 2501, "objects": 6301},
        (2007, "val"): {"images": 2510, "objects": 6307},
        (2007, "trainval"): {"images": 5011, "objects": 12608},
        (2007, "test"): {
            "images": 4952,
            "objects": 12032,
            "per_class": dict(zip(VOC_CLASSES, _TEST_OBJECTS, strict=True)),
        },
        (2012, "trainval"): {"images": 11540, "objects": 27450},
    }

    @property
    def downloads(self) -> tuple[str, ...]:
        """Of all its years, as scripts/download.py calls them."""
        years = {int(year) for sets in self.sets.values() for year, _ in sets}
        return tuple(f"voc{year}" for year in sorted(years & {2007, 2012}))

    def folder(self, where: str | int) -> Path:
        """`VOCdevkit/VOC<year>`."""
        inner = self.root / f"VOC{where}"
        return inner if inner.is_dir() else self.root / "VOCdevkit" / f"VOC{where}"

    def remedy_for(self, where: str | int) -> str:
        """How to get a year."""
        if where in (2007, 2012):
            return f"run: python scripts/download.py voc{where}"
        return "take 2007 or 2012, or a kit of another year, 2005 to 2012, from the pages of the Pascal VOC challenge"

    def write_fixture(self, root: Path) -> Path:
        """Both years, a few images of each set."""
        return write_voc(root)

    def _image_sets(self, part: str, given: Any) -> list[ImageSet]:
        sets: list[ImageSet] = []
        for where, name in super()._image_sets(part, given):
            if not str(where).isdecimal():
                raise ValueError(f"data.{part}: an image set is a pair such as [2007, trainval], got {[where, name]}")
            if int(where) > 2007 and name == "test":
                raise ValueError(
                    f"data.{part}: Pascal VOC {where} has no public boxes for its test images; take [2007, test], or"
                    f" [{where}, val]"
                )
            sets.append((int(where), name))
        return sets


class VOC2007(PascalVOC):
    """Pascal VOC 2007, for scripts/download.py."""

    title = "Pascal VOC 2007"
    remedy = "run: python scripts/download.py voc2007"
    files = (
        _archive(
            "VOCtrainval_06-Nov-2007.tar",
            2007,
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        _archive(
            "VOCtest_06-Nov-2007.tar",
            2007,
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
    )


class VOC2012(PascalVOC):
    """Pascal VOC 2012, for scripts/download.py; its val stands where a test would."""

    title = "Pascal VOC 2012"
    remedy = "run: python scripts/download.py voc2012"
    default_sets = {"train": [[2012, "train"]], "test": [[2012, "val"]]}  # noqa: RUF012
    files = (
        _archive(
            "VOCtrainval_11-May-2012.tar",
            2012,
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    )
