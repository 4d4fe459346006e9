"""IMDB-WIKI-DIR: ages of faces, many and noisy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.data.download import RemoteFile
from ranksim.datasets.fixture import write_imdb_wiki
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples, read_split

_IMAGES = "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/static"


class IMDBWiki(RegressionData):
    """IMDB-WIKI-DIR: 213,553 photographs of faces from IMDb and Wikipedia, with an age in years each.

    191,509 images for training, 11,022 each for validation and test, at most 150 of an age. Ages were computed from
    dates of birth and of the photograph; some are wrong (up to 186 years), and ages above 120 are in training only and
    belong to the last bin, 120.

    The split is a file, `imdb_wiki.csv` (columns age, path, split), the same in the code of DIR, RankSim, ConR,
    Balanced MSE and others; it is recognised by its git blob id. Images lie in `root/imdb_crop/NN/` and
    `root/wiki_crop/NN/`; two archives of about 8 GB.

    Source: Rothe et al. 2018 (the images); Yang et al. 2021 (the split).
    """

    title = "IMDB-WIKI-DIR"
    remedy = "run: python scripts/download.py imdb_wiki"
    downloads = ("imdb_wiki",)
    files = (
        RemoteFile(
            "imdb_wiki.csv",
            urls=(
                "https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/"
                "a6fdc45d45c04e6f5c40f43925bc66e580911084/imdb-wiki-dir/data/imdb_wiki.csv",
            ),
        ),
        RemoteFile("imdb_crop.tar", urls=(f"{_IMAGES}/imdb_crop.tar",), unpack=True),
        RemoteFile("wiki_crop.tar", urls=(f"{_IMAGES}/wiki_crop.tar",), unpack=True),
    )
    git_blob = "c1512e3da0de9076a0793b982c9a74cd872c0d8b"
    """What git calls the content of imdb_wiki.csv."""
    expected = {  # noqa: RUF012
        "train": {"samples": 191_509},
        "validation": {"samples": 11_022},
        "test": {"samples": 11_022},
    }
    lowest_target = 0.0

    def read(self, root: Path) -> dict[str, Samples]:
        """The published split."""
        table = root / "imdb_wiki.csv"
        if not table.is_file():
            raise FileNotFoundError(f"no {self.title} in {root} (imdb_wiki.csv is missing); {self.remedy}")
        found = self.git_blob if self.fixture else git_blob(table)
        if found != self.git_blob:
            raise ValueError(
                f"{table} has git blob id {found}, expected {self.git_blob}: it is damaged, or another split of the"
                f" same images; remove it and {self.remedy}"
            )
        return read_split(table, "age", self.remedy)

    def write_fixture(self, root: Path) -> Path:
        """41 training images, 12 each for validation and test."""
        return write_imdb_wiki(root)


def git_blob(path: Path) -> str:
    """What git calls the content of a file: the sha1 of "blob <bytes>", a zero byte, and the content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
