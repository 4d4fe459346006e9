"""A tiny copy of STS-B-DIR in its true layout, for tests and for trial runs with `data.fixture=true`.

The sentences are made up: the more words a pair shares, the higher its score, so that a short training shows an effect.
Header, columns and oddities (bare quotation marks, accents, decimal scores of several lengths, two draws of one pool)
are those of the real thing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.fixtures import beside

HEADER = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"]
DRAWS = ("ranksim", "dir")

# Score -> pairs in the pool; of each score one goes to dev, one to test and the rest to train. By the official lists,
# bins 0, 10, 16, 20, 26, 30, 36, 44 and 49 are many-shot, 2, 8, 27 and 37 medium, 3, 25 and 41 few.
_SCORES = {
    **{"0.0": 11, "1.000": 8, "1.6": 6, "2.0": 8, "2.600": 5, "3.0": 8, "3.6": 5, "4.4": 5, "5.0": 9},
    **{"0.2": 5, "0.833": 5, "2.75": 5, "3.75": 5, "0.35": 5, "2.533": 5, "4.188": 5},
}
_SENTENCE = (
    "A man woman child dog horse café in the is of playing guitar riding running eating a red small house street"
)
_WORDS = (_SENTENCE + " while rain falls people watch slowly outside near old bridge").split(" ")


def write_sts_b(root: Path) -> Path:
    """STS-B-DIR: `<draw>/{train,dev,test}_new.tsv` of 68, 16 and 16 pairs, for both draws."""

    def write(folder: Path) -> None:
        pool = [(score, number) for score, pairs in _SCORES.items() for number in range(pairs)]
        rows = [_row(place, score) for place, (score, _) in enumerate(pool)]
        for seed, draw in enumerate(DRAWS):
            parts: dict[str, list[list[str]]] = {"train": [], "dev": [], "test": []}
            chance, start = np.random.default_rng([8, seed]), 0
            for pairs in _SCORES.values():
                for turn, place in enumerate(chance.permutation(pairs)):
                    parts[("dev", "test", "train")[min(turn, 2)]].append(rows[start + int(place)])
                start += pairs
            (folder / draw).mkdir()
            for part, chosen in parts.items():
                shuffled = [chosen[place] for place in chance.permutation(len(chosen))]
                lines = [HEADER, *([str(index), *row] for index, row in enumerate(shuffled))]
                text = "".join("\t".join(line) + "\n" for line in lines)
                (folder / draw / f"{part}_new.tsv").write_text(text, encoding="utf-8", newline="\n")

    return beside(root, write)


def _row(place: int, score: str) -> list[str]:
    """All columns but the index."""
    chance = np.random.default_rng([9, place])
    first = [_WORDS[word] for word in chance.choice(len(_WORDS), size=int(chance.integers(4, 12)), replace=False)]
    changed = chance.random(len(first)) > float(score) / 5
    other = [_WORDS[word] for word in chance.choice(len(_WORDS), size=len(first))]
    second = [new if change else old for old, new, change in zip(first, other, changed, strict=True)]
    if place % 6 == 0:
        first = ["He", "said", f'"{first[0]}', *first[1:]]  # a quotation that is never closed, as in the original
    sentences = [" ".join(words) + "." for words in (first, second)]
    return ["main-captions", "MSRvid", "2012test", f"{place:04d}", "none", "none", *sentences, score]
