"""RaMBO's recall loss in the trainer of sentence-transformers: python examples/sentence_transformer.py.

Sentences about the same thing are to find each other. Any pretrained model stands in the place of this small one.
"""

from __future__ import annotations

import itertools
import tempfile

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from rambo.losses import RecallLoss
from rambo.metrics import retrieval_metrics

THINGS = ("cat kitten tom", "dog puppy hound", "car van lorry", "ship boat ferry", "pear apple plum", "oak elm birch")
SAYINGS = ("the {} is here", "i saw a {}", "no {} was there", "where is the {} now", "we like the {}", "a {} again")


class Ranked(nn.Module):
    """A loss of embeddings and labels, as that library calls its losses."""

    def __init__(self, model: SentenceTransformer, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, sentence_features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
        (features,) = sentence_features
        return self.loss(self.model(features)["sentence_embedding"], labels)


def main(epochs: int = 10) -> tuple[float, float]:
    """Mean average precision among the sentences, before and after training."""
    pairs = [(kind, word) for kind, words in enumerate(THINGS) for word in words.split()]
    data = [(saying.format(word), kind) for (kind, word), saying in itertools.product(pairs, SAYINGS)]
    sentences, labels = [list(column) for column in zip(*data, strict=True)]
    words = sorted({word for sentence in sentences for word in sentence.split()})
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32)], device="cpu")

    def precision() -> float:
        found = model.encode(sentences, convert_to_tensor=True)
        return retrieval_metrics(found, torch.tensor(labels), map=True)["map"]

    before = precision()
    with tempfile.TemporaryDirectory() as folder:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                folder,
                num_train_epochs=epochs,
                per_device_train_batch_size=36,
                learning_rate=0.05,
                batch_sampler="group_by_label",
                report_to=[],
                save_strategy="no",
                use_cpu=True,
            ),
            train_dataset=Dataset.from_dict({"sentence": sentences, "label": labels}),
            loss=Ranked(model, RecallLoss(interpolation=4.0, margin=0.02)),
        ).train()
    return before, precision()


if __name__ == "__main__":
    print("mean average precision: {:.3f} before, {:.3f} after".format(*main()))
