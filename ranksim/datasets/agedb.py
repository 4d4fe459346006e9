"""AgeDB-DIR: ages of faces."""

from __future__ import annotations

from pathlib import Path

from harness.data.download import RemoteFile
from ranksim.datasets.fixture import write_agedb
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples, read_split


class AgeDB(RegressionData):
    """AgeDB-DIR: 16,488 photographs of 567 people aged 1 to 101, with one age in years each.

    12,208 images for training, of which 353 show age 35 and some ages a single image; 2,140 each for validation and
    test, at most 30 of an age. 51 ages are many-shot, 16 medium and 33 few; no age of the test is without training
    image. The split, `agedb.csv`, is the same in the code of DIR, RankSim, ConR and Rank-N-Contrast; the file of that
    name in the code of VIR is another, and refused, as results on it cannot be compared.

    The images are not to be had by a program: the archive's password is given out by the authors of AgeDB. They belong
    in `root/AgeDB/`, named `<number>_<Name>_<age>_<m|f>.jpg`.

    Source: Moschoglou et al. 2017 (AgeDB); Yang et al. 2021 (the split).
    """

    title = "AgeDB-DIR"
    remedy = "run: python scripts/download.py agedb"
    downloads = ("agedb",)
    files = (
        RemoteFile(
            "agedb.csv",
            urls=(
                "https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/"
                "a6fdc45d45c04e6f5c40f43925bc66e580911084/agedb-dir/data/agedb.csv",
            ),
            size=687_669,
            sha256="ab9f8d4c7099a9d74ec5094c42b6fe9f1927a166a48d2ab800a88b2fd6081252",
        ),
    )
    remedy_for_images = (
        "ask the authors of AgeDB for the password of their archive (https://ibug.doc.ic.ac.uk/resources/agedb/), and"
        " unpack it so that the images lie in AgeDB/ beside agedb.csv"
    )
    expected = {  # noqa: RUF012
        part: {"samples": size} for part, size in (("train", 12_208), ("validation", 2_140), ("test", 2_140))
    }
    write_fixture = staticmethod(write_agedb)

    def read(self, root: Path) -> dict[str, Samples]:
        """The published split."""
        return read_split(self.published(self.files[0]))
