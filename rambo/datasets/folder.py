"""Anybody's own images: a folder for each class, or a table of paths and labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.data.images import check_same_files
from harness.seeds import fixed_order
from rambo.datasets.fixture import write_folder
from rambo.datasets.listing import Row, assigned, from_folders, from_table, warn_of_capitals
from rambo.datasets.records import BOTH, QUERY, ROLES, Records, numbered, some
from rambo.datasets.retrieval import RetrievalData

log = logging.getLogger(__name__)


class ImageFolder(RetrievalData):
    """Your own images, split by class: no class is in two parts, so the test asks about things never seen.

    Either `root/<class>/<image>` (any depth below the class; links are followed, hidden and other files passed over),
    or `root/<part>/<class>/<image>` where all folders of `root` are called like parts, or a table with the columns
    `path` below `root`, `label` and, if you like, `split` and `super_label`. Parts are train, validation and test, or
    query and gallery for a test in which those search these. Pictures are turned as their EXIF orientation says.

    Which part a class goes to is decided, in this order, by the table's `split` or the folders; by `test_classes` and
    `validation_classes`; by `test_fraction` and `validation_fraction`, which take the classes whose sha256 comes first,
    so that adding a class moves no other one across unless the share calls for it.

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
    write_fixture = staticmethod(write_folder)

    def __init__(
        self,
        root: str | Path,
        table: str | Path | None = None,
        test_fraction: float = 0.5,
        test_classes: Sequence[str] | None = None,
        validation_classes: Sequence[str] | None = None,
        **shared: Any,
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
        rows = from_folders(root, self.remedy) if self.table is None else from_table(root / self.table)
        if not rows:
            raise FileNotFoundError(f"no images in {root}; {self.remedy}")
        classes, labels = numbered([row.label for row in rows])
        kinds, super_labels = numbered([row.super_label for row in rows])
        roles = [ROLES.get(row.split, BOTH) for row in rows]
        everything = Records(
            names=[row.path for row in rows],
            labels=labels,
            super_labels=super_labels if len(kinds) > 1 else None,
            roles=torch.tensor(roles) if any(roles) else None,
            folder=root,
            upright=True,
            class_names=dict(enumerate(classes)),
        )
        part_of = self._assign(rows, classes)
        check_same_files(root, everything.names)
        warn_of_capitals(root, classes)
        if "train" not in part_of.values():
            raise ValueError(f"no class is left for training in {root}; choose fewer for validation and test")
        parts = everything.parted([part_of[row.label] for row in rows])
        for part, records in parts.items():
            parts[part] = records if part == "test" else replace(records, roles=None)
            self._judge(part, parts[part])
        return parts

    def _assign(self, rows: Sequence[Row], classes: Sequence[str]) -> dict[str, str]:
        """Class -> part."""
        test, validation = set(self.test_classes), set(self.validation_classes)
        if any(row.split for row in rows):
            if test or validation:
                raise ValueError(
                    f"{self.root} says itself which classes are tested on, and data.test_classes or validation_classes"
                    " too; leave one out"
                )
            return assigned(rows)
        unknown = sorted((test | validation) - set(classes))
        if unknown:
            raise ValueError(f"there is no class {unknown[0]!r} in {self.root}; its classes are {some(classes)}")
        both = sorted(test & validation)
        if both:
            raise ValueError(f"class {both[0]!r} is in test_classes and in validation_classes; leave it in one of them")
        if not test:
            count = max(1, round(self.test_fraction * len(classes)))
            test = set(fixed_order(set(classes) - validation, "test")[:count])
        return {name: "test" if name in test else "validation" if name in validation else "train" for name in classes}

    def _judge(self, part: str, records: Records) -> None:
        """Refuses a part that no loss could learn from or no metric could rate; warns of classes of one image."""
        names = records.class_names_here()
        if len(names) < 2:
            raise ValueError(
                f"the {part} part of {self.root} has {len(names)} class, and two are needed;"
                " choose other classes or shares"
            )
        if records.roles is not None:
            names = records.where(records.roles == QUERY).class_names_here()
        single = sorted(set(names) - set(records.where(records.answerable()).class_names_here()))
        if 0 < len(single) < len(names):
            log.warning(
                "%d of %d %s classes in %s have %s (%s); these cannot be queries, and serve as negatives",
                len(single),
                len(names),
                part,
                self.root,
                "one image" if records.roles is None else "no image in the gallery",
                some(single),
            )
