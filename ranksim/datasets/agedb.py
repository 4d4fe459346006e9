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
    image. The split is a file, `agedb.csv` (columns age, path, split), the same in the code of DIR, RankSim, ConR and
    Rank-N-Contrast. A file of that name in the code of VIR is another split: it is refused, as results on it cannot be
    compared.

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
        "train": {
            "samples": 12208,
            "different": 100,
            "lowest": 1,
            "highest": 101,
            "commonest": 35,
            "largest_count": 353,
        },
        "validation": {"samples": 2140, "different": 92, "lowest": 3, "highest": 95, "largest_count": 30},
        "test": {"samples": 2140, "different": 92, "lowest": 3, "highest": 95, "largest_count": 30},
    }
    lowest_target = 0.0

    def read(self, root: Path) -> dict[str, Samples]:
        """The published split."""
        table = root / "agedb.csv"
        if not table.is_file():
            raise FileNotFoundError(f"no {self.title} in {root} (agedb.csv is missing); {self.remedy}")
        fault = None if self.fixture else self.files[0].fault(table)
        if fault is not None:
            raise ValueError(
                f"{table} {fault}: it is damaged, or another split of the same images; remove it and {self.remedy}"
            )
        return read_split(table, "age", self.remedy)

    def write_fixture(self, root: Path) -> Path:
        """40 training images, 12 each for validation and test."""
        return write_agedb(root)
