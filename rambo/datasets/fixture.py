"""Tiny copies of the data sets in their true layouts, for tests and for trial runs with `data.fixture=true`.

The pictures are made up: each class has its own colours and stripes, so that a short training shows an effect. File
names, lists, headers and oddities (grayscale images, `._` files, padded columns, a class with one image) are those of
the real thing.
"""

from __future__ import annotations

import io
import itertools
import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from harness.data.fixtures import save, stand_in, stripes
from rambo.datasets.glyphs import CYRILLIC, FACES, GREEK, draw, font_folder, warp

SPECIES = (
    "Black_footed_Albatross", "Laysan_Albatross", "Crested_Auklet", "Brewer_Blackbird", "Indigo_Bunting",
    "Northern_Cardinal", "Gray_Catbird", "Yellow_breasted_Chat", "American_Crow", "Purple_Finch", "Evening_Grosbeak",
    "Anna_Hummingbird", "Blue_Jay", "Belted_Kingfisher", "Scissor_tailed_Flycatcher", "House_Wren",
)  # fmt: skip


def picture(kind: int, sample: int, width: int = 80, height: int = 64) -> Image.Image:
    """A picture of class `kind`: stripes of its own colours, width and angle, at a random place, with noise."""
    own, chance = np.random.default_rng([1, kind]), np.random.default_rng([2, kind, sample])
    front, back = own.uniform(30, 225, size=(2, 3))
    angle, waves = own.uniform(0, math.pi), own.uniform(2, 9)
    angle += chance.normal(0, 0.08)
    pixels = stripes(chance, angle, waves, front, back, height, width)
    return Image.fromarray((pixels * chance.uniform(0.85, 1.15)).clip(0, 255).astype(np.uint8))


@stand_in
def write_cub(folder: Path) -> None:
    """CUB-200-2011: 16 classes of 6 images, the last of each grayscale, a stray attributes.txt, a `._` file."""
    base = folder / "CUB_200_2011"
    images: list[str] = []
    labels: list[str] = []
    for kind, name in enumerate(SPECIES):
        for sample in range(6):
            path = f"{kind + 1:03d}.{name}/{name.title()}_{sample + 1:04d}_{40 * kind + sample}.jpg"
            save(picture(kind, sample), base / "images" / path, gray=sample == 5)
            images.append(f"{len(images) + 1} {path}")
            labels.append(f"{len(images)} {kind + 1}")
    (base / "images" / f"001.{SPECIES[0]}" / "._Black_Footed_Albatross_0001_0.jpg").write_bytes(b"\x00\x05\x16\x07")
    images[1], images[2] = images[2], images[1]  # as in the original, the order is not that of the sorted files
    _lines(base / "images.txt", images)
    _lines(base / "image_class_labels.txt", labels)
    _lines(base / "classes.txt", [f"{kind} {kind:03d}.{name}" for kind, name in enumerate(SPECIES, start=1)])
    _lines(folder / "attributes.txt", ["1 has_bill_shape::curved_(up_or_down)"])


@stand_in
def write_cub_crops(folder: Path) -> None:
    """Crops of CUB-200-2011: 8 training and 8 test classes of 5 images, 227 x 227, and their list."""
    rows = []
    for kind, name in enumerate(SPECIES):
        part, number = ("train", kind + 1) if kind < 8 else ("test", kind + 93)
        for sample in range(5):
            path = f"images/{number:03d}.{name}/{sample:04d}.jpg"
            save(picture(kind, sample, 36, 36).resize((227, 227)), folder / path)
            rows.append((path, f"{number:03d}.{name}", part))
    write_listed(folder, rows)


def write_listed(folder: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes `images.csv`, a table of path, label and split."""
    _lines(folder / "images.csv", [",".join(row) for row in [("path", "label", "split"), *rows]])


@stand_in
def write_sop(folder: Path) -> None:
    """Stanford Online Products: 3 categories; 4 training classes and 2 test classes in each, 4 or 5 images a class."""
    number, kind = 0, 0
    for part, per_category in (("train", 4), ("test", 2)):
        rows = []
        for category, name in enumerate(["bicycle_final", "coffee_maker_final", "toaster_final"], start=1):
            for _ in range(per_category):
                listing = 111085122871 + 1000 * kind
                for sample in range(4 + kind % 2):
                    path, number = f"{name}/{listing}_{sample}.JPG", number + 1
                    save(picture(kind, sample), folder / "Stanford_Online_Products" / path)
                    rows.append(f"{number} {kind + 1} {category} {path}")
                kind += 1
        header = "image_id class_id super_class_id path"
        _lines(folder / "Stanford_Online_Products" / f"Ebay_{part}.txt", [header, *rows])


@stand_in
def write_inshop(folder: Path) -> None:
    """In-Shop: 3 kinds of garment; training items (one of them with a single image), query and gallery."""
    base = folder / "In-shop Clothes Retrieval Benchmark"
    rows = []
    for kind in range(18):
        item, garment = f"id_{kind + 1:08d}", ("WOMEN/Dresses", "WOMEN/Tees_Tanks", "MEN/Denim")[kind % 3]
        for sample in range(1 if kind == 5 else 5):
            path = f"img/{garment}/{item}/{sample // 4 + 1:02d}_{sample + 1}_front.jpg"
            save(picture(kind, sample, 64, 64), base / "Img" / path)
            status = "train" if kind < 12 else "query" if sample < 2 else "gallery"
            rows.append(f"{path:<70} {item:<12} {status}")
    header = [str(len(rows)), "image_name item_id evaluation_status"]
    _lines(base / "Eval" / "list_eval_partition.txt", [*header, *rows])


@stand_in
def write_folder(folder: Path) -> None:
    """Somebody's own images: 16 folders of 5 images, with a hidden file and a note that are none."""
    for kind in range(16):
        for sample in range(5):
            extension = ("jpg", "JPG", "jpeg")[sample % 3]
            save(picture(kind, sample, 72, 72), folder / f"thing {kind}" / f"{sample}.{extension}")
    (folder / "thing 0" / "._0.jpg").write_bytes(b"\x00\x05\x16\x07")
    (folder / "thing 0" / "notes.txt").write_text("not an image")


@stand_in
def write_letters(folder: Path) -> None:
    """Files to embed and to search with a model of `data=glyphs`: the 79 letters that it is tested on, 12 of each."""
    generator = torch.Generator().manual_seed(0)
    faces = [ImageFont.truetype(str(font_folder() / face), 48) for face in FACES]
    for letter in GREEK + CYRILLIC:
        drawn = torch.from_numpy(np.stack([draw(letter, face) for face in faces]))
        for number, image in enumerate(255 - warp(drawn[:, None].float(), 32, generator)[:, 0]):
            path = folder / f"U+{ord(letter):04X} {letter}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image.round().byte().numpy()).save(path)


@stand_in
def write_omniglot(folder: Path) -> None:
    """Omniglot: the two archives, 8 alphabets of 3 characters by 6 drawers, 105 x 105 black on white, 1 bit."""
    first = ["Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"]
    second = ["Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"]
    kinds = {alphabet: 3 * i for i, alphabet in enumerate(sorted({*first, *second}))}
    for source, alphabets in (("images_background_small1", first), ("images_background_small2", second)):
        with zipfile.ZipFile(folder / f"{source}.zip", "w") as archive:
            for alphabet, character, drawer in itertools.product(alphabets, range(3), range(1, 7)):
                kind = kinds[alphabet] + character
                name = f"{source}/{alphabet}/character{character + 1:02d}/{kind + 1:04d}_{drawer:02d}.png"
                buffer = io.BytesIO()
                _strokes(kind, drawer).save(buffer, format="PNG")
                archive.writestr(zipfile.ZipInfo(name), buffer.getvalue())  # with a fixed date


def _strokes(kind: int, drawer: int) -> Image.Image:
    own, chance = np.random.default_rng([3, kind]), np.random.default_rng([4, kind, drawer])
    image = Image.new("1", (105, 105), 1)
    for _ in range(2):
        points = own.uniform(20, 85, size=(3, 2)) + chance.normal(0, 4, size=(3, 2))
        ImageDraw.Draw(image).line([(float(x), float(y)) for x, y in points], fill=0, width=3)
    return image


def _lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "cub": write_cub,
    "cub_crops": write_cub_crops,
    "sop": write_sop,
    "inshop": write_inshop,
    "omniglot": write_omniglot,
    "folder": write_folder,
    "letters": write_letters,
}
