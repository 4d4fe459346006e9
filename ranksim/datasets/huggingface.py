"""Images or numbers with a target, of the library `datasets`: from the Hugging Face hub, or local files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data.huggingface import Copied
from ranksim.datasets.samples import Samples
from ranksim.datasets.table import TableData


class HuggingFaceTable(Copied[Samples], TableData):
    """A data set with a column of numbers to predict, copied once to a table below `root`; then a `TableData`.

    Args:
        root: Folder of all such copies.
        image: Name of the column of images; None for numbers.
        options: As in `harness.data.huggingface.Copied`, and as in `TableData`.

    Raises:
        ValueError: As of `TableData`; and errors of `Copied`.
    """

    def __init__(self, root: str | Path, image: str | None = None, **options: Any) -> None:
        self.image = image
        super().__init__(root, image=image, **options)
