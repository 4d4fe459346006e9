"""In-Shop Clothes Retrieval, a part of DeepFashion."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.data.download import RemoteFile
from rambo.datasets.fixture import write_inshop
from rambo.datasets.records import GALLERY, QUERY, Records
from rambo.datasets.retrieval import RetrievalData

PARTITION = "list_eval_partition.txt"
_ROLES = {"query": QUERY, "gallery": GALLERY}


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

    def read(self, root: Path) -> dict[str, Records]:
        """Training images, and queries with gallery."""
        homes = (root, root / "In-shop Clothes Retrieval Benchmark")
        partition = next((f for h in homes for f in (h / "Eval" / PARTITION, h / PARTITION) if f.is_file()), None)
        if partition is None:
            raise FileNotFoundError(f"no {self.title} in {root} ({PARTITION} is missing); {self.remedy}")
        home = partition.parent.parent if partition.parent.name == "Eval" else partition.parent
        pictures = next((f for f in (home / "Img", home) if (f / "img").is_dir()), None)
        if pictures is None:
            raise FileNotFoundError(f"{self.title} in {home} is incomplete: Img/img is missing; {self.remedy}")
        rows = self._rows(partition)
        kinds = sorted({_kind(path) for path, _, _ in rows})
        everything = Records(
            names=[path for path, _, _ in rows],
            labels=torch.tensor([int(item.removeprefix("id_")) for _, item, _ in rows]),
            super_labels=torch.tensor([kinds.index(_kind(path)) for path, _, _ in rows]),
            roles=torch.tensor([_ROLES.get(status, 0) for _, _, status in rows]),
            folder=pictures,
            class_names={int(item.removeprefix("id_")): f"{_kind(path)} {item}" for path, item, _ in rows},
        )
        training = torch.tensor([status == "train" for _, _, status in rows])
        return {"train": everything.where(training).without_roles(), "test": everything.where(~training)}

    def _rows(self, partition: Path) -> list[tuple[str, str, str]]:
        """(path, garment, status) of each image."""
        lines = partition.read_text(encoding="utf-8").splitlines()
        count, header = [*lines, "", ""][:2]
        rows = []
        for line in lines[2:]:
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 3 or fields[2] not in ("train", "query", "gallery") or len(fields[0].split("/")) < 4:
                raise ValueError(
                    f"{partition} is damaged: expected path, garment and train/query/gallery, got {line!r};"
                    f" {self.remedy}"
                )
            rows.append((fields[0], fields[1], fields[2]))
        if header.split() != ["image_name", "item_id", "evaluation_status"] or count.strip() != str(len(rows)):
            raise ValueError(
                f"{partition} is damaged: its first line announces {count.strip()!r} images and it lists {len(rows)};"
                f" {self.remedy}"
            )
        return rows

    def write_fixture(self, root: Path) -> Path:
        """3 kinds of garment: 12 garments for training, one of them with a single image, and 6 for the test."""
        return write_inshop(root)


def _kind(path: str) -> str:
    return "_".join(path.split("/")[1:3])
