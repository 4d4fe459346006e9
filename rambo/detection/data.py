"""What every detection data set here shares: checks, batches, facts for the run record; and the layout of Pascal VOC.

Anybody's data in that layout work as they are, with `VOCStyle`; those of COCO and YOLO with `rambo.detection.coco` and
`rambo.detection.yolo`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.data.dataset import PartDataset, PartedData
from harness.data.loading import Batch, ShuffledBatches
from rambo.detection.annotations import AnnotatedImages, Annotation, Rules, annotated_images
from rambo.detection.fixture import SHAPES, write_flat
from rambo.detection.reading import ScaledImages, scaled
from rambo.detection.transforms import Resize, ResizeAndFlip, Transform
from rambo.detection.voc_xml import read_image_set

ImageSet = tuple[str | int, str]
"""Where an image set is (a folder below root, or a year of Pascal VOC) and what it is called."""


class DetectionDataset(PartDataset[AnnotatedImages]):
    """One part of a data set, with boxes; `transform` is as in `rambo.detection.transforms`."""

    with_difficult = False
    """Whether objects that are marked as difficult are among the targets, as they always are in the ground truth."""

    @property
    def classes(self) -> list[str]:
        """The names of labels 1, 2, ..."""
        return self.rows.classes

    @property
    def ground_truth(self) -> list[dict[str, Tensor]]:
        """For each image, in order: "boxes" float32 (objects, 4) in pixels of the original, "labels", "difficult"."""
        return self.rows.objects

    def image(self, index: int) -> Tensor:
        """The original picture at `index`: uint8 (3, height, width)."""
        return self.rows.load(index)

    def sample(self, index: int) -> Batch:
        """Picture and target, transformed, and by how much the size changed, horizontally and vertically."""
        original, truth = self.image(index), self.rows.objects[index]
        learnt = self.with_difficult | ~truth["difficult"]
        return {**scaled(self.transform, original, truth["boxes"][learnt], truth["labels"][learnt]), "index": index}


class DetectionData(PartedData[AnnotatedImages]):
    """Images with boxes around objects. A layout says how an image set is read (`annotations`).

    Everything that is wrong with lists, annotations and heads of images is found when the object is built.

    Args:
        root: Folder of the data.
        train: Image sets to train on: names, or pairs of a folder below `root` and a name, as the layout calls them.
            Null: the data set's usual ones.
        test: Image sets to test on.
        validation: Image sets to choose a checkpoint on, if there are any.
        classes: Names of the classes in the order of their labels; null: the data set's own, or, where it has no list,
            all names in the training annotations, in the order of the files' numbers for them, or sorted.
        batch_size: Images in a training batch; the last one of an epoch may be smaller.
        train_transform: See `rambo.detection.transforms`; null: `ResizeAndFlip()`.
        test_transform: The same without chance; it may resize, but not cut, or detections could not be brought back to
            the original. Null: `Resize()`.
        train_on_difficult: Whether objects marked as difficult are among the targets in training.
        train_on_empty_images: Whether images without a target are trained on, as background alone.
        broken_boxes: "refuse" raises an error, "drop" leaves the box out and counts it.
        smallest_box: A box is broken if its width or height, counted in pixels with both ends as Pascal VOC does, is
            less than this. 1 lets a box of one pixel pass, as the devkit does; 2 asks that max is more than min.
        other_classes: What is done with objects of classes that are not in the list: "refuse" or "drop".
        upright: Whether images are turned as their EXIF orientation says. Pascal VOC needs no turning.
        loading: As in `PartedData`.

    Raises:
        FileNotFoundError: If the folder, a list, an annotation or an image is missing.
        OSError: If an image is unreadable.
        ValueError: If an argument makes no sense, an annotation is faulty, or the counts are not the published ones.
    """

    default_sets: ClassVar[Mapping[str, Sequence[Any]]]
    """Part -> its usual image sets."""
    declared: Sequence[str] = ()
    """Names of classes in the order of the files' numbers for them, where `annotations` finds such; maybe repeated."""
    default_classes: ClassVar[Sequence[str] | None] = None
    """The classes where `classes` is null."""
    expected: ClassVar[Mapping[ImageSet, Mapping[str, Any]]] = {}
    """Image set -> "images", "objects" and "per_class" in its files, difficult objects not counted."""

    def __init__(
        self,
        root: str | Path,
        *,
        train: Sequence[Any] | None = None,
        test: Sequence[Any] | None = None,
        validation: Sequence[Any] | None = None,
        classes: Sequence[str] | None = None,
        batch_size: int = 8,
        train_transform: Transform | None = None,
        test_transform: Transform | None = None,
        train_on_difficult: bool = False,
        train_on_empty_images: bool = True,
        broken_boxes: str = "refuse",
        smallest_box: float = 2.0,
        other_classes: str = "refuse",
        upright: bool = False,
        **loading: Any,
    ) -> None:
        self.rules = Rules(broken_boxes, smallest_box, other_classes, upright)
        self.train_on_difficult, self.train_on_empty_images = train_on_difficult, train_on_empty_images
        given = {"train": train, "validation": validation, "test": test}
        self.sets = {name: self._image_sets(name, sets) for name, sets in given.items()}
        self.classes = _checked_classes(self.default_classes if classes is None else classes)
        if loading.get("cache") is not None:
            raise ValueError("pictures are resized together with their boxes, so none can be kept; set data.cache=null")
        if loading.get("decode", "exact") != "exact":
            raise ValueError("boxes are in pixels of the whole picture, so none is reduced; set data.decode=exact")
        loading.setdefault("evaluation_batch_size", 8)
        loading["train_transform"] = train_transform or ResizeAndFlip()
        loading["test_transform"] = test_transform or Resize()
        super().__init__(root, **loading)
        size = len(self.parts["train"])
        self.open_loaders(ShuffledBatches(size, min(batch_size, 4) if self.fixture else batch_size, self.seed))

    def dataset(self, part: str) -> DetectionDataset:
        """One part as the loaders read it."""
        dataset = DetectionDataset(self.parts[part], self.transform_of(part), self.seed)
        dataset.with_difficult = part == "train" and self.train_on_difficult
        return dataset

    @staticmethod
    def collate(samples: list[Mapping[str, Any]]) -> Batch:
        """A batch of pictures that differ in size.

        Returns:
            "images": list of uint8 (3, h, w); "targets": list of {"boxes" float32 (objects, 4), "labels" int64
            (objects,)} in pixels of those; "index" int64 (n,); "scales" float32 (n, 2), new size over original size,
            horizontally and vertically, which means nothing where the transform cuts.
        """
        return {
            **ScaledImages.collate(samples),
            "targets": [sample["target"] for sample in samples],
            "index": torch.tensor([sample["index"] for sample in samples]),
        }

    def annotations(self, where: str | int, name: str) -> list[Annotation]:
        """What is said of the images of an image set, in their order."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is read")

    def remedy_for(self, where: str | int) -> str:
        """What to do when this folder or one of its files is not there."""
        return self.remedy

    def load_parts(self) -> dict[str, AnnotatedImages]:
        """Reads and checks everything, and takes from the training part what is not to be trained on."""
        listed = {part: [note for one in sets for note in self._read(one)] for part, sets in self.sets.items() if sets}
        read = {part: self._readable_notes(part, notes) for part, notes in listed.items()}
        if self.classes is None:
            found = _classes_in(read["train"])
            self.classes = [name for name in dict.fromkeys((*self.declared, *sorted(found))) if name in found]
            if not self.classes:
                raise ValueError(f"{self.title} in {self.root}: the training images have no object at all")
        parts = {part: annotated_images(notes, self.classes, self.rules) for part, notes in read.items()}
        _check_overlaps(parts, self.title)
        train = parts["train"]
        targets = torch.tensor([int((self.train_on_difficult | ~found["difficult"]).sum()) for found in train.objects])
        for name, images in parts.items():
            if not sum(targets if name == "train" else images.counts().values()):
                aim = "learn from" if name == "train" else "find"
                raise ValueError(f"{self.title} in {self.root}: the {name} images have no object to {aim}")
        if not self.train_on_empty_images:
            parts["train"] = train.where(targets > 0)
        return parts

    def _readable_notes(self, part: str, notes: list[Annotation]) -> list[Annotation]:
        names, paths = [note.name for note in notes], [note.image for note in notes]
        return list(compress(notes, self.bad_images.good(part, names, paths, self.rules.upright)))

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """How pictures are read, and the names of labels 1, 2, ..."""
        given, usual = settings.get("test_transform"), self.test_transform
        if given is None and isinstance(usual, Resize):  # that of the data set
            kind = f"{Resize.__module__}.{Resize.__qualname__}"
            given = {"_target_": kind, "shorter": usual.shorter, "longer": usual.longer}
        upright = self.rules.upright
        reader = {"_target_": "rambo.detection.reading.ScaledImages", "transform": given, "upright": upright}
        return {**super().for_use(settings), "reader": reader, "classes": list(self.classes or ())}

    def as_trained(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """And labels are those of its own classes."""
        if list(self.classes or ()) != facts.get("classes"):
            raise ValueError(
                f"{self.title} in {self.root} has the classes {', '.join(self.classes or ())}, and the model finds"
                f" {', '.join(facts.get('classes') or ())}; name these, in this order, in data.classes"
            )
        super().as_trained(facts, settings)

    def describe(self) -> dict[str, Any]:
        """Name, counts and fingerprint, for the run record."""
        sets = {name: [list(one) for one in sets] for name, sets in self.sets.items() if sets}
        return {**super().describe(), "image_sets": sets}

    def _image_sets(self, part: str, given: Sequence[Any] | None) -> list[ImageSet]:
        sets: list[ImageSet] = []
        chosen = self.default_sets.get(part, []) if given is None else given
        for one in chosen if isinstance(chosen, list | tuple) else [chosen]:
            pair = ("", one) if isinstance(one, str) else one
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str | int)):
                example = list(self.default_sets["train"])
                raise ValueError(f"data.{part} must be a list of image sets, such as {example}, got {given}")
            sets.append((pair[0], str(pair[1])))
        if not sets and part != "validation":
            raise ValueError(f"data.{part} names no image set; it needs one, such as {list(self.default_sets[part])}")
        return sets

    def _read(self, one: ImageSet) -> list[Annotation]:
        """The annotations of an image set, whose counts must be the published ones."""
        read = self.annotations(*one)
        per_class = Counter(thing.name for note in read for thing in note.things if not thing.difficult)
        counts = {"images": len(read), "objects": per_class.total(), "per_class": dict(per_class)}
        facts = {} if self.fixture else self.expected.get(one, {})
        what, found = " ".join(map(str, one)).strip(), {key: counts[key] for key in facts}
        self.check_published(what, found, facts, self.remedy_for(one[0]))
        return read


class VOCStyle(DetectionData):
    """Data in the layout of Pascal VOC: `Annotations/<id>.xml`, `JPEGImages/<id>.jpg`, `ImageSets/Main/<name>.txt`.

    Boxes count pixels from 1 and include both ends. Images may also end in .jpeg, .png, .bmp or .webp; what the XML
    says of the file's name is not used. Arguments are those of `DetectionData`.
    """

    title = "VOC-style data"
    remedy = "check data.root and the image sets"
    default_sets = {"train": ["trainval"], "test": ["test"]}  # noqa: RUF012

    def annotations(self, where: str | int, name: str) -> list[Annotation]:
        """From the list of the image set and the XML files."""
        label = f"{where}/" if where else ""
        return read_image_set(self.folder(where), name, label, self.title, self.remedy_for(where))

    def folder(self, where: str | int) -> Path:
        """The folder that has `Annotations`, `JPEGImages` and `ImageSets` for the first half of an image set."""
        return self.root / str(where)

    def write_fixture(self, root: Path) -> Path:
        """Writes a tiny copy of the layout beside `root` and returns where it is."""
        folders: dict[str, list[str]] = {}
        for where, name in (one for sets in self.sets.values() for one in sets):
            folders.setdefault(str(where), []).append(name)
        return write_flat(root, folders, self.classes or SHAPES)


def _checked_classes(classes: Sequence[str] | None) -> list[str] | None:
    if classes is None:
        return None
    if isinstance(classes, str):
        raise ValueError(f"data.classes must be a list of names, got {classes!r}; write data.classes=[{classes}]")
    names = [str(name) for name in classes]
    background = any("background" in name.lower().replace("_", "") for name in names)
    if not names or background or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"data.classes must be different names, without a background, got {names}")
    return names


def _classes_in(annotations: Sequence[Annotation]) -> set[str]:
    """All names; refuses two that differ by capitals alone."""
    first: dict[str, tuple[str, Path]] = {}
    for path, thing in ((note.path, thing) for note in annotations for thing in note.things):
        name, other = first.setdefault(thing.name.casefold(), (thing.name, path))
        if name != thing.name:
            raise ValueError(
                f"the classes {name!r} ({other}) and {thing.name!r} ({path.name}) differ by capitals alone;"
                " write them alike, or give data.classes if they are two"
            )
    return {name for name, _ in first.values()}


def _check_overlaps(parts: Mapping[str, AnnotatedImages], title: str) -> None:
    seen: dict[str, str] = {}
    for part, images in parts.items():
        for name in images.names:
            if name in seen:
                what = f"twice in {part}" if seen[name] == part else f"in {seen[name]} and in {part}"
                raise ValueError(f"{title}: image {name} is {what}; choose image sets that share no image")
            seen[name] = part
