"""RaMBO's average-precision loss in a loop of Accelerate: accelerate launch --cpu examples/accelerate_loop.py.

Of several processes each ranks its own share of a batch; for the ranking of the whole batch use `torchrun train.py`.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from letters import SEEN, letters, network, recall
from torch.utils.data import DataLoader, TensorDataset

from rambo.losses import AveragePrecisionLoss
from rambo.sampling import ClassBalancedBatches


def main(epochs: int = 10) -> tuple[float, float]:
    """Recall@1 on letters never seen, before and after training."""
    accelerator = Accelerator(cpu=True)
    images, labels = letters(SEEN)
    sampler = ClassBalancedBatches(labels, batch_size=64, samples_per_class=4, batches_per_epoch=16)
    batches = [batch for epoch in range(epochs) for batch in sampler.batches(epoch)]
    model, loss = network(), AveragePrecisionLoss(interpolation=4.0, margin=0.02)
    before = recall(model)
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=2e-3),
        DataLoader(TensorDataset(images, labels), batch_sampler=batches),
    )
    model.train()
    for pictures, classes in loader:
        optimizer.zero_grad()
        accelerator.backward(loss(model(pictures), classes))
        optimizer.step()
    return before, recall(accelerator.unwrap_model(model))


if __name__ == "__main__":
    print("recall@1 of letters never seen: {:.3f} before, {:.3f} after".format(*main()))
