"""Tiny copies of the data sets in their true layouts, for tests and for trial runs with `data.fixture=true`.

Pictures and sentences are made up: they follow the target, so that a short training shows an effect. File names, lists,
headers and oddities (shuffled rows, grayscale images, bare quotation marks) are those of the real thing.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.fixtures import beside, save, stand_in, stripes

_PEOPLE = ("OliviaHussey", "GilbertRoland", "MireilleDarc", "GeorgesMarchal", "ElsaLanchester")

# Training ages: one with 20 samples (medium shot), a tail of few shots, extremes; 40 in all. Validation and test are
# balanced. Age 52 is in them alone and lies inside the range of training, age 97 outside.
_TRAINING_AGES = (30,) * 20 + (24, 25, 27, 28, 31, 33, 35, 35, 38, 41, 41, 44, 48, 55, 60, 66, 71, 80, 90, 3)
_OTHER_AGES = (3, 25, 30, 30, 35, 41, 48, 52, 60, 71, 80, 97)


def picture(level: float, sample: int, width: int = 48, height: int = 48) -> Image.Image:
    """A picture that shows `level`, 0 to 1: the angle of stripes and their colour turn with it; with noise."""
    chance = np.random.default_rng([5, sample])
    waves = chance.uniform(2.5, 4)
    front, back = np.array([40 + 180 * level, 90, 220 - 180 * level]), np.array([200.0, 190.0, 170.0])
    pixels = stripes(chance, math.pi / 2 * level, waves, front, back, height, width)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@stand_in
def write_agedb(folder: Path) -> None:
    """AgeDB-DIR: `agedb.csv` and `AgeDB/<id>_<Name>_<age>_<m|f>.jpg`; 40 training images, 12 each to evaluate."""
    rows = []
    for number, (age, part) in enumerate(_shuffled()):
        person = _PEOPLE[number % len(_PEOPLE)]
        path = f"AgeDB/{number}_{person}_{age}_{'mf'[number % 2]}.jpg"
        save(picture(age / 100, number, 48 + number % 3, 56), folder / path, gray=number % 7 == 0)
        rows.append((age, path, part))
    write_table(folder / "agedb.csv", ("age", "path", "split"), rows)


@stand_in
def write_imdb_wiki(folder: Path) -> None:
    """IMDB-WIKI-DIR: `imdb_wiki.csv`, `imdb_crop/NN/*.jpg` and `wiki_crop/NN/*.jpg`; one age is 186."""
    rows = []
    for number, (age, part) in enumerate([*_shuffled(), (186, "train")]):
        shelf = f"{number % 5:02d}"
        path = f"imdb_crop/{shelf}/nm00000{shelf}_rm{2500 + number}_1970-5-20_2000.jpg"
        if number % 3 == 0:
            path = f"wiki_crop/{shelf}/{10000 + number}{shelf}_1970-05-20_2000.jpg"
        save(picture(min(age, 100) / 100, number, 40 + number % 5, 48), folder / path, gray=number % 7 == 0)
        rows.append((age, path, part))
    write_table(folder / "imdb_wiki.csv", ("age", "path", "split"), rows)


def _shuffled() -> list[tuple[int, str]]:
    """(age, split) of every image, in no particular order, as in the originals."""
    parts = (("train", _TRAINING_AGES), ("val", _OTHER_AGES), ("test", _OTHER_AGES))
    rows = [(age, part) for part, ages in parts for age in ages]
    return [rows[i] for i in np.random.default_rng(7).permutation(len(rows))]


def write_own(
    root: Path, table: str, targets: Sequence[str], image: str | None, features: Sequence[str] | None = None
) -> Path:
    """Somebody's own data: a table of images, or else of numbers, and targets; 90 rows, most with a low target.

    Of several targets every second one falls where the first one rises.
    """
    columns = (
        [image] if image else list(features or [name for name in ("width", "height", "weight") if name not in targets])
    )

    def write(folder: Path) -> None:
        chance = np.random.default_rng(6)
        rows = []
        for number in range(90):
            level = (number / 89) ** 3
            if image:
                values = [f"pictures/{number:03d}.png"]
                (folder / "pictures").mkdir(exist_ok=True)
                picture(level, number, 40, 40).save(folder / values[0])
            else:
                noise = chance.normal(0, 0.1, size=len(columns))
                values = [f"{10 * place + level + noise[place]:.3f}" for place in range(len(columns))]
            told = (100 * (1 - level if place % 2 else level) for place in range(len(targets)))
            rows.append((*values, *(f"{one:.2f}" for one in told)))
        write_table(folder / table, (*columns, *targets), rows)

    which = repr((table, *targets, *columns)).encode()  # a place for each choice, as the copy of another would not do
    return beside(root.with_name(f"{root.name}_{hashlib.sha256(which).hexdigest()[:8]}"), write)


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


# Score -> pairs in the pool; of each score one goes to dev, one to test and the rest to train. By the official lists,
# bins 0, 10, 16, 20, 26, 30, 36, 44 and 49 are many-shot, 2, 8, 27 and 37 medium, 3, 25 and 41 few.
_SCORES = {
    **{"0.0": 11, "1.000": 8, "1.6": 6, "2.0": 8, "2.600": 5, "3.0": 8, "3.6": 5, "4.4": 5, "5.0": 9},
    **{"0.2": 5, "0.833": 5, "2.75": 5, "3.75": 5, "0.35": 5, "2.533": 5, "4.188": 5},
}
_WORDS = (
    "A man woman child dog horse café in the is of playing guitar riding running eating a red small house street while"
    + " rain falls people watch slowly outside near old bridge"
)
_COLUMNS = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score")


@stand_in
def write_sts_b(folder: Path) -> None:
    """STS-B-DIR: `<draw>/{train,dev,test}_new.tsv` of 68, 16 and 16 pairs, for two draws of one pool."""
    pool = [score for score, pairs in _SCORES.items() for _ in range(pairs)]
    rows = [_pair(place, score) for place, score in enumerate(pool)]
    for seed, draw in enumerate(("ranksim", "dir")):
        parts: dict[str, list[list[str]]] = {"train": [], "dev": [], "test": []}
        chance, start = np.random.default_rng([8, seed]), 0
        for pairs in _SCORES.values():
            for turn, place in enumerate(chance.permutation(pairs)):
                parts[("dev", "test", "train")[min(turn, 2)]].append(rows[start + int(place)])
            start += pairs
        (folder / draw).mkdir()
        for part, chosen in parts.items():
            shuffled = [chosen[place] for place in chance.permutation(len(chosen))]
            lines = [_COLUMNS, *([str(index), *row] for index, row in enumerate(shuffled))]
            text = "".join("\t".join(line) + "\n" for line in lines)
            (folder / draw / f"{part}_new.tsv").write_text(text, encoding="utf-8", newline="\n")


def _pair(place: int, score: str) -> list[str]:
    """All columns but the index; the more words two sentences share, the higher their score."""
    chance, known = np.random.default_rng([9, place]), _WORDS.split()
    first = [known[word] for word in chance.choice(len(known), size=int(chance.integers(4, 12)), replace=False)]
    changed = chance.random(len(first)) > float(score) / 5
    other = [known[word] for word in chance.choice(len(known), size=len(first))]
    second = [new if change else old for old, new, change in zip(first, other, changed, strict=True)]
    if place % 6 == 0:
        first = ["He", "said", f'"{first[0]}', *first[1:]]  # a quotation that is never closed, as in the original
    sentences = [" ".join(words) + "." for words in (first, second)]
    return ["main-captions", "MSRvid", "2012test", f"{place:04d}", "none", "none", *sentences, score]


LAYOUTS: dict[str, Callable[[Path], Path]] = {"agedb": write_agedb, "imdb_wiki": write_imdb_wiki}
