"""In-Shop Clothes Retrieval, a part of DeepFashion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from harness.data.download import RemoteFile
from rambo.datasets.fixture import write_inshop
from rambo.datasets.records import BOTH, ROLES, Records, numbered
from rambo.datasets.retrieval import RetrievalData

PARTITION = "list_eval_partition.txt"


class InShop(RetrievalData):
    """In-Shop: 52,712 photographs of 7,982 garments; 25,882 of 3,997 garments for training.

    In the test, 14,218 queries are searched in a gallery of 12,612 images of the same 3,985 garments; no query is in
    the gallery. `Eval/list_eval_partition.txt` says which is which: a line with the count, a header, then path, garment
    and train / query / gallery in columns padded with spaces. All lines are used; skipping one too many, as published
    loaders do, loses the first image. A dozen garments have a single training image: they are kept, and serve as
    negatives. (The paper's text gives the size of the whole data set, 54,642 / 11,735.)

    Super-labels are kinds of garment, the second and third part of the path (`WOMEN_Dresses`). `img/` is looked for
    below `Img/` and below `root`; the standard images (about 256 pixels) are meant, not `img_highres`.

    Source: Liu et al. 2016.
    """

    title = "In-Shop Clothes Retrieval"
    remedy = "run: python scripts/download.py inshop"
    downloads = ("inshop",)
    files = (RemoteFile("Img/img.zip", unpack=True), RemoteFile(f"Eval/{PARTITION}"))  # no published hashes: counts
    by_hand = (
        "In-Shop may be used for non-commercial research under an agreement: see"
        " https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html, put img.zip into {root}/Img and"
        " list_eval_partition.txt into {root}/Eval, and run the same command again"
    )
    expected = {  # noqa: RUF012
        "train": {"images": 25882, "classes": 3997},
        "test": {"images": 26830, "classes": 3985, "queries": 14218, "gallery": 12612},
    }
    write_fixture = staticmethod(write_inshop)

    def read(self, root: Path) -> dict[str, Records]:
        """Training images, and queries with gallery."""
        homes = (root, root / "In-shop Clothes Retrieval Benchmark")
        lists = self.located(PARTITION, *(folder for home in homes for folder in (home / "Eval", home)))
        home = lists.parent if lists.name == "Eval" else lists
        pictures = next((f for f in (home / "Img", home) if (f / "img").is_dir()), None)
        if pictures is None:
            raise FileNotFoundError(f"{self.title} in {home} is incomplete: Img/img is missing; {self.remedy}")
        rows = self.listed(lists / PARTITION, ("image_name", "item_id", "evaluation_status"), header=2)
        _, kinds = numbered([_kind(path) for path, _, _ in rows])
        everything = Records(
            names=[path for path, _, _ in rows],
            labels=torch.tensor([int(item.removeprefix("id_")) for _, item, _ in rows]),
            super_labels=kinds,
            roles=torch.tensor([ROLES.get(status, BOTH) for _, _, status in rows]),
            folder=pictures,
            class_names={int(item.removeprefix("id_")): f"{_kind(path)} {item}" for path, item, _ in rows},
        )
        parts = everything.parted(["train" if status == "train" else "test" for _, _, status in rows])
        return {**parts, "train": replace(parts["train"], roles=None)}


def _kind(path: str) -> str:
    return "_".join(path.split("/")[1:3])
