"""Images with objects, of the library `datasets`: from the Hugging Face hub, or local parquet and arrow files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.huggingface import Source, check_columns, save_encoded, where_from, with_encoded
from harness.seeds import fixed_order
from rambo.detection.annotations import AnnotatedImages, Annotation
from rambo.detection.coco import COCOStyle
from rambo.detection.data import ImageSet

FOLDER = "annotations"  # of a copy, with a file for each split
REST, HELD_OUT = "the rest of", "held out of"  # the first half of an image set where a test is drawn from a split

# Format -> from the four numbers to left, top, width and height in pixels, the corner of the picture being 0, 0.
BOXES: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "coco": list,
    "corners": lambda box: [box[0], box[1], box[2] - box[0], box[3] - box[1]],
    "voc": lambda box: [box[0] - 1, box[1] - 1, box[2] - box[0] + 1, box[3] - box[1] + 1],
}


class Columns(NamedTuple):
    """Where a data set has its images and objects; see `HuggingFaceDetection`."""

    image: str
    objects: str | None
    bbox: str
    category: str
    difficult: str | None
    box_format: str

    @property
    def keys(self) -> list[str]:
        """What is read of an object."""
        return [key for key in (self.bbox, self.category, self.difficult) if key is not None]


class HuggingFaceDetection(COCOStyle):
    """A data set of images and the objects in them, copied once to files below `root`; then as those of COCO.

    Image sets are names of its splits. An object is a box and a class: of named classes the name, of texts the text, of
    plain numbers the number as a name.

    Args:
        root: Folder of all such copies.
        name: On the hub, such as `user/cells`; or a local folder of parquet or arrow files, or one such file.
        subset: What the hub calls a subset or configuration.
        revision: Branch, tag or commit on the hub.
        image: Name of the column of images.
        objects: Name of the column of objects, each with the keys that follow; None: these are columns themselves, of
            lists.
        bbox: Key of the boxes.
        category: Key of the classes.
        difficult: Key of marks of 0 or 1, such as `iscrowd`, of objects that count neither for nor against; None: there
            are none.
        box_format: What the four numbers of a box are. "coco": x, y, width, height; "corners": left, top, right,
            bottom; both of edges of pixels, where the corner of the picture is 0, 0. "voc": xmin, ymin, xmax, ymax as
            in VOC's XML, pixels counted from 1, both ends inside.
        test_fraction: Share of the images of the training splits that is kept for the test, drawn by a hash of their
            places and never by a run's seed, where the data set has no split for it; None: `test` names one.
        options: As in `rambo.detection.data.DetectionData`.

    Raises:
        ModuleNotFoundError: If the library is not installed.
        ConnectionError: If the hub cannot be reached.
        ValueError: If there is no such data set, split or column, or a column does not hold what it should; and errors
            of `DetectionData`.
    """

    title = "data set of the library datasets"
    remedy = "check data.name and the splits in data.train and data.test"
    default_sets = {"train": ["train"], "test": ["test"]}  # noqa: RUF012

    def __init__(
        self,
        root: str | Path,
        *,
        name: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        image: str = "image",
        objects: str | None = "objects",
        bbox: str = "bbox",
        category: str = "category",
        difficult: str | None = None,
        box_format: str = "coco",
        test_fraction: float | None = None,
        **options: Any,
    ) -> None:
        if box_format not in BOXES:
            raise ValueError(f"data.box_format must be one of {', '.join(BOXES)}, got {box_format!r}")
        if test_fraction is not None and not 0 < test_fraction < 1:
            raise ValueError(f"data.test_fraction must be between 0 and 1, or null, got {test_fraction}")
        if test_fraction is not None and options.get("test"):
            raise ValueError("data.test names splits, and data.test_fraction draws from those of data.train: give one")
        self.columns = Columns(image, objects, bbox, category, difficult, box_format)
        self.named, self.test_fraction = (name, subset, revision), test_fraction
        self.source: dict[str, Any] = {}
        super().__init__(root, **options)

    def load_parts(self) -> dict[str, AnnotatedImages]:
        """Copies the splits that are used, unless they were, then reads and checks."""
        if not self.fixture:
            if self.test_fraction is not None:
                names = [name for _, name in self.sets["train"]]
                self.sets |= {"train": [(REST, name) for name in names], "test": [(HELD_OUT, name) for name in names]}
            splits = sorted({name for sets in self.sets.values() for _, name in sets})
            how = {"detection": self.columns._asdict()}
            self.root = Source(*self.named, splits, bad_images=self.bad_images.skips).copied(
                self.root, how, self._write
            )
            self.source = where_from(self.root)
        return super().load_parts()

    def annotations(self, where: str | int, name: str) -> list[Annotation]:
        """Of a split, or of what is drawn from it."""
        if self.fixture:
            return super().annotations(where, name)
        notes = super().annotations(".", f"{FOLDER}/{name}.json")
        if not where:
            return notes
        count = round((self.test_fraction or 0) * len(notes))
        drawn = set(fixed_order([note.name for note in notes], "split 0")[:count])
        return [note for note in notes if (note.name in drawn) == (where == HELD_OUT)]

    def describe(self) -> dict[str, Any]:
        """What every detection data set tells, and where the data came from."""
        return {**super().describe(), "source": self.source}

    def _image_sets(self, part: str, given: Sequence[Any] | None) -> list[ImageSet]:
        sets = super()._image_sets(part, given)
        if any(where for where, _ in sets):
            raise ValueError(f"data.{part} names splits of the data set, such as [train], got {given}")
        return sets

    def _write(self, parts: Mapping[str, Any], folder: Path) -> int:
        """Images as files, and a JSON file for each split as COCO has them; returns the number of images."""
        (folder / FOLDER).mkdir()
        written = 0
        for split, dataset in parts.items():
            said: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
            used: dict[str | int, None] = {}
            names, rows = _opened(dataset, self.columns)
            for number, row in enumerate(rows):
                at = f"row {number + 1} of {split}"
                path = save_encoded(row[self.columns.image], folder, split, number, self.bad_images.skips)
                said["images"].append({"id": number, "file_name": path})
                for found in _objects(row, self.columns, at):
                    found["category_id"] = _category(found["category_id"], names, at)
                    used.setdefault(found["category_id"])
                    said["annotations"].append({"image_id": number, **found})
            called = enumerate(names) if names is not None else ((one, str(one)) for one in sorted(used, key=_order))
            categories = [{"id": id_, "name": name} for id_, name in called]
            text = json.dumps({**said, "categories": categories})
            (folder / FOLDER / f"{split}.json").write_text(text, encoding="utf-8")
            written += len(said["images"])
        return written


def _opened(dataset: Any, columns: Columns) -> tuple[list[str] | None, Any]:
    """The names of the classes, where the data set has such, and its rows with images as they are encoded."""
    wanted = [columns.image, *([columns.objects] if columns.objects else columns.keys)]
    check_columns(dataset, wanted)
    chosen = with_encoded(dataset.select_columns(wanted), columns.image)
    kind: Any = chosen.features
    for key in (columns.objects, columns.category):  # lists of objects, or an object of lists
        if key is not None:
            kind = _item(kind)
            if not isinstance(kind, Mapping) or key not in kind:
                raise ValueError(
                    f"the objects of the column {columns.objects!r} have no {key!r} but {_said(kind)}; name the keys in"
                    " data.bbox and data.category"
                )
            kind = kind[key]
    names = getattr(_item(kind), "names", None)
    return None if names is None else list(names), chosen.with_format(None)


def _item(kind: Any) -> Any:
    """What a feature that is a list is a list of, and any other itself."""
    while not isinstance(kind, Mapping) and getattr(kind, "feature", None) is not None:
        kind = kind.feature
    return kind[0] if isinstance(kind, list) else kind


def _said(kind: Any) -> str:
    return ", ".join(map(str, kind)) if isinstance(kind, Mapping) else str(kind)


def _objects(row: Mapping[str, Any], columns: Columns, at: str) -> Iterator[dict[str, Any]]:
    """The objects of a row as COCO has them, but the category, which is as it stands there."""
    held: Any = row if columns.objects is None else row[columns.objects] or {}
    listed = isinstance(held, list)
    if listed and (lacking := [key for key in columns.keys if any(key not in one for one in held)]):
        raise ValueError(f"{at} has an object without {lacking[0]!r}; name the keys in data.bbox and data.category")
    if not listed and held and (lacking := [key for key in columns.keys if key not in held]):
        raise ValueError(
            f"{at} has objects without {lacking[0]!r} but with {', '.join(held)}; name the keys in data.bbox and"
            " data.category"
        )
    lists = [[one[key] for one in held] if listed else held.get(key) or [] for key in columns.keys]
    if len({len(values) for values in lists}) > 1:
        counts = ", ".join(f"{len(values)} {key}" for key, values in zip(columns.keys, lists, strict=True))
        raise ValueError(f"{at} has {counts}; each object needs one of each")
    for box, category, *marks in zip(*lists, strict=True):
        numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(n, int | float) for n in box)
        if not numbers or not all(map(math.isfinite, box)):
            raise ValueError(f"{at} has the box {box!s:.60} where four numbers should stand; correct it")
        if marks and marks[0] not in (0, 1):
            raise ValueError(f"{at} must have 0 or 1 for {columns.difficult}, got {marks[0]!s:.40}")
        entry = {"bbox": BOXES[columns.box_format](box), "category_id": category}
        yield {**entry, "difficult": int(marks[0])} if marks else entry


def _category(value: Any, names: Sequence[str] | None, at: str) -> str | int:
    """The number of a class, or its text; refuses what is none, such as the -1 of a test without labels."""
    known = names is None or (isinstance(value, int) and 0 <= value < len(names))
    if isinstance(value, bool) or not isinstance(value, int | str) or not known or not str(value).strip():
        there = "" if names is None else f" (there are {len(names)})"
        raise ValueError(f"{at} has an object of the class {value!r}, which is none{there}; leave the split out")
    return value


def _order(value: str | int) -> tuple[bool, str | int]:
    return isinstance(value, str), value
