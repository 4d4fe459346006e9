"""Images with labels, of the library `datasets`: from the Hugging Face hub, or local parquet and arrow files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.data.huggingface import Source, read_record
from rambo.datasets.folder import ImageFolder


class HuggingFaceImages(ImageFolder):
    """A data set of images and labels, copied once to a table and files below `root`; then an `ImageFolder`.

    Args:
        root: Folder of all such copies.
        name: On the hub, such as `user/birds`; or a local folder of parquet or arrow files, or one such file.
        subset: What the hub calls a subset or configuration.
        revision: Branch, tag or commit on the hub.
        splits: Names of the splits that are used; None: all.
        parts: Whether several splits are the parts of the data; else they are pooled, and parts are drawn.
        image: Name of the column of images.
        label: Name of the column of classes: text, numbers, or named classes.
        super_label: Name of a column of coarser classes, if there is one.
        options: As in `ImageFolder`.

    Raises:
        ModuleNotFoundError: If the library is not installed.
        ConnectionError: If the hub cannot be reached.
        ValueError: If there is no such data set, split or column, or the classes cannot be split as asked.
    """

    title = "data set of the library datasets"
    remedy = "check data.name and the names of its columns"

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        splits: Sequence[str] | None = None,
        parts: bool = True,
        image: str = "image",
        label: str = "label",
        super_label: str | None = None,
        **options: Any,
    ) -> None:
        self.source: dict[str, Any] = {}
        if not options.get("fixture"):
            columns = {image: "path", label: "label", **({super_label: "super_label"} if super_label else {})}
            table = Source(name, subset, revision, splits, parts).exported(Path(root), image, columns)
            self.source, root, options["table"] = read_record(table), table.parent, table.name
        super().__init__(root, **options)

    def describe(self) -> dict[str, Any]:
        """What every data set tells, and where the data came from."""
        return {**super().describe(), "source": self.source}
