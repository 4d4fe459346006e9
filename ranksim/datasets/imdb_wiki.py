"""IMDB-WIKI-DIR: ages of faces, many and noisy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.data.download import RemoteFile
from ranksim.datasets.fixture import write_imdb_wiki
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples, read_split

_IMAGES = "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/static"


@dataclass(frozen=True)
class Blob(RemoteFile):
    """A file that is known by what git calls its content: the sha1 of "blob <bytes>", a zero byte, and the content."""

    git_blob: str = ""

    def fault(self, path: Path) -> str | None:
        """What is wrong with `path` as a copy of this file, or None."""
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return None if found == self.git_blob else f"has git blob id {found}, expected {self.git_blob}"


class IMDBWiki(RegressionData):
    """IMDB-WIKI-DIR: 213,553 photographs of faces from IMDb and Wikipedia, with an age in years each.

    191,509 images for training, 11,022 each for validation and test, at most 150 of an age. Ages were computed from
    dates of birth and of the photograph; some are wrong, and ages above 120 are in training only and belong to the last
    bin, 120. The split, `imdb_wiki.csv`, is the same in the code of DIR, RankSim, ConR, Balanced MSE and others. Images
    lie in `root/imdb_crop/NN/` and `root/wiki_crop/NN/`; two archives of about 8 GB.

    Source: Rothe et al. 2018 (the images); Yang et al. 2021 (the split).
    """

    title = "IMDB-WIKI-DIR"
    remedy = "run: python scripts/download.py imdb_wiki"
    downloads = ("imdb_wiki",)
    files = (
        Blob(
            "imdb_wiki.csv",
            urls=(
                "https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/"
                "a6fdc45d45c04e6f5c40f43925bc66e580911084/imdb-wiki-dir/data/imdb_wiki.csv",
            ),
            git_blob="c1512e3da0de9076a0793b982c9a74cd872c0d8b",
        ),
        RemoteFile("imdb_crop.tar", urls=(f"{_IMAGES}/imdb_crop.tar",), unpack=True),
        RemoteFile("wiki_crop.tar", urls=(f"{_IMAGES}/wiki_crop.tar",), unpack=True),
    )
    expected = {  # noqa: RUF012
        part: {"samples": size} for part, size in (("train", 191_509), ("validation", 11_022), ("test", 11_022))
    }
    write_fixture = staticmethod(write_imdb_wiki)

    def read(self, root: Path) -> dict[str, Samples]:
        """The published split."""
        return read_split(self.published(self.files[0]))
