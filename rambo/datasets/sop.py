"""Stanford Online Products."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.data.download import RemoteFile
from rambo.datasets.fixture import write_sop
from rambo.datasets.records import Records
from rambo.datasets.retrieval import RetrievalData


class StanfordOnlineProducts(RetrievalData):
    """Stanford Online Products: photographs from shop listings, 22,634 products in 12 categories, 2 to 12 of each.

    Training on 11,318 products (59,551 images), test on the other 11,316 (60,502), where each image queries all others.
    The split is that of `Ebay_train.txt` and `Ebay_test.txt`, whose lines hold image id, product, category and path
    under a header. The categories are the super-labels; both halves have all 12. File names end in `.JPG`. Either the
    folder `Stanford_Online_Products` or the one above is accepted as `root`. Product 0 here is product 1 there.

    Source: Oh Song et al. 2016.
    """

    title = "Stanford Online Products"
    remedy = "run: python scripts/download.py sop"
    downloads = ("sop",)
    files = (
        RemoteFile(
            "Stanford_Online_Products.zip",
            urls=(
                "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
                "ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
            ),
            size=3_083_860_082,
            sha256="b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48",
            md5="7f73d41a2f44250d4779881525aea32e",
            unpack=True,
        ),
    )
    expected = {  # noqa: RUF012
        "train": {"images": 59551, "classes": 11318, "super_classes": 12},
        "test": {"images": 60502, "classes": 11316, "super_classes": 12},
    }
    write_fixture = staticmethod(write_sop)

    def read(self, root: Path) -> dict[str, Records]:
        """The two lists."""
        folder = self.located("Ebay_train.txt", root / "Stanford_Online_Products", root)
        return {part: self._part(folder, f"Ebay_{part}.txt") for part in ("train", "test")}

    def _part(self, folder: Path, name: str) -> Records:
        rows = self.listed(folder / name, ("image_id", "class_id", "super_class_id", "path"), header=1)
        names = [row[3] for row in rows]
        labels = [int(row[1]) - 1 for row in rows]
        return Records(
            names=names,
            labels=torch.tensor(labels),
            super_labels=torch.tensor([int(row[2]) - 1 for row in rows]),
            folder=folder,
            class_names={
                label: f"{name.split('_final')[0].replace('_', ' ')} {label + 1}"
                for label, name in zip(labels, names, strict=True)
            },
        )
