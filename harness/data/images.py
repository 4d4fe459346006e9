"""Reading image files, a folder that keeps them already resized, and augmentation that depends on no worker."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn

MARKED_BY_CONTENT = 256 * 2**20  # bytes of a part's files, up to which all of them are read to tell them apart


def file_marks(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file, or, where all together are larger than `MARKED_BY_CONTENT`, its size."""
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) > MARKED_BY_CONTENT:
        return [f"{size} bytes" for size in sizes]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, also in linked ones, which `rglob` passes over; a link back to itself ends there."""
    pending = [(folder, {os.path.realpath(folder)})]
    while pending:
        current, above = pending.pop()
        for entry in os.scandir(current):
            path = current / entry.name
            if entry.is_file(follow_symlinks=False) or not path.is_dir():
                yield path
            elif (real := os.path.realpath(path)) not in above:
                pending.append((path, above | {real}))


def check_same_files(folder: Path, names: Sequence[str]) -> None:
    """Refuses one file under two names, by a link: it might be trained and tested on, or be what a query finds."""
    first: dict[tuple[int, int], str] = {}
    for name in names:
        try:
            state = os.stat(folder / name)
        except OSError:
            continue  # told with all that are missing
        other = first.setdefault((state.st_dev, state.st_ino), name) if state.st_ino else name
        if other != name:
            raise ValueError(f"{other} and {name} in {folder} are one and the same file, by a link; leave one of them")


@contextmanager
def seeded_draws(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Within, torch's CPU generator draws for one sample of one epoch; afterwards it is as it was."""
    before = torch.get_rng_state()
    digest = hashlib.blake2b(f"{seed} {epoch} {index}".encode(), digest_size=8).digest()
    # Not torch.manual_seed, which would also reseed the generators of every GPU.
    torch.default_generator.manual_seed(int.from_bytes(digest, "big"))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def decode(path: Path, upright: bool = False, content: bytes | None = None) -> Tensor:
    """The picture in a file as uint8 (3, height, width), whatever the file holds: grayscale, palette, CMYK or alpha.

    `upright` turns the picture as its EXIF orientation says, which the papers' pipelines do not; `content` is what the
    file holds, where that has been read already. An OSError names a file without a picture of 8 bits a channel.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            return rgb(image, upright)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no image {path}; the data are incomplete: check them, or download again") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "it is none, or damaged" if isinstance(error, UnidentifiedImageError) else str(error)
        raise OSError(
            f"cannot read the image {path} ({reason}); replace the file, or leave it out of the data"
        ) from error


def rgb(image: Image.Image, upright: bool = False) -> Tensor:
    """An image of Pillow as `decode` gives it; a ValueError says if it has more than 8 bits a channel."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
    turned = ImageOps.exif_transpose(image) if upright else image
    return torch.from_numpy(np.array(turned.convert("RGB"))).permute(2, 0, 1)


class ImageCache:
    """Keeps what the first, deterministic step of a transform makes of each image in `folder`; made if missing.

    Entries are named by the content of the source file and the step, so that none is ever stale. Pixels are stored as
    they are: 192 KiB for a 256 x 256 image (CUB-200-2011 2.3 GB, Stanford Online Products 24 GB). Safe with any number
    of writers: each writes a file of its own and renames it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, path: Path, prepare: nn.Module, upright: bool = False) -> Tensor:
        """`prepare` applied to the picture in `path`: uint8 (3, height, width)."""
        try:
            content = path.read_bytes()
        except OSError:
            decode(path, upright)  # raises the sentence that names the file
            raise
        key = hashlib.sha256(content + f"\n{prepare}\n{upright}".encode()).hexdigest()
        entry = self.folder / key[:2] / f"{key}.npy"
        try:
            return torch.from_numpy(np.load(entry, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or cut short by a crash of the machine: make it anew
        image: Tensor = prepare(decode(path, upright, content)).contiguous()
        beside = entry.with_name(f"{entry.stem}.{uuid.uuid4().hex}.part")
        try:
            entry.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                np.save(file, image.numpy(), allow_pickle=False)
            os.replace(beside, entry)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise OSError(
                f"cannot write to the image cache {self.folder} ({error.strerror});"
                " free some space, or set data.cache=null"
            ) from error
        return image
