"""Tiny copies of the data sets in their true layouts, for tests and for trial runs with `data.fixture=true`.

The pictures are made up: their look follows the target, so that a short training shows an effect. File names, lists,
headers and oddities (shuffled rows, grayscale images, images of several sizes) are those of the real thing.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.fixtures import beside

_PEOPLE = ("OliviaHussey", "GilbertRoland", "MireilleDarc", "GeorgesMarchal", "ElsaLanchester")

# Training ages: one with 20 samples (medium shot), a tail of few shots, extremes; 40 in all. Validation and test are
# balanced. Age 52 is in them alone and lies inside the range of training, age 97 outside.
_TRAINING_AGES = (30,) * 20 + (24, 25, 27, 28, 31, 33, 35, 35, 38, 41, 41, 44, 48, 55, 60, 66, 71, 80, 90, 3)
_OTHER_AGES = (3, 25, 30, 30, 35, 41, 48, 52, 60, 71, 80, 97)


def picture(level: float, sample: int, width: int = 48, height: int = 48) -> Image.Image:
    """A picture that shows `level`, 0 to 1: the angle of stripes and their colour turn with it; with noise."""
    chance = np.random.default_rng([5, sample])
    angle, waves = math.pi / 2 * level, chance.uniform(2.5, 4)
    y, x = np.mgrid[0:height, 0:width] / height
    wave = np.sin(2 * math.pi * waves * (x * math.cos(angle) + y * math.sin(angle)) + chance.uniform(0, 2 * math.pi))
    share = 0.5 + 0.5 * np.tanh(3 * wave)[..., None]
    front, back = np.array([40 + 180 * level, 90, 220 - 180 * level]), np.array([200.0, 190.0, 170.0])
    pixels = share * front + (1 - share) * back + chance.normal(0, 12, size=(height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_agedb(root: Path) -> Path:
    """AgeDB-DIR: `agedb.csv` and `AgeDB/<id>_<Name>_<age>_<m|f>.jpg`; 40 training images, 12 each to evaluate."""

    def write(folder: Path) -> None:
        rows = []
        for number, (age, part) in enumerate(_shuffled()):
            person = _PEOPLE[number % len(_PEOPLE)]
            path = f"AgeDB/{number}_{person}_{age}_{'mf'[number % 2]}.jpg"
            _save(picture(age / 100, number, 48 + number % 3, 56), folder / path, gray=number % 7 == 0)
            rows.append((age, path, part))
        write_table(folder / "agedb.csv", ("age", "path", "split"), rows)

    return beside(root, write)


def write_imdb_wiki(root: Path) -> Path:
    """IMDB-WIKI-DIR: `imdb_wiki.csv`, `imdb_crop/NN/*.jpg` and `wiki_crop/NN/*.jpg`; one age is 186."""

    def write(folder: Path) -> None:
        rows = []
        for number, (age, part) in enumerate([*_shuffled(), (186, "train")]):
            shelf = f"{number % 5:02d}"
            path = f"imdb_crop/{shelf}/nm00000{shelf}_rm{2500 + number}_1970-5-20_2000.jpg"
            if number % 3 == 0:
                path = f"wiki_crop/{shelf}/{10000 + number}{shelf}_1970-05-20_2000.jpg"
            _save(picture(min(age, 100) / 100, number, 40 + number % 5, 48), folder / path, gray=number % 7 == 0)
            rows.append((age, path, part))
        write_table(folder / "imdb_wiki.csv", ("age", "path", "split"), rows)

    return beside(root, write)


def write_own_images(root: Path, table: str, target: str, image: str) -> Path:
    """Somebody's own images: a table of paths and targets and no split; 90 images, most of them with a low target."""

    def write(folder: Path) -> None:
        rows = []
        for number in range(90):
            level = (number / 89) ** 3
            path = f"pictures/{number:03d}.png"
            (folder / "pictures").mkdir(exist_ok=True)
            picture(level, number, 40, 40).save(folder / path)
            rows.append((path, f"{100 * level:.2f}"))
        write_table(folder / table, (image, target), rows)

    return beside(_named_after(root, table, target, image), write)


def write_own_numbers(root: Path, table: str, target: str, features: Sequence[str] | None) -> Path:
    """Somebody's own numbers: a table of features and targets and no split; 90 rows, most with a low target."""
    names = list(features or [name for name in ("width", "height", "weight") if name != target])

    def write(folder: Path) -> None:
        chance = np.random.default_rng(6)
        rows = []
        for number in range(90):
            level = (number / 89) ** 3
            noise = chance.normal(0, 0.1, size=len(names))
            rows.append(
                (*(f"{10 * place + level + noise[place]:.3f}" for place in range(len(names))), f"{100 * level:.2f}")
            )
        write_table(folder / table, (*names, target), rows)

    return beside(_named_after(root, table, target, *names), write)


def _named_after(root: Path, *columns: str) -> Path:
    """A place for each choice of columns, as the copy of another choice would not do."""
    return root.with_name(f"{root.name}_{hashlib.sha256(repr(columns).encode()).hexdigest()[:8]}")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table with a header: tab separated if its name ends in .tsv, else by commas."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writerows([header, *rows])


def _shuffled() -> list[tuple[int, str]]:
    """(age, split) of every image, in no particular order, as in the originals."""
    rows = [(age, part) for part, ages in _PARTS for age in ages]
    return [rows[i] for i in np.random.default_rng(7).permutation(len(rows))]


_PARTS = (("train", _TRAINING_AGES), ("val", _OTHER_AGES), ("test", _OTHER_AGES))


def _save(image: Image.Image, path: Path, gray: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image.convert("L") if gray else image).save(path, format="JPEG", quality=90)


LAYOUTS: dict[str, Callable[[Path], Path]] = {"agedb": write_agedb, "imdb_wiki": write_imdb_wiki}
