"""Anybody's own images: a folder for each class, or a table of paths and labels."""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from typing_extensions import Unpack

from rambo.datasets.fixture import write_folder
from rambo.datasets.records import Records
from rambo.datasets.retrieval import RetrievalData, Shared

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
PARTS = ("train", "validation", "test")


class ImageFolder(RetrievalData):
    """Your own images, split by class: no class is in two parts, so the test asks about things never seen.

    Either `root/<class>/<image>` (any depth below the class; hidden files and files that are no images are passed over)
    or, with `table`, a CSV file with a header and the columns `path`, `label` and, if you like, `split` (train,
    validation or test) and `super_label`; paths are relative to `root`.

    Which part a class goes to is decided, in this order, by the table's `split`; by `test_classes` and
    `validation_classes`; by `test_fraction` and `validation_fraction`, which take the classes whose sha256 comes first,
    so that adding a class moves no other one across unless the share calls for it.

    Pictures are turned as their EXIF orientation says, since cameras and telephones rely on it.

    Args:
        root: Folder of the images.
        table: CSV file, relative to `root` or absolute; None to go by folders.
        test_fraction: Share of the classes to test on; ignored where lists or a `split` column decide.
        test_classes: Names of the classes to test on.
        validation_classes: Names of the classes to validate on.

    Raises:
        FileNotFoundError: If there is no such folder or table, or listed images are missing.
        ValueError: If the classes cannot be split as asked, or a part could not be trained or tested on.
    """

    title = "folder"
    remedy = "check data.root, which should hold a folder of images for each class"
    upright = True

    def __init__(
        self,
        root: str | Path,
        table: str | Path | None = None,
        test_fraction: float = 0.5,
        test_classes: Sequence[str] | None = None,
        validation_classes: Sequence[str] | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
        self.table, self.test_fraction = table, test_fraction
        self.test_classes = [str(name) for name in test_classes or []]
        self.validation_classes = [str(name) for name in validation_classes or []]
        if shared.get("fixture"):  # the fixture goes by folders, and has classes of its own
            self.table, self.test_classes, self.validation_classes = None, [], []
        super().__init__(root, **shared)

    def read(self, root: Path) -> dict[str, Records]:
        """The parts that have images."""
        rows = self._listed(root) if self.table is not None else _found(root, self.remedy)
        if not rows:
            raise FileNotFoundError(f"no images in {root}; {self.remedy}")
        part_of = self._assign(rows)
        classes = {name: number for number, name in enumerate(sorted(part_of))}
        kinds = {name: number for number, name in enumerate(sorted({row["super_label"] or "" for row in rows}))}
        everything = Records(
            names=[row["path"] for row in rows],
            labels=torch.tensor([classes[row["label"]] for row in rows]),
            super_labels=torch.tensor([kinds[row["super_label"]] for row in rows]) if len(kinds) > 1 else None,
            folder=root,
            class_names={number: name for name, number in classes.items()},
        )
        if "train" not in part_of.values():
            raise ValueError(f"no class is left for training in {root}; choose fewer for validation and test")
        parts = {
            part: everything.where(torch.tensor([part_of[row["label"]] == part for row in rows]))
            for part in PARTS
            if part in part_of.values()
        }
        for part, records in parts.items():
            self._judge(part, records)
        return parts

    def _listed(self, root: Path) -> list[dict[str, str]]:
        table = root / str(self.table)  # an absolute path stays as it is
        if not table.is_file():
            raise FileNotFoundError(f"no table {table}; check data.table, a CSV file with columns path and label")
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "path" not in columns or "label" not in columns:
                raise ValueError(
                    f"{table} needs a header with the columns path and label (and split, if you like),"
                    f" got {', '.join(columns)!r}"
                )
            rows = []
            for row in reader:
                values = {key: (row.get(key) or "").strip() for key in ("path", "label", "split", "super_label")}
                if not values["path"] or not values["label"] or values["split"] not in ("", *PARTS):
                    raise ValueError(
                        f"{table}, line {reader.line_num}: expected a path, a label and a split out of"
                        f" {', '.join(PARTS)}, got {row}"
                    )
                rows.append(values)
        twice = [path for path, count in Counter(row["path"] for row in rows).items() if count > 1]
        if twice:
            raise ValueError(f"{table} lists {twice[0]!r} more than once; leave one line for each image")
        return rows

    def _assign(self, rows: Sequence[dict[str, str]]) -> dict[str, str]:
        """Class -> part."""
        classes = sorted({row["label"] for row in rows})
        splits = {row["split"] for row in rows}
        if splits != {""}:
            return _assigned_by_table(rows)
        chosen = [*self.test_classes, *self.validation_classes]
        unknown = sorted(set(chosen) - set(classes))
        if unknown:
            raise ValueError(f"there is no class {unknown[0]!r} in {self.root}; its classes are {_some(classes)}")
        both = sorted(set(self.test_classes) & set(self.validation_classes))
        if both:
            raise ValueError(f"class {both[0]!r} is in test_classes and in validation_classes; leave it in one of them")
        test = set(self.test_classes)
        if not test:
            free = [name for name in classes if name not in self.validation_classes]
            test = set(sorted(free, key=_draw)[: max(1, round(self.test_fraction * len(classes)))])
        return {
            name: "test" if name in test else "validation" if name in self.validation_classes else "train"
            for name in classes
        }

    def _judge(self, part: str, records: Records) -> None:
        """Refuses a part that no loss could learn from or no metric could rate; warns of classes of one image."""
        counts = Counter(records.labels.tolist())
        names = records.class_names or {}
        single = [names[label] for label, count in counts.items() if count == 1]
        if len(counts) < 2:
            raise ValueError(
                f"the {part} part of {self.root} has {len(counts)} class, and two are needed;"
                " choose other classes or shares"
            )
        if len(single) == len(counts):
            raise ValueError(
                f"each class of the {part} part of {self.root} has one image, so none has another to find;"
                " put images of the same thing in one folder"
            )
        if single:
            warnings.warn(
                f"{len(single)} of {len(counts)} {part} classes in {self.root} have one image ({_some(single)}); these"
                " cannot be queries, and serve as negatives",
                stacklevel=2,
            )

    def write_fixture(self, root: Path) -> Path:
        """16 folders of 5 images."""
        return write_folder(root)


def _found(root: Path, remedy: str) -> list[dict[str, str]]:
    """The images below `root`, the first folder being the class, in the order of their names."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; {remedy}")
    paths = sorted(path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS)
    shown = [path for path in paths if not any(name.startswith(".") for name in path.parts)]
    loose = [path for path in shown if len(path.parts) == 1]
    if loose:
        raise ValueError(f"{loose[0]} lies in {root} itself, in no class; move it into the folder of its class")
    return [{"path": p.as_posix(), "label": p.parts[0], "split": "", "super_label": ""} for p in shown]


def _assigned_by_table(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    part_of: dict[str, str] = {}
    for row in rows:
        if not row["split"]:
            raise ValueError(
                f"the table gives no split for {row['path']!r}; give one for every image, or leave the column out"
            )
        if part_of.setdefault(row["label"], row["split"]) != row["split"]:
            raise ValueError(
                f"class {row['label']!r} is in {part_of[row['label']]} and in {row['split']}; the split is by class, so"
                " that the test shows things never seen"
            )
    lacking = {"train", "test"} - set(part_of.values())
    if lacking:
        raise ValueError(f"the table's split column has no {' and no '.join(sorted(lacking))} images; it needs both")
    return part_of


def _draw(name: str) -> bytes:
    return hashlib.sha256(f"test {name}".encode()).digest()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
