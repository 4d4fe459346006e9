"""Embeddings of somebody's images in a file, with what made them: `.npz`, or `.npy` mapped into memory and `.json`."""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.image_list import ImageList
from harness.files import read_json, write_record, write_whole
from harness.record.standalone import Trained
from harness.train.rows import Rows, bytes_of

FORMAT = 1
KINDS = (".npz", ".npy")
COLUMN = "column_"  # before the name of a column of the images' table, in a .npz file
MADE_BY = ("experiment", "seed", "started")
PIECE = 2**14  # rows that are copied at a time


@dataclass(frozen=True)
class Embeddings:
    """Images as a model sees them.

    Attributes:
        vectors: float32 (images, dimensions), of unit length; mapped from its file, or in memory.
        images: In the same order.
        model: What made them: `fingerprint` of the model, see `Trained.fingerprint`; `checkpoint`, `epoch`, and the
            `experiment`, `seed` and `started` of its run.
        parts: How they were made, one part after the other, each with an `id`, its number of `images` and in `left_out`
            the reason by the path of each image that could not be read.
    """

    vectors: Tensor
    images: ImageList
    model: dict[str, Any]
    parts: list[dict[str, Any]]

    def check_model(self, model: dict[str, Any], where: str | Path) -> None:
        """Refuses another model than the one that made them: its embeddings cannot be compared with these."""
        if model["fingerprint"] == self.model["fingerprint"]:
            return
        raise ValueError(
            f"{where} was made by {_named(self.model)}, and this model is {_named(model)}: embeddings of two models"
            " cannot be compared; name that run (and --which), or embed the images again with this one"
        )

    def followed_by(self, others: Embeddings) -> Embeddings:
        """These and then others of the same model."""
        rows = Rows(bytes_of(None))
        for one in (self, others):
            for piece in torch.split(one.vectors, PIECE):
                rows.add(piece)
        images, parts = self.images.followed_by(others.images), [*self.parts, *others.parts]
        return replace(self, vectors=rows.tensor(), images=images, parts=parts)


def _named(model: dict[str, Any]) -> str:
    told = f"{model.get('experiment')}, seed {model.get('seed')}, {model.get('checkpoint')}"
    return f"{told}, {model['fingerprint'][:8]}"


def made_by(model: Trained) -> dict[str, Any]:
    """What a file says of the model; see `Embeddings.model`. A ValueError if it does not embed."""
    if model.facts["task"] != "retrieval":
        raise ValueError(f"embeddings are made by a model for retrieval, and this one is for {model.facts['task']}")
    run = model.facts.get("run", {})
    told = {"checkpoint": model.facts.get("checkpoint"), "epoch": model.facts.get("epoch")}
    return {"fingerprint": model.fingerprint(), **told, **{key: run[key] for key in MADE_BY if key in run}}


def embedded(
    model: Trained,
    images: ImageList,
    batch_size: int | None = None,
    workers: int = 0,
    skip: bool = False,
    advance: Callable[[int], Any] = lambda _: None,
) -> Embeddings:
    """Embeds images; with more of them than a quarter of the memory holds, into a temporary file.

    Args:
        model: For retrieval.
        images: What to embed.
        batch_size: As in `Trained.answers`.
        workers: Likewise.
        skip: Whether images that cannot be read are left out, and listed in `parts`; else they are refused, missing
            and empty ones before anything is embedded.
        advance: Called with the number of images that were done since.

    Raises:
        OSError: If an image cannot be read, or with `skip` if none can.
        ValueError: If the model embeds no pictures.
    """
    maker = made_by(model)
    if not skip:
        images.check()
    failed = dict[int, str]()
    rows, done = Rows(bytes_of(None)), 0
    for output in model.answers(images.entries, batch_size, workers, failed if skip else None):
        rows.add(output.float())
        done, before = rows.count + len(failed), done
        advance(done - before)
    advance(len(images) - done)
    if not rows.count:
        raise OSError(f"none of {len(images):,} images can be read; the first: {failed[0]}")
    kept = images.some([i for i in range(len(images)) if i not in failed]) if failed else images
    titles = images.titles
    left_out = {titles[i]: reason for i, reason in failed.items()}
    part = {"id": uuid.uuid4().hex, "images": len(kept), "left_out": left_out}
    return Embeddings(rows.tensor(), kept, maker, [part])


def described(path: Path) -> Path:
    """Where the description of a `.npy` file is."""
    return path.with_suffix(".json")


def files_of(path: Path) -> list[Path]:
    """What is written, the description of a `.npy` file too; a ValueError if the name ends in none of `KINDS`."""
    if path.suffix not in KINDS:
        raise ValueError(f"embeddings are in a .npz file, or in .npy for millions, got {path}")
    return [path, described(path)] if path.suffix == ".npy" else [path]


def write(path: Path, found: Embeddings) -> None:
    """Writes `path` whole or not at all.

    A `.npz` file has the arrays `embeddings`, `paths`, `column_<name>` and, as JSON, `about`; a `.npy` file the first,
    and the JSON file beside it the others.

    Raises:
        WriteError: If there is no room; what was there before is unharmed.
    """
    files_of(path)
    images, vectors = found.images, found.vectors.cpu().numpy()
    about = {"format": FORMAT, "model": found.model, "root": str(images.root), "parts": found.parts}
    about |= {"crops": images.crops} if images.crops else {}
    if path.suffix == ".npz":
        columns = {f"{COLUMN}{name}": np.array(texts) for name, texts in images.columns.items()}
        arrays: dict[str, Any] = {"paths": np.array(images.names), "about": np.array(json.dumps(about)), **columns}
        write_whole(path, lambda file: np.savez(file, embeddings=vectors, **arrays))
    else:
        about |= {"last": _mark(found.vectors), "paths": images.names, "columns": images.columns}
        write_whole(path, lambda file: np.save(file, vectors))
        write_record(described(path), about)


def read(path: str | Path) -> Embeddings:
    """Reads what `write` wrote; of `.npy` no more than is looked at later.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or something else.
    """
    path = Path(path).expanduser()
    for file in files_of(path):
        if not file.is_file():
            raise FileNotFoundError(f"there is no {file}; make it: python scripts/embed.py RUN IMAGES --out {path}")
    try:
        found = _read(path)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged, or no embeddings of this program ({reason}); embed again") from error
    return found


def _read(path: Path) -> Embeddings:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            about, names, vectors = json.loads(str(file["about"])), file["paths"].tolist(), file["embeddings"]
            columns = {k.removeprefix(COLUMN): file[k].tolist() for k in file.files if k.startswith(COLUMN)}
    else:
        about = read_json(described(path))
        names, columns, vectors = about["paths"], about["columns"], np.load(path, mmap_mode="c", allow_pickle=False)
    rows = torch.from_numpy(vectors)
    if about["format"] > FORMAT:
        raise ValueError(f"of format {about['format']}, and this version reads {FORMAT}")
    lengths = {
        len(names),
        *map(len, columns.values()),
        len(about.get("crops", names)),
        sum(part["images"] for part in about["parts"]),
    }
    if rows.ndim != 2 or rows.dtype != torch.float32 or lengths != {len(rows)}:
        raise ValueError(f"{tuple(rows.shape)} of {rows.dtype} for {len(names)} images")
    if path.suffix == ".npy" and about["last"] != _mark(rows):
        raise ValueError(f"{described(path).name} is of other embeddings")
    crops = [crop and tuple(crop) for crop in about["crops"]] if "crops" in about else None
    images = ImageList(Path(about["root"]), names, columns, crops)
    return Embeddings(rows, images, about["model"], about["parts"])


def _mark(vectors: Tensor) -> str:
    """What tells a file from one that was written before: of its last row."""
    return hashlib.sha256(vectors[-1].cpu().numpy().tobytes()).hexdigest()
