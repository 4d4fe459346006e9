"""Pictures a second of one core, from JPEG files to a batch: our loader beside torchvision's.

    python benchmarks/input.py                         # pictures with about as many bytes a pixel as CUB-200-2011's
    python benchmarks/input.py --noise 3 --quality 75  # and such as the web has

The peer is Pillow with torchvision's ImageFolder and its v1 transforms, in torch's loader: "peer" as recipes have it,
to floats by ToTensor and Normalize; "peer, bytes" with PILToTensor. Ours are bytes, which the model normalises on its
device. Nobody has worker processes here. Pictures are rendered: smooth colours of four sizes, and noise. Times are of
the processor; contestants take turns, and the median counts. Ratios are to "peer" and to "peer, bytes".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from harness.data import jpeg
from harness.data.dataset import PartDataset
from harness.data.images import ImageCache
from harness.data.loading import EpochLoader, ShuffledBatches
from rambo.datasets.records import Records
from rambo.datasets.transforms import RandomCrop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((500, 375), (1000, 750))


def photograph(width: int, height: int, noise: float, seed: int) -> Image.Image:
    draws = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0)
    for cells, contrast in ((4, 60), (16, 40), (64, 25), (max(width, height) // 3, 12)):
        coarse = draws.normal(0, contrast, (cells * height // width + 1, cells, 3)).astype(np.float32)
        layers = [Image.fromarray(coarse[..., i]).resize((width, height), Image.Resampling.BICUBIC) for i in range(3)]
        pixels += np.stack([np.asarray(layer) for layer in layers], axis=-1)
    return Image.fromarray((pixels + draws.normal(0, noise, pixels.shape)).clip(0, 255).astype(np.uint8))


def peer(folder: Path, steps: list[Any], batch: int, last: list[Any]) -> Iterable[Any]:
    transform = v1.Compose([*steps, v1.RandomHorizontalFlip(), *last])
    return DataLoader(ImageFolder(str(folder), transform), batch, shuffle=True)


def ours(folder: Path, crop: RandomCrop, batch: int, cache: Path | None = None, scaled: bool = False) -> Iterable[Any]:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    records = Records(names, torch.arange(len(names)), folder=folder)
    kept = None if cache is None else ImageCache(cache, scaled)
    return EpochLoader(PartDataset(records, crop, cache=kept, scaled=scaled), ShuffledBatches(len(names), batch))


def seconds(loader: Iterable[Any], pillow: bool) -> float:
    """Processor time of one pass, with simplejpeg left out or not."""
    library = jpeg.simplejpeg
    jpeg.simplejpeg = None if pillow else library
    try:
        start = time.process_time()
        for _ in loader:
            pass
        return time.process_time() - start
    finally:
        jpeg.simplejpeg = library


def compare(folder: Path, steps: list[Any], crop: RandomCrop, batch: int, rounds: int) -> str:
    """The columns of one crop."""
    with tempfile.TemporaryDirectory() as kept:
        loaders = {
            "peer": peer(folder, steps, batch, [v1.ToTensor(), v1.Normalize(MEAN, STD)]),
            "bytes": peer(folder, steps, batch, [v1.PILToTensor()]),
            "pillow": ours(folder, crop, batch),
            "exact": ours(folder, crop, batch),
            "scaled": ours(folder, crop, batch, scaled=True),
            "cached": ours(folder, crop, batch, cache=Path(kept)),
        }
        taken: dict[str, list[float]] = {name: [] for name in loaders}
        for turn in range(rounds + 1):  # the first warms up, and fills the cache
            for name, loader in loaders.items():
                spent = seconds(loader, name == "pillow")
                if turn:
                    taken[name].append(spent)
    typical = {name: statistics.median(spent) for name, spent in taken.items()}
    count, columns = len(list(folder.rglob("*.jpg"))), []
    for name, spent in typical.items():
        ratios = f" (**{typical['peer'] / spent:.1f}x**, {typical['bytes'] / spent:.1f}x)"
        columns.append(f"{count / spent:.0f}" + ratios * (name not in ("peer", "bytes")))
    return " | ".join(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--noise", type=float, default=9, help="standard deviation, of 255")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| pictures | crop | peer | peer, bytes | without simplejpeg | exact | scaled | exact, cached |")
    print("|---|---|---|---|---|---|---|---|")
    crops = {
        "random resized": ([v1.RandomResizedCrop(224)], RandomCrop(224, None, crop="random_resized")),
        "256, random": ([v1.Resize((256, 256)), v1.RandomCrop(224)], RandomCrop(224)),
    }
    for width, height in SIZES:
        with tempfile.TemporaryDirectory() as root:
            (folder := Path(root) / "class").mkdir()
            for seed in range(options.pictures):
                picture = photograph(width, height, options.noise, seed)
                picture.save(folder / f"{seed}.jpg", quality=options.quality)
            size = statistics.mean(path.stat().st_size for path in folder.iterdir()) / 1000
            for name, (steps, crop) in crops.items():
                columns = compare(Path(root), steps, crop, options.batch, options.rounds)
                print(f"| {width} x {height}, {size:.0f} kB | {name} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
