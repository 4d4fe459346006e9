"""Searching a gallery of embeddings: exactly, or by an index of faiss that is kept beside its file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.files import read_json, write_record, write_whole
from rambo.embeddings import PIECE, Embeddings
from rambo.search import imported_faiss, search

INDICES = {"faiss": "Flat", "hnsw": "HNSW32"}  # as faiss' index_factory calls them
LOOKED_AT = 128  # candidates that HNSW keeps; with more it finds more of the true neighbours


def neighbours(
    queries: Embeddings, gallery: Embeddings, k: int, index: Any = None, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Similarities and places of the `k` images of a gallery nearest to each query; see `rambo.search.search`.

    A query that is itself an image of the gallery, by its path and crop, does not find itself.
    """
    place = {entry: i for i, entry in enumerate(gallery.images.entries)}
    own = torch.tensor([place.get(entry, -1) for entry in queries.images.entries])
    return search(
        queries.vectors,
        gallery.vectors,
        k,
        own_positions=own if bool((own >= 0).any()) else None,
        engine="exact" if index is None else "faiss",
        index=index,
        device=device,
    )


def kept_index(path: Path, gallery: Embeddings, kind: str) -> tuple[Any, str]:
    """The index of a gallery from the file beside it, which is made if missing and extended by what came since.

    Args:
        path: The file of the gallery; the index is there with the ending `kind`, and what it covers in JSON beside it.
        gallery: What is in that file.
        kind: Out of `INDICES`: `faiss` finds the true neighbours, `hnsw` most of them and sooner.

    Returns:
        The index, and a sentence on what became of it.

    Raises:
        ImportError: If faiss is not installed.
        WriteError: If there is no room.
    """
    faiss = imported_faiss()
    file, record = path.with_suffix(f".{kind}"), path.with_suffix(f".{kind}.json")
    parts = [[part["id"], part["images"]] for part in gallery.parts]
    index = None
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):  # missing or damaged: it is made anew
        covered = read_json(record)["parts"]
        if covered == parts[: len(covered)]:
            index = faiss.read_index(str(file))
    if index is None or index.ntotal != sum(images for _, images in covered):
        index = faiss.index_factory(gallery.vectors.shape[1], INDICES[kind], faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efSearch = LOOKED_AT
    before = index.ntotal
    if before == len(gallery.images):
        return index, f"index {file}: {before:,} images"
    for piece in torch.split(gallery.vectors[before:], PIECE):
        index.add(piece.numpy())
    record.unlink(missing_ok=True)  # so that it is never of another index
    write_whole(file, lambda out: faiss.write_index(index, faiss.PyCallbackIOWriter(out.write)))
    write_record(record, {"parts": parts})
    done = f"extended by {index.ntotal - before:,} images" if before else f"built of {index.ntotal:,} images"
    return index, f"index {file}: {done}"
