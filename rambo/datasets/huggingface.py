"""Images with labels, of the library `datasets`: from the Hugging Face hub, or local parquet and arrow files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data.huggingface import Copied
from rambo.datasets.folder import ImageFolder
from rambo.datasets.records import Records


class HuggingFaceImages(Copied[Records], ImageFolder):
    """A data set of images and labels, copied once to a table and files below `root`; then an `ImageFolder`.

    Args:
        root: Folder of all such copies.
        image: Name of the column of images.
        label: Name of the column of classes: text, numbers, or named classes.
        super_label: Name of a column of coarser classes, if there is one.
        camera_column: Name of a column of cameras, if evaluations are to leave out a class's images by the query's.
        options: As in `harness.data.huggingface.Copied`, and as in `ImageFolder`.

    Raises:
        ValueError: If the classes cannot be split as asked; and errors of `Copied`.
    """

    def __init__(
        self,
        root: str | Path,
        image: str = "image",
        label: str = "label",
        super_label: str | None = None,
        camera_column: str | None = None,
        **options: Any,
    ) -> None:
        self.image = image
        named = [name for name in (label, super_label, camera_column) if name]
        if len(set(named)) != len(named):
            raise ValueError(
                "data.label, super_label and camera_column must name different columns, got " + ", ".join(named)
            )
        others = {super_label: "super_label", camera_column: "camera"}
        self.columns = {image: "path", label: "label", **{name: to for name, to in others.items() if name}}
        super().__init__(root, camera_column="camera" if camera_column else None, **options)
