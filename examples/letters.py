"""What the examples train on: letters drawn in twelve typefaces, turned and bent; and a small network."""

from __future__ import annotations

import torch
from PIL import ImageFont
from torch import Tensor, nn

from rambo.datasets.glyphs import FACES, LATIN, draw, font_folder, warp
from rambo.metrics import retrieval_metrics

SEEN, UNSEEN = LATIN[:96], "ΓΔΘΞΣΦΨΩБДЖЗЛУЦЧ"  # trained on, and to be told apart afterwards


def letters(alphabet: str) -> tuple[Tensor, Tensor]:
    """Twelve pictures of each letter, (items, 1, 24, 24) from 0 to 1, and their classes, (items,)."""
    faces = [ImageFont.truetype(str(font_folder() / face), 48) for face in FACES]
    drawn = torch.stack([torch.from_numpy(draw(letter, face)) for letter in alphabet for face in faces])
    images = warp(drawn[:, None].float(), 24, torch.Generator().manual_seed(0))
    return images / 255, torch.arange(len(alphabet)).repeat_interleave(len(faces))


def network() -> nn.Module:
    """From pictures to embeddings, (items, 64)."""
    torch.manual_seed(0)
    stages = [[nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()] for a, b in ((1, 16), (16, 32), (32, 64))]
    head = nn.Linear(64 * 9, 64), nn.BatchNorm1d(64)
    return nn.Sequential(*(layer for stage in stages for layer in stage), nn.Flatten(), *head)


@torch.no_grad()
def recall(model: nn.Module) -> float:
    """Share of pictures of letters never seen in training whose nearest neighbour is the same letter."""
    images, labels = letters(UNSEEN)
    return retrieval_metrics(model.eval()(images), labels)["recall@1"]
