"""RankSim beside an L1 loss in a Lightning module: python examples/lightning_module.py.

A number of a long-tailed density is to be told from 16 others.
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ranksim.losses import L1, RankSimilarity
from ranksim.metrics import regression_metrics


class Regressor(lightning.LightningModule):
    """Features, and a number from them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 1)
        self.base, self.similarity = L1(), RankSimilarity(interpolation=2.0, weight=1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs)).squeeze(1)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        inputs, targets = batch
        features = self.features(inputs)
        prediction = self.head(features).squeeze(1)
        return self.base(prediction, targets) + self.similarity(features, targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def numbers(items: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (items, 16) and whole targets (items,), few of them large."""
    draws, mixing = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
    targets = torch.empty(items).exponential_(0.2, generator=draws).round().clamp(max=30)
    waves = torch.outer(targets, torch.rand(16, generator=mixing)).sin()
    return waves + 0.1 * torch.randn(items, 16, generator=draws), targets


def main(epochs: int = 30) -> tuple[float, float]:
    """Mean absolute error on other numbers, before and after training."""
    lightning.seed_everything(0)
    model, (inputs, targets) = Regressor(), numbers(400, seed=2)
    with torch.no_grad():
        before = regression_metrics(model(inputs), targets)["mae"]
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(model, DataLoader(TensorDataset(*numbers(1000, seed=1)), batch_size=64, shuffle=True, drop_last=True))
    with torch.no_grad():
        return before, regression_metrics(model.eval()(inputs), targets)["mae"]


if __name__ == "__main__":
    print("mean absolute error: {:.2f} before, {:.2f} after".format(*main()))
