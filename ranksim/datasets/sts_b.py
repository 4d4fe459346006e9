"""STS-B-DIR: pairs of sentences and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from harness.data.download import RemoteFile
from harness.data.loading import Batch
from ranksim.bins import Bins
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples
from ranksim.datasets.sts_b_fixture import HEADER, write_sts_b
from ranksim.text import build_vocabulary, numbered, padded, words_of

PARTS = {"train": "train", "validation": "dev", "test": "test"}
"""What the parts are called here -> in file names."""
MANY = (0, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 49)
MEDIUM = (2, 4, 6, 8, 27, 35, 37)
SHOTS = {"many": MANY, "medium": MEDIUM, "few": tuple(k for k in range(50) if k not in MANY + MEDIUM)}
"""Bins of each shot, as both official repositories list them."""


@dataclass(frozen=True)
class Draw:
    """One published division of the pool into three parts.

    Attributes:
        title: Whose it is.
        source: Folder of its files on the web.
        sizes: Part -> bytes of its file.
        digests: Part -> sha256 of its file.
        shots: Part -> pairs in many-, medium- and few-shot bins.
        counts: Training pairs in each of the 50 bins.
    """

    title: str
    source: str
    sizes: Mapping[str, int]
    digests: Mapping[str, str]
    shots: Mapping[str, tuple[int, int, int]]
    counts: tuple[int, ...]


DRAWS = {
    "ranksim": Draw(
        title="RankSim",
        source="https://raw.githubusercontent.com/BorealisAI/ranksim-imbalanced-regression/"
        "9e1c862906e9c4c699803e0fece8b843ba6f3bc2/sts-b-dir/glue_data/STS-B",
        sizes={"train": 920_605, "validation": 170_200, "test": 169_190},
        digests={
            "train": "cc71336eb2061891c3f165fa9f812c780f1e86eca0f81e62b4da49ecb9dfb3d1",
            "validation": "e5b56cd14e68a5d02ec2a05bfe11d1a45d74582170e61e679c1288f05aa82535",
            "test": "8fd7e51459a3deb30adedde0d6a777fea60d2f8a4c65ac86c76d25ca560f3bc8",
        },
        shots={"train": (4485, 533, 231), "validation": (764, 177, 59), "test": (775, 175, 50)},
        counts=(
            *(428, 2, 98, 2, 98, 15, 80, 12, 97, 3, 195, 3, 145, 5, 119, 22, 111, 26, 109, 1, 190, 4, 188, 9, 108),
            *(35, 143, 35, 141, 2, 347, 6, 346, 21, 236, 58, 206, 67, 260, 6, 350, 5, 233, 6, 120, 21, 114, 25, 132),
            264,
        ),
    ),
    "dir": Draw(
        title="DIR",
        source="https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/"
        "a6fdc45d45c04e6f5c40f43925bc66e580911084/sts-b-dir/glue_data/STS-B",
        sizes={"train": 915_210, "validation": 171_688, "test": 173_097},
        digests={
            "train": "4da3322ae29f7ad1b7d03cdeafcb2480c276e5df1d08737678a7856697218a9a",
            "validation": "9ec12d785aa817ffe4b0f88fde442d3bf57161d8cbeaa84aaa1fdf764cca6dd6",
            "test": "55f90b3c5a0b2947d5ff64c41536191e9e1ba3bb5ffe64aca5465ab25fa8e94c",
        },
        shots={"train": (4510, 538, 201), "validation": (758, 177, 65), "test": (756, 170, 74)},
        counts=(
            *(428, 4, 96, 2, 98, 9, 86, 14, 97, 1, 203, 1, 139, 7, 117, 22, 111, 17, 118, 1, 186, 3, 192, 7, 111, 27),
            *(150, 35, 143, 1, 357, 6, 332, 22, 239, 55, 209, 71, 257, 5, 352, 3, 229, 4, 126, 20, 115, 25, 133, 263),
        ),
    ),
}


def _files(draw: str) -> tuple[RemoteFile, ...]:
    """Where a draw lies below the root, and where it comes from."""
    of = DRAWS[draw]
    return tuple(
        RemoteFile(
            f"{draw}/{name}_new.tsv",
            urls=(f"{of.source}/{name}_new.tsv",),
            size=of.sizes[part],
            sha256=of.digests[part],
        )
        for part, name in PARTS.items()
    )


class STSB(RegressionData):
    """STS-B-DIR: 7,249 pairs of sentences with a score from 0 (unrelated) to 5 (the same meaning).

    5,249 pairs for training, 1,000 each for validation and test, which are balanced over bins of 0.25. There are two
    draws under this name, of one pool by one recipe without a seed, and published numbers mix them; 168 of the 1,000
    test pairs are in both. A run uses one, by name, and its record says which.

    Scores are counted in 50 bins of 0.1, in float32. Shots are the official lists of bins; they are not the rule of
    100 and 20 training samples (bin 15, with 22 in both draws, counts as few).

    A batch holds the words as positions in `vocabulary`, "first" and "second", int64 (n, words), filled up with 0 to
    the longest of the batch, and the sentences as they are written, "first_text" and "second_text", lists of n.

    The repository of RankSim is under CC BY-NC-SA 4.0, that of DIR under the MIT licence; neither names the licence of
    the sentences, which several SemEval corpora gave to GLUE.

    Args:
        root: Folder of the data; a draw lies in a folder of its name, `root/ranksim/train_new.tsv` and so on.
        draw: `"ranksim"` or `"dir"`.
        most_words: Words of a sentence that are kept.
        vocabulary_size: Words in the vocabulary, which is built from all three parts, as in the official code: it
            decides only which words can have a vector.
        split_sentences: See `ranksim.text.words_of`.
        shared: As in `RegressionData`. Other bins than the 50 have no official shots.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not the published one, or an argument makes no sense.
        ModuleNotFoundError: If NLTK is not installed.

    Attributes:
        vocabulary: list of words; position 0 is padding, 1 any word that is not in it.
        sentences: Every sentence of the three parts, as written.

    Source: Cer et al. 2017 (STS benchmark); Wang et al. 2018 (GLUE); Yang et al. 2021 and Gong et al. 2022 (the draws).
    """

    title = "STS-B-DIR"
    remedy = "run: python scripts/download.py sts_b"
    downloads = ("sts_b",)
    files = tuple(file for draw in DRAWS for file in _files(draw))
    lowest_target = 0.0

    def __init__(
        self,
        root: str | Path,
        draw: str = "ranksim",
        most_words: int = 40,
        vocabulary_size: int = 30_000,
        split_sentences: bool = False,
        **shared: Any,
    ) -> None:
        if draw not in DRAWS:
            raise ValueError(f"draw must be one of {', '.join(DRAWS)}, got {draw!r}")
        if most_words < 1:
            raise ValueError(f"most_words must be at least 1, got {most_words}")
        self.draw, self.most_words, self.vocabulary_size = draw, most_words, vocabulary_size
        self.split_sentences = split_sentences
        self.vocabulary: list[str] = []
        self.sentences: list[str] = []
        if shared["bins"] == score_bins():
            self.official_shots = SHOTS
        super().__init__(root, **shared)

    def read(self, root: Path) -> dict[str, Samples]:
        """The three parts, in words and in numbers."""
        rows: dict[str, list[list[str]]] = {}
        for file, part in zip(_files(self.draw), PARTS, strict=True):
            path = root / file.name
            if not path.is_file():
                raise FileNotFoundError(f"no {self.title} in {root} ({file.name} is missing); {self.remedy}")
            fault = None if self.fixture else file.fault(path)
            if fault is not None:
                raise ValueError(f"{path} {fault}: it is damaged, or another draw; remove it and {self.remedy}")
            rows[part] = read_pairs(path)
        if not self.fixture:
            for part, found in rows.items():
                check_published(DRAWS[self.draw], part, [float(row[9]) for row in found])
        said = {part: self._words(found) for part, found in rows.items()}
        self.vocabulary = build_vocabulary(
            (words for sides in said.values() for side in sides for words in side), self.vocabulary_size
        )
        self.sentences = [row[column] for found in rows.values() for column in (7, 8) for row in found]
        return {part: self._samples(found, said[part]) for part, found in rows.items()}

    def _words(self, rows: list[list[str]]) -> list[list[list[str]]]:
        return [[words_of(row[column], self.most_words, self.split_sentences) for row in rows] for column in (7, 8)]

    def _samples(self, rows: list[list[str]], said: list[list[list[str]]]) -> Samples:
        first, second = (numbered(side, self.vocabulary) for side in said)
        return Samples(
            names=["/".join(row[1:5]) for row in rows],
            targets=torch.tensor([float(row[9]) for row in rows]),
            inputs={
                "first": first,
                "second": second,
                "first_text": [row[7] for row in rows],
                "second_text": [row[8] for row in rows],
            },
        )

    @staticmethod
    def collate(samples: list[Batch]) -> Batch:
        """Samples to batch: words filled up to the longest sentence of the batch, on either side."""
        ragged = ("first", "second")
        batch: Batch = default_collate([{k: v for k, v in sample.items() if k not in ragged} for sample in samples])
        return batch | {side: padded([sample[side] for sample in samples]) for side in ragged}

    def write_fixture(self, root: Path) -> Path:
        """Both draws of a pool of 100 pairs."""
        return write_sts_b(root)

    def describe(self) -> dict[str, Any]:
        """Name, draw, counts and fingerprint, for the run record."""
        return super().describe() | {
            "draw": self.draw,
            "most_words": self.most_words,
            "vocabulary": len(self.vocabulary),
            "split_sentences": self.split_sentences,
        }


def score_bins() -> Bins:
    """The 50 bins of the official code."""
    return Bins.uniform(0, 5, 0.1)


def read_pairs(path: Path) -> list[list[str]]:
    """The rows of one file, ten columns each: tab separated, without any quoting, after one header line.

    Raises:
        ValueError: If it is no such file, a sentence is empty, or a score is no number from 0 to 5; names the line.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): it is damaged") from error
    if header.split("\t") != HEADER:
        raise ValueError(f"{path} should begin with the columns {', '.join(HEADER)}, got {header[:80]!r}")
    rows = []
    for number, line in enumerate(lines, start=2):
        row = line.split("\t")
        if len(row) != len(HEADER):
            raise ValueError(f"{path}, line {number}: expected {len(HEADER)} columns between tabs, got {len(row)}")
        if not (row[7].strip() and row[8].strip()):
            raise ValueError(f"{path}, line {number}: a sentence is empty; leave this row out")
        try:
            within = 0 <= float(row[9]) <= 5
        except ValueError:
            within = False
        if not within:
            raise ValueError(f"{path}, line {number}: the score should be a number from 0 to 5, got {row[9]!r}")
        rows.append(row)
    return rows


def check_published(draw: Draw, part: str, scores: Sequence[float]) -> None:
    """Compares a part with what is published of it: pairs, pairs by shot, training pairs by bin.

    Raises:
        ValueError: If they differ.
    """
    where = torch.bincount(score_bins()(torch.tensor(scores)), minlength=50)
    found = tuple(int(where[list(SHOTS[shot])].sum()) for shot in ("many", "medium", "few"))
    if found != draw.shots[part]:
        raise ValueError(
            f"STS-B-DIR, draw of {draw.title}: the {part} part has {sum(found):,} pairs, {found} in many-, medium- and"
            f" few-shot bins, and the published one {sum(draw.shots[part]):,}, {draw.shots[part]}; {STSB.remedy}"
        )
    if part == "train" and tuple(where.tolist()) != draw.counts:
        raise ValueError(
            f"STS-B-DIR, draw of {draw.title}: the training pairs fall into the 50 bins as {where.tolist()}, and the"
            f" published ones as {list(draw.counts)}; {STSB.remedy}"
        )
