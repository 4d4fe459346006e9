"""Caltech-UCSD Birds-200-2011."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.data.download import RemoteFile
from rambo.datasets.fixture import write_cub
from rambo.datasets.records import Records
from rambo.datasets.retrieval import RetrievalData


class CUB200(RetrievalData):
    """CUB-200-2011 in the split for retrieval: classes 1-100 for training, classes 101-200 for the test.

    11,788 photographs of 200 bird species, 41 to 60 of each: 5,864 for training, 5,924 for the test, where each image
    queries all others. `train_test_split.txt` is not used: it is for classification and has all 200 classes in both
    of its halves, and results obtained with it (5,994 / 5,794 images) cannot be compared with these.

    Some images are grayscale; they are read as RGB. The archive unpacks to `CUB_200_2011/` and a stray
    `attributes.txt` beside it; either that folder or the one above is accepted as `root`. Images are those that
    `images.txt` names (its order is not that of the sorted files), so leftovers such as `._*` files do no harm.
    Class 0 here is class 1 there.

    Source: Wah et al. 2011; the split is that of RaMBO, section 5.
    """

    title = "CUB-200-2011"
    remedy = "run: python scripts/download.py cub"
    downloads = ("cub",)
    files = (
        RemoteFile(
            "CUB_200_2011.tgz",
            urls=(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                "https://s3.amazonaws.com/fast-ai-imageclas/CUB_200_2011.tgz",
            ),
            size=1_150_585_339,
            sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            md5="97eceeb196236b17998738112f37df78",
            unpack=True,
        ),
    )
    expected = {"train": {"images": 5864, "classes": 100}, "test": {"images": 5924, "classes": 100}}  # noqa: RUF012
    write_fixture = staticmethod(write_cub)

    def read(self, root: Path) -> dict[str, Records]:
        """The two halves of the classes."""
        folder = self.located("images.txt", root / "CUB_200_2011", root)
        names, classes, titles = (
            {row[0]: row[1] for row in self.listed(folder / list_, ("number", "value"))}
            for list_ in ("images.txt", "image_class_labels.txt", "classes.txt")
        )
        if names.keys() != classes.keys():
            raise ValueError(f"images.txt and image_class_labels.txt in {folder} list different images; {self.remedy}")
        labels = [int(classes[number]) - 1 for number in names]
        everything = Records(
            names=list(names.values()),
            labels=torch.tensor(labels),
            folder=folder / "images",
            class_names={int(number) - 1: name.split(".", 1)[-1].replace("_", " ") for number, name in titles.items()},
        )
        half = len(titles) // 2  # 100
        return everything.parted(["train" if label < half else "test" for label in labels])
