"""The losses of (embeddings, labels) that are asked the same questions, with options of the caller, and a batch."""

import pytest
import torch
from torch import Tensor

from rambo.losses import AveragePrecisionLoss, PNPLoss, RecallLoss, SmoothAPLoss, SmoothRecallLoss, SupAPLoss

LOSSES = {
    "recall": lambda **options: RecallLoss(1.0, 0.05, **options),
    "recall, official": lambda **options: RecallLoss(1.0, 0.05, "log", "official", **options),
    "average precision": lambda **options: AveragePrecisionLoss(1.0, 0.05, **options),
    "smooth AP": lambda **options: SmoothAPLoss(0.1, **options),
    "SupAP": lambda **options: SupAPLoss(0.1, **{"exclude_self": True} | options),
    "PNP": lambda **options: PNPLoss("D_s", 0.1, **{"exclude_self": True} | options),
    "RS@k": lambda **options: SmoothRecallLoss((1, 3), 0.1, **{"exclude_self": True} | options),
}
EVERY_LOSS = pytest.mark.parametrize("build", LOSSES.values(), ids=LOSSES)


def embedded(
    items: int = 12, classes: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(items, 5, generator=generator, dtype=dtype)
    return embeddings.requires_grad_(), torch.arange(items) % classes
