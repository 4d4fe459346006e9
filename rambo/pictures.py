"""The pictures that a retrieval run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from rambo.figures.retrievals import retrieval_grid


class RetrievalPictures:
    """What the model finds for some queries, right and wrong marked."""

    def __call__(self, model: nn.Module, loader: Any, folder: Path, split: str) -> dict[str, Path]:
        """Draws into `folder`; returns the files by name."""
        path = folder / f"retrievals_{split}.png"
        retrieval_grid(path, model, loader)
        return {"retrievals": path}
