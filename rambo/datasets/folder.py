"""Anybody's own images: a folder for each class, or a table of paths and labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.images import check_same_files
from harness.seeds import fixed_order
from rambo.datasets.fixture import write_folder
from rambo.datasets.listing import Row, assigned, from_folders, from_table, labels_of, warn_of_capitals
from rambo.datasets.records import BOTH, GALLERY, ROLES, Records, numbered, numbered_together, shares_drawn, some
from rambo.datasets.retrieval import RetrievalData

log = logging.getLogger(__name__)


class ImageFolder(RetrievalData):
    """Your own images, split by class, so that the test asks about things never seen; or within the classes.

    Either `root/<class>/<image>` (any depth below the class; links are followed, hidden and other files passed over),
    or `root/<part>/<class>/<image>` where all folders of `root` are called like parts, or a table with the columns
    `path` below `root`, `label` and, if you like, `split` and `super_label`. Parts are train, validation and test, or
    query and gallery for a test in which those search these. Pictures are turned as their EXIF orientation says. A
    table may also have the columns `role` (query, gallery or both; of training images it counts for nothing) and
    `crop`, or `left`, `top`, `right` and `bottom`, of the part of a picture that is looked at.

    Which part a class goes to is decided, in this order, by the table's `split` or the folders; by `test_classes` and
    `validation_classes`; by `test_fraction` and `validation_fraction`, which take the classes whose sha256 comes first,
    so that adding a class moves no other one across unless the share calls for it. With `split="closed"` the fractions
    are those of the images of each class, drawn by the sha256 of their names.

    With a `label_separator` an image has several labels, and images that share one are relevant to each other. As such
    classes cannot be drawn apart, the table has a `split`, or the split is closed.

    Args:
        root: Folder of the images.
        table: CSV file, relative to `root` or absolute; None to go by folders.
        label_separator: What stands between the labels of an image in the table, such as ";"; None: it has one.
        test_fraction: Share of the classes to test on; ignored where lists or a `split` column decide.
        test_classes: Names of the classes to test on.
        validation_classes: Names of the classes to validate on.
        split: "open": no class is in two parts; "closed": the classes of the test are those of training.
        camera_column: Column of the table that tells what took each image: in an evaluation, images of the query's
            class and camera are neither right nor wrong, as in person re-identification. None: all images count.

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
        split: str = "open",
        camera_column: str | None = None,
        label_separator: str | None = None,
        **shared: Any,
    ) -> None:
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
        if split not in ("open", "closed"):
            raise ValueError(f"split must be open or closed, got {split!r}")
        if split == "closed" and (test_classes or validation_classes):
            raise ValueError("split=closed tests on every class: leave test_classes and validation_classes out")
        self.table, self.test_fraction, self.split = table, test_fraction, split
        self.camera_column = camera_column
        self.separator = None if label_separator is None else str(label_separator)
        self.test_classes = [str(name) for name in test_classes or []]
        self.validation_classes = [str(name) for name in validation_classes or []]
        if shared.get("fixture"):  # the fixture goes by folders, and has classes of its own
            self.table, self.test_classes, self.validation_classes = None, [], []
            self.camera_column = self.separator = None
        if self.camera_column and self.table is None:
            raise ValueError(
                f"data.camera_column={camera_column} names a column of a table, and there is none: give data.table, a"
                " CSV file with columns path, label and that one"
            )
        if self.separator is not None and (self.table is None or not self.separator.strip()):
            raise ValueError(
                f"data.label_separator={label_separator!r} should be a sign, such as ';', between labels of a table:"
                " give data.table, a CSV file with columns path and label"
            )
        super().__init__(root, **shared)

    def read(self, root: Path) -> dict[str, Records]:
        """The parts that have images."""
        if self.table is None:
            rows = from_folders(root, self.remedy)
        else:
            rows = from_table(root / self.table, self.camera_column)
        if not rows:
            raise FileNotFoundError(f"no images in {root}; {self.remedy}")
        if self.separator is None:
            classes, labels = numbered([row.label for row in rows])
        else:
            classes, labels = numbered_together([labels_of(row, self.separator) for row in rows])
            if len(rows) == int(labels.sum()):
                log.warning("no image of %s has a second label behind a %r", self.table, self.separator)
        kinds, super_labels = numbered([row.super_label for row in rows])
        roles = [ROLES.get(row.role or row.split, BOTH) for row in rows]
        crops = [row.crop for row in rows]
        everything = Records(
            names=[row.path for row in rows],
            labels=labels,
            super_labels=super_labels if len(kinds) > 1 else None,
            roles=torch.tensor(roles) if any(roles) else None,
            cameras=numbered([row.camera for row in rows])[1] if self.camera_column else None,
            folder=root,
            upright=True,
            crops=crops if any(crops) else None,
            class_names=dict(enumerate(classes)),
        )
        places = self._assign(rows, everything)
        check_same_files(root, everything.names)
        warn_of_capitals(root, classes)
        if "train" not in places:
            raise ValueError(f"no class is left for training in {root}; choose fewer for validation and test")
        parts = everything.parted(places)
        for part, records in parts.items():
            asked = part != "train" and records.roles is not None and bool((records.roles != BOTH).any())
            parts[part] = records if asked else replace(records, roles=None)
            self._judge(part, parts[part] if part != "train" else replace(parts[part], cameras=None))
        return parts

    def check_rows(self, parts: Mapping[str, Records]) -> None:
        """And judges once more those that lost images, see `on_bad_image`."""
        super().check_rows(parts)
        for part in dict.fromkeys(one["part"] for one in self.bad_images.left_out):
            self._judge(part, parts[part])

    def held_out(self, train: Records) -> Tensor:
        """With `split="closed"` the share is one of the images of each class."""
        if self.split == "open":
            self._check_drawn("data.validation_fraction")
            return super().held_out(train)
        return self._share_drawn(train, self.validation_fraction, "held out", "validation")

    def _assign(self, rows: Sequence[Row], everything: Records) -> list[str]:
        """The part of each image."""
        classes, closed = everything.class_names_here(), self.split == "closed"
        test, validation = set(self.test_classes), set(self.validation_classes)
        if any(row.split for row in rows):
            if test or validation:
                raise ValueError(
                    f"{self.root} says itself which classes are tested on, and data.test_classes or validation_classes"
                    " too; leave one out"
                )
            return assigned(rows, closed, self.separator)
        if closed:
            drawn = self._share_drawn(everything, self.test_fraction, "test", "the test").tolist()
            return ["test" if tested else "train" for tested in drawn]
        self._check_drawn("a split by class")
        unknown = sorted((test | validation) - set(classes))
        if unknown:
            raise ValueError(f"there is no class {unknown[0]!r} in {self.root}; its classes are {some(classes)}")
        both = sorted(test & validation)
        if both:
            raise ValueError(f"class {both[0]!r} is in test_classes and in validation_classes; leave it in one of them")
        if not test:
            count = max(1, round(self.test_fraction * len(classes)))
            test = set(fixed_order(set(classes) - validation, "test")[:count])
        return ["test" if r.label in test else "validation" if r.label in validation else "train" for r in rows]

    def _share_drawn(self, records: Records, share: float, purpose: str, called: str) -> Tensor:
        """`shares_drawn`, refused where it draws none: a run without a test would look like one that was tested."""
        drawn = shares_drawn(records, share, purpose)
        if not bool(drawn.any()):
            raise ValueError(
                f"no image of {self.root} can be kept for {called}, as each has a label that no other image left for"
                " training has; leave such labels out, or say the parts by a column split of a table"
            )
        return drawn

    def _check_drawn(self, what: str) -> None:
        """Refuses to draw classes where an image may be in several, and so in two parts."""
        if self.separator is not None:
            raise ValueError(
                f"{what} draws classes, and images with several labels would be in two parts: say which part each image"
                f" is in by a column split of {self.table}, or set data.split=closed"
            )

    def _judge(self, part: str, records: Records) -> None:
        """Refuses a part that no loss could learn from or no metric could rate; warns of classes of one image."""
        names = records.class_names_here()
        if len(names) < 2:
            raise ValueError(
                f"the {part} part of {self.root} has {len(names)} class, and two are needed;"
                " choose other classes or shares"
            )
        if records.roles is not None:
            names = records.where(records.roles != GALLERY).class_names_here()
        single = sorted(set(names) - set(records.where(records.answerable()).class_names_here()))
        lacking = "one image" if records.roles is None else "no image in the gallery"
        if 0 < len(single) < len(names):
            log.warning(
                "%d of %d %s classes in %s have %s (%s); these cannot be queries, and serve as negatives",
                len(single),
                len(names),
                part,
                self.root,
                lacking if records.cameras is None else "no image by another camera to find",
                some(single),
            )
