"""RaMBO's recall loss in a loop of one's own: python examples/bare_loop.py."""

from __future__ import annotations

import torch
from letters import SEEN, letters, network, recall

from rambo.losses import RecallLoss
from rambo.sampling import ClassBalancedBatches


def main(epochs: int = 10) -> tuple[float, float]:
    """Recall@1 on letters never seen, before and after training."""
    images, labels = letters(SEEN)
    sampler = ClassBalancedBatches(labels, batch_size=64, samples_per_class=4, batches_per_epoch=16)
    model, loss = network(), RecallLoss(interpolation=4.0, margin=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = recall(model)
    for epoch in range(epochs):
        model.train()
        for batch in sampler.batches(epoch):
            value = loss(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {value.item():.3f}  recall@1 {recall(model):.3f}")
    return before, recall(model)


if __name__ == "__main__":
    print("recall@1 of letters never seen: {:.3f} before, {:.3f} after".format(*main()))
