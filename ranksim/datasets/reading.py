"""Rows of numbers and pairs of sentences, read as they were for training; see `harness.data.reading`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from harness.data.loading import Batch
from harness.data.spreadsheet import is_missing, read_spreadsheet
from ranksim.text import UNKNOWN, padded, words_of


class Numbers:
    """Reads rows of numbers and standardises them.

    Args:
        features: Name -> `mean` and `deviation` over the training rows, in the order of the model's inputs, and `fill`,
            where there is something that stands for a missing number. The name is that of a column, unless `column` is
            there: then the feature is 1 where that column has the text `text`, and 0 elsewhere.
    """

    def __init__(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        self.facts = list(features.items())
        self.features = list(dict.fromkeys(facts.get("column", name) for name, facts in self.facts))
        self.mean, self.deviation = (
            torch.tensor([facts[name] for facts in features.values()], dtype=torch.float64)
            for name in ("mean", "deviation")
        )

    def listed(self, inputs: Any) -> Sequence[Any]:
        """The rows of a table at a path, of a data frame, of a tensor or array (rows, columns), or of any list."""
        if isinstance(inputs, str | Path):
            sheet = read_spreadsheet(Path(inputs))
            gaps = {name: "fill" in facts for name, facts in self.facts if "column" not in facts}
            columns = {name: sheet.needed(name) for name in self.features}
            held = [
                sheet.numbers(column, gaps[name]) if name in gaps else [row[column] for row in sheet.rows]
                for name, column in columns.items()
            ]
            return list(zip(*held, strict=True))
        if hasattr(inputs, "to_dict"):
            inputs = inputs.to_dict("records")
        return [inputs] if isinstance(inputs, Mapping) else list(inputs)

    def described(self) -> str:
        """What it does, for those who do it without this class."""
        return (
            f"The features {', '.join(name for name, _ in self.facts)}, in this order, each less its mean and then "
            "divided by its deviation, as model.json gives them in reader.features. One with a column there is 1 where "
            "that column has the text, and else 0; fill stands for a missing number."
        )

    def read(self, entry: Mapping[str, Any] | Iterable[Any]) -> Batch:
        """The sample of a row: {column: value}, or the values alone in the order of `features`.

        Raises:
            ValueError: If a column is missing, or a value is no finite number where one is needed.
        """
        if isinstance(entry, Mapping):
            if lacking := [name for name in self.features if name not in entry]:
                raise ValueError(f"a row has no {lacking[0]}; the model takes {', '.join(self.features)}")
            entry = [entry[name] for name in self.features]
        values = entry.tolist() if isinstance(entry, Tensor) else list(entry)
        row = dict(zip(self.features, values, strict=False))
        told = ((facts.get("column", name), facts) for name, facts in self.facts)
        try:
            numbers = torch.tensor([_number(row[column], facts) for column, facts in told if column in row])
        except (TypeError, ValueError) as error:
            raise ValueError(f"a row must hold numbers, got {values}") from error
        if len(values) != len(self.features) or not bool(numbers.isfinite().all()):
            raise ValueError(
                f"a row must hold {len(self.features)} finite numbers ({', '.join(self.features)}), got {values}"
            )
        return {"numbers": ((numbers.double() - self.mean) / self.deviation).float()}

    def collate(self, samples: Sequence[Batch]) -> Batch:
        """Their batch."""
        batch: Batch = default_collate(list(samples))
        return batch


def _number(value: Any, facts: Mapping[str, Any]) -> float:
    """The feature that a value of its column makes, before it is standardised."""
    if "column" in facts:
        text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
        return float(text == facts["text"])
    return float(facts["fill"]) if "fill" in facts and is_missing(value) else float(value)


class SentencePairs:
    """Cuts pairs of sentences into words and looks these up.

    Args:
        vocabulary: The words by position, one a line.
        most_words: Of a sentence that are kept.
        split_sentences: As in `ranksim.text.words_of`.
    """

    def __init__(self, vocabulary: str, most_words: int = 40, split_sentences: bool = False) -> None:
        self.places = {word: place for place, word in enumerate(vocabulary.split("\n"))}
        self.most_words, self.split_sentences = most_words, split_sentences

    def listed(self, inputs: Path | Iterable[Sequence[str]]) -> Sequence[Sequence[str]]:
        """The pairs, of a table at a path its columns `first` and `second`."""
        if isinstance(inputs, Path):
            sheet = read_spreadsheet(inputs)
            first, second = sheet.needed("first"), sheet.needed("second")
            return [(row[first], row[second]) for row in sheet.rows]
        pairs = [inputs] if isinstance(inputs, str) else list(inputs)
        for pair in pairs:
            if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise ValueError(f"the model compares two sentences: give pairs (first, second), got {pair!r}")
        return pairs

    def described(self) -> str:
        """What it does, for those who do it without this class."""
        return (
            f"Each sentence cut into its first {self.most_words} words, of which positions in the vocabulary of "
            f"{len(self.places)} words that model.json gives in reader.vocabulary are looked up."
        )

    def read(self, entry: Sequence[str]) -> Batch:
        """The sample of a pair; a ValueError if a sentence has no word."""
        words = [words_of(text, self.most_words, self.split_sentences) for text in entry]
        if not all(words):
            raise ValueError(f"a sentence has no word: {list(entry)}; leave the pair out")
        first, second = ([self.places.get(word, UNKNOWN) for word in sentence] for sentence in words)
        return {"first": first, "second": second, "first_text": entry[0], "second_text": entry[1]}

    @staticmethod
    def collate(samples: Sequence[Batch]) -> Batch:
        """Their batch: words filled up to the longest sentence of the batch, on either side."""
        ragged = ("first", "second")
        batch: Batch = default_collate([{k: v for k, v in sample.items() if k not in ragged} for sample in samples])
        return batch | {side: padded([sample[side] for sample in samples]) for side in ragged}
