"""Images or numbers with a target, of the library `datasets`: from the Hugging Face hub, or local files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.data.huggingface import Source, read_record
from ranksim.datasets.table import TableData


class HuggingFaceTable(TableData):
    """A data set with a column of numbers to predict, copied once to a table below `root`; then a `TableData`.

    Args:
        root: Folder of all such copies.
        name: On the hub, such as `user/houses`; or a local folder of parquet or arrow files, or one such file.
        subset: What the hub calls a subset or configuration.
        revision: Branch, tag or commit on the hub.
        splits: Names of the splits that are used; None: all.
        parts: Whether several splits are the parts of the data; else they are pooled, and parts are drawn.
        image: Name of the column of images; None for numbers.
        options: As in `TableData`.

    Raises:
        ModuleNotFoundError: If the library is not installed.
        ConnectionError: If the hub cannot be reached.
        ValueError: If there is no such data set, split or column, or a column does not hold what it should.
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
        image: str | None = None,
        **options: Any,
    ) -> None:
        self.source: dict[str, Any] = {}
        if not options.get("fixture"):
            table = Source(name, subset, revision, splits, parts).exported(Path(root), image)
            self.source, root, options["table"] = read_record(table), table.parent, table.name
        super().__init__(root, image=image, **options)

    def describe(self) -> dict[str, Any]:
        """What every data set tells, and where the data came from."""
        return {**super().describe(), "source": self.source}
