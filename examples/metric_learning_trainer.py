"""RaMBO's recall loss in a trainer of pytorch-metric-learning: python examples/metric_learning_trainer.py."""

from __future__ import annotations

import torch
from letters import SEEN, letters, network, recall
from pytorch_metric_learning import losses, samplers, trainers
from torch import nn
from torch.utils.data import TensorDataset

from rambo.losses import RecallLoss


def main(epochs: int = 10) -> tuple[float, float]:
    """Recall@1 on letters never seen, before and after training."""
    images, labels = letters(SEEN)
    model = network()
    before = recall(model)
    trainer = trainers.MetricLossOnly(
        models={"trunk": model, "embedder": nn.Identity()},
        optimizers={"trunk_optimizer": torch.optim.AdamW(model.parameters(), lr=2e-3)},
        batch_size=64,
        # a queue of 256 embeddings round our loss, as round any of theirs
        loss_funcs={"metric_loss": losses.CrossBatchMemory(RecallLoss(4.0, margin=0.02), 64, memory_size=256)},
        dataset=TensorDataset(images, labels),
        sampler=samplers.MPerClassSampler(labels, m=4, batch_size=64, length_before_new_iter=1024),
        dataloader_num_workers=0,
    )
    trainer.train(num_epochs=epochs)
    return before, recall(model)


if __name__ == "__main__":
    print("recall@1 of letters never seen: {:.3f} before, {:.3f} after".format(*main()))
