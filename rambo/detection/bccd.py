"""BCCD: blood cells under the microscope."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from harness.data.download import RemoteFile
from rambo.detection.annotations import AnnotatedImages
from rambo.detection.data import VOCStyle
from rambo.detection.fixture import BCCD_CLASSES, write_bccd
from rambo.detection.voc_xml import LISTS

_COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"


class BCCD(VOCStyle):
    """BCCD: 364 photographs of blood smears, 640 x 480, with boxes around red cells, white cells and platelets.

    292 images in trainval (205 train, 87 val) and 72 in test; of 4,888 boxes 4,155 are red cells (RBC), 372 white cells
    (WBC), 361 platelets. No object is marked as difficult. Two boxes, of red cells in BloodImage_00338 and
    BloodImage_00343, are a single point, and are dropped. With 72 test images, give an interval beside every number.

    The source is an archive that its host packs anew for each download, so that it has no lasting hash; instead a
    digest over the contents of all lists, annotations and images is checked each time (a tenth of a second). Data that
    were changed on purpose are read with `VOCStyle`. `root` is the folder of the archive, or one above.

    Source: Shenggan/BCCD_Dataset; MIT licence.
    """

    title = "BCCD"
    remedy = "run: python scripts/download.py bccd"
    downloads = ("bccd",)
    files = (
        RemoteFile(
            "BCCD_Dataset.zip",
            urls=(
                f"https://github.com/Shenggan/BCCD_Dataset/archive/{_COMMIT}.zip",
                f"https://codeload.github.com/Shenggan/BCCD_Dataset/zip/{_COMMIT}",
            ),
            unpack=True,
        ),
    )
    content = "59eb0d826c422ae58c4c46f2dac8de1af80c371950dbf0593d8aeb0c8f74f265"
    default_classes = BCCD_CLASSES
    expected = {  # noqa: RUF012
        ("", part): {"images": images, "per_class": dict(zip(BCCD_CLASSES, objects, strict=True))}
        for part, images, objects in (
            ("train", 205, (2382, 214, 209)),
            ("val", 87, (968, 87, 83)),
            ("trainval", 292, (3350, 301, 292)),
            ("test", 72, (805, 71, 69)),
        )
    }

    def __init__(self, root: str | Path, *, broken_boxes: str = "drop", **shared: Any) -> None:
        super().__init__(root, broken_boxes=broken_boxes, **shared)

    def folder(self, where: str | int) -> Path:
        """The folder `BCCD` of the repository, wherever it was unpacked to."""
        places = (f"BCCD_Dataset-{_COMMIT}/BCCD", "BCCD_Dataset/BCCD", "BCCD_Dataset-master/BCCD", "BCCD", "")
        found = (self.root / place for place in places if (self.root / place / LISTS).is_dir())
        return next(found, self.root / "BCCD") / str(where)

    def write_fixture(self, root: Path) -> Path:
        """A few images of each set."""
        return write_bccd(root)

    def load_parts(self) -> dict[str, AnnotatedImages]:
        """Reads the parts, then checks that the files are those of the source."""
        parts = super().load_parts()
        if not self.fixture and (found := content_digest(self.folder(""))) != self.content:
            raise ValueError(
                f"{self.title} in {self.root}: the contents have sha256 {found}, expected {self.content}: files were"
                f" changed, added or lost; {self.remedy} into an empty folder, or read them as data=voc_style"
            )
        return parts


def content_digest(folder: Path) -> str:
    """sha256 over names and contents of image sets, annotations and images; line ends of texts do not matter."""
    state = hashlib.sha256()
    lists = [folder / LISTS / f"{name}.txt" for name in ("test", "train", "trainval", "val")]
    paths = [*folder.glob("Annotations/[!.]*.xml"), *folder.glob("JPEGImages/[!.]*.jpg"), *filter(Path.is_file, lists)]
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in paths):
        content = path.read_bytes() if path.suffix == ".jpg" else path.read_bytes().replace(b"\r", b"")
        state.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return state.hexdigest()
