"""Reading image files, a folder that keeps them already resized, and augmentation that depends on no worker."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn

from harness.data.jpeg import Jpeg

log = logging.getLogger(__name__)
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


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no image {path}; the data are incomplete: check them, or download again") from error
    except MemoryError:
        raise  # says nothing of the file
    except Exception as error:  # whatever a damaged file makes its reader say
        raise OSError(
            f"cannot read the image {path} ({_reason(error)}); replace the file, or leave it out of the data"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is none, or damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"it unpacks to more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    expected = isinstance(error, OSError | ValueError | SyntaxError)
    return str(error) if expected else f"{type(error).__name__}: {error}"


def content_of(path: Path) -> bytes:
    """What an image file holds; an OSError names one that cannot be opened."""
    with _named(path):
        return path.read_bytes()


def check_kind(image: Image.Image) -> None:
    """Refuses, by a ValueError, what Pillow calls a picture and hands to another program to run: PostScript."""
    if image.format == "EPS":
        raise ValueError("it is PostScript, a program and no picture")


def rgb(image: Image.Image, upright: bool = False) -> Tensor:
    """An image of Pillow as `decode` gives it; a ValueError says if it has more than 8 bits a channel.

    Of an animation it is the first picture. Of colours with 16 bits a channel Pillow keeps the upper 8.
    """
    check_kind(image)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
    turned = ImageOps.exif_transpose(image) if upright else image
    return _planes(np.array(turned if turned.mode == "RGB" else turned.convert("RGB")))


def decode(path: Path, upright: bool = False, content: bytes | None = None) -> Tensor:
    """The picture in a file as uint8 (3, height, width), whatever the file holds: grayscale, palette, CMYK or alpha.

    `upright` turns the picture as its EXIF orientation says, which the papers' pipelines do not; `content` is what the
    file holds, where that has been read already. An OSError names a file without a picture of 8 bits a channel.
    """
    with _named(path):
        content = path.read_bytes() if content is None else content
        jpeg = Jpeg.opened(content, upright)
        pixels = None if jpeg is None else jpeg.pixels()
        if pixels is not None:
            return _planes(pixels)
        with Image.open(io.BytesIO(content)) as image:
            return rgb(image, upright)


Crop = tuple[int, int, int, int]
"""Left, top, right and bottom of what is looked at, in pixels of the picture as `decode` gives it; ends excluded."""


def cropped(picture: Tensor, crop: Crop | None, path: object) -> Tensor:
    """That part of a picture (3, height, width); None: all. A ValueError names the file that the crop goes beyond."""
    if crop is None:
        return picture
    (left, top, right, bottom), (height, width) = crop, picture.shape[1:]
    if right > width or bottom > height:
        raise ValueError(f"the crop {crop} goes beyond {path}, which is {width} wide and {height} high; correct it")
    return picture[:, top:bottom, left:right]


Plan = Callable[[int, int], tuple[tuple[int, int], Callable[[Tensor], Tensor]]]
"""Of a picture's height and width: the least it may be reduced to, and what makes the view of it once it is decoded."""


def reduced(path: Path, plan: Plan, upright: bool = False, content: bytes | None = None) -> Tensor:
    """The view that `plan` makes of the picture in a file, of which a JPEG is decoded no larger than the view needs.

    That is at half, a quarter or an eighth of its size; where this is too little, it is decoded in full, as any other
    picture, and the view is that of the picture from `decode`. Arguments and errors are as there.
    """
    with _named(path):
        content = path.read_bytes() if content is None else content
        jpeg = Jpeg.opened(content, upright)
    if jpeg is None:
        picture = decode(path, upright, content)
        return plan(*picture.shape[1:])[1](picture)
    least, view = plan(jpeg.height, jpeg.width)
    pixels = jpeg.pixels(least)
    return view(decode(path, upright, content) if pixels is None else _planes(pixels))


def _planes(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


class ImageCache:
    """Keeps what the first, deterministic step of a transform makes of each image in `folder`; made if missing.

    Entries are named by the content of the source file and the step, so that none is ever stale. Pixels are stored as
    they are: 192 KiB for a 256 x 256 image (CUB-200-2011 2.3 GB, Stanford Online Products 24 GB), and after them their
    CRC-32: an entry that is damaged, or has none, as those of earlier versions, is made anew. Safe with any number of
    writers: each writes a file of its own and renames it. Where nothing can be written any more, as on a full disk, a
    warning says so once, and the rest is made every time it is asked for. `scaled` decodes as `reduced` does.

    Raises:
        NotADirectoryError: If `folder` is a file.
    """

    def __init__(self, folder: str | Path, scaled: bool = False) -> None:
        self.folder, self.scaled = Path(folder), scaled
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"data.cache={self.folder} is a file, wanted a folder; choose another, or null")
        self._full = torch.zeros((), dtype=torch.bool)
        with suppress(RuntimeError):  # no shared memory: every process that loads warns for itself
            self._full.share_memory_()  # type: ignore[no-untyped-call]

    def load(self, path: Path, prepare: nn.Module, upright: bool = False, crop: Crop | None = None) -> Tensor:
        """`prepare` applied to the picture in `path`, or to a crop of it: uint8 (3, height, width)."""
        content = content_of(path)
        step = f"\n{prepare}\n{upright}" + "\nscaled" * self.scaled + (f"\n{crop}" if crop else "")
        key = hashlib.sha256(content + step.encode()).hexdigest()
        entry = self.folder / key[:2] / f"{key}.npy"
        with suppress(OSError, ValueError, EOFError):  # not there yet, or damaged: make it anew
            kept = entry.read_bytes()
            if zlib.crc32(kept[:-4]).to_bytes(4, "big") == kept[-4:]:
                return torch.from_numpy(np.load(io.BytesIO(kept[:-4]), allow_pickle=False))
        image = self._made(path, prepare, upright, content, crop).contiguous()
        if not self._full:
            self._keep(entry, image)
        return image

    def _keep(self, entry: Path, image: Tensor) -> None:
        beside, pixels = entry.with_name(f"{entry.stem}.{uuid.uuid4().hex}.part"), io.BytesIO()
        np.save(pixels, image.numpy(), allow_pickle=False)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(pixels.getvalue() + zlib.crc32(pixels.getvalue()).to_bytes(4, "big"))
            os.replace(beside, entry)
        except OSError as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            self._full.fill_(True)
            log.warning(
                "cannot write to the image cache %s (%s): this run goes on and keeps no more; free some space, or set "
                "data.cache=null",
                self.folder,
                error.strerror,
            )

    def _made(self, path: Path, prepare: Any, upright: bool, content: bytes, crop: Crop | None) -> Tensor:
        if self.scaled and crop is None:
            return reduced(path, lambda height, width: (prepare.least(height, width), prepare), upright, content)
        made: Tensor = prepare(cropped(decode(path, upright, content), crop, path))
        return made
