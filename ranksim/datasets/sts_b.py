"""STS-B-DIR: pairs of sentences and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness.data.download import RemoteFile
from ranksim.bins import Bins
from ranksim.datasets.fixture import write_sts_b
from ranksim.datasets.reading import SentencePairs
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples
from ranksim.text import build_vocabulary, numbered, words_of

MANY = (0, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 49)
MEDIUM = (2, 4, 6, 8, 27, 35, 37)
SHOTS = {"many": MANY, "medium": MEDIUM, "few": tuple(k for k in range(50) if k not in MANY + MEDIUM)}
"""Bins of each shot, as both official repositories list them."""


def _files(draw: str, source: str, *facts: tuple[int, str]) -> dict[str, RemoteFile]:
    """Part -> its file, of which size and sha256 are given."""
    names = {"train": "train_new.tsv", "validation": "dev_new.tsv", "test": "test_new.tsv"}
    return {
        part: RemoteFile(f"{draw}/{name}", urls=(f"{source}/{name}",), size=size, sha256=sha256)
        for (part, name), (size, sha256) in zip(names.items(), facts, strict=True)
    }


DRAWS = {
    "ranksim": _files(
        "ranksim",
        "https://raw.githubusercontent.com/BorealisAI/ranksim-imbalanced-regression/"
        "9e1c862906e9c4c699803e0fece8b843ba6f3bc2/sts-b-dir/glue_data/STS-B",
        (920_605, "cc71336eb2061891c3f165fa9f812c780f1e86eca0f81e62b4da49ecb9dfb3d1"),
        (170_200, "e5b56cd14e68a5d02ec2a05bfe11d1a45d74582170e61e679c1288f05aa82535"),
        (169_190, "8fd7e51459a3deb30adedde0d6a777fea60d2f8a4c65ac86c76d25ca560f3bc8"),
    ),
    "dir": _files(
        "dir",
        "https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/"
        "a6fdc45d45c04e6f5c40f43925bc66e580911084/sts-b-dir/glue_data/STS-B",
        (915_210, "4da3322ae29f7ad1b7d03cdeafcb2480c276e5df1d08737678a7856697218a9a"),
        (171_688, "9ec12d785aa817ffe4b0f88fde442d3bf57161d8cbeaa84aaa1fdf764cca6dd6"),
        (173_097, "55f90b3c5a0b2947d5ff64c41536191e9e1ba3bb5ffe64aca5465ab25fa8e94c"),
    ),
}


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
        split_sentences: Whether texts are first cut into sentences, as officially; see `ranksim.text.words_of`.
        shared: As in `RegressionData`. Other bins than the 50 have no official shots.

    Attributes:
        vocabulary: list of words; position 0 is padding, 1 any word that is not in it.
        sentences: Every sentence of the three parts, as written.

    Source: Cer et al. 2017 (STS benchmark); Wang et al. 2018 (GLUE); Yang et al. 2021 and Gong et al. 2022 (the draws).
    """

    title = "STS-B-DIR"
    remedy = "run: python scripts/download.py sts_b"
    downloads = ("sts_b",)
    files = tuple(file for draw in DRAWS.values() for file in draw.values())
    write_fixture = staticmethod(write_sts_b)

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
        if shared["bins"] == score_bins():
            self.official_shots = SHOTS
        super().__init__(root, **shared)

    def read(self, root: Path) -> dict[str, Samples]:
        """The three parts, in words and in numbers."""
        rows = {part: _rows(self.published(file)) for part, file in DRAWS[self.draw].items()}
        self.sentences = [row[side] for found in rows.values() for side in (7, 8) for row in found]
        said = {text: words_of(text, self.most_words, self.split_sentences) for text in self.sentences}
        self.vocabulary = build_vocabulary((said[text] for text in self.sentences), self.vocabulary_size)
        parts = {}
        for part, found in rows.items():
            first, second = ([row[side] for row in found] for side in (7, 8))
            inputs: dict[str, Any] = {
                "first": numbered([said[text] for text in first], self.vocabulary),
                "second": numbered([said[text] for text in second], self.vocabulary),
                "first_text": first,
                "second_text": second,
            }
            scores = torch.tensor([float(row[9]) for row in found])
            parts[part] = Samples(["/".join(row[1:5]) for row in found], scores, inputs=inputs)
        return parts

    collate = staticmethod(SentencePairs.collate)

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The vocabulary, too, by which sentences are read."""
        reader = {"_target_": "ranksim.datasets.reading.SentencePairs", "vocabulary": "\n".join(self.vocabulary)}
        cut = {"most_words": self.most_words, "split_sentences": self.split_sentences}
        return {**super().for_use(settings), "reader": {**reader, **cut}}

    def describe(self) -> dict[str, Any]:
        """Name, draw, counts and fingerprint, for the run record."""
        words = {"most_words": self.most_words, "vocabulary": len(self.vocabulary)}
        return {**super().describe(), "draw": self.draw, **words, "split_sentences": self.split_sentences}


def score_bins() -> Bins:
    """The 50 bins of the official code."""
    return Bins.uniform(0, 5, 0.1)


def _rows(path: Path) -> list[list[str]]:
    """Ten columns between tabs, without any quoting, after a header line."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")[1:]]
