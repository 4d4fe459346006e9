"""What a model answers to every batch of a loader: the one loop under all that embeds, predicts and detects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from harness import distributed
from harness.data.loading import Batch, EvaluationShare
from harness.device import to_device

T = TypeVar("T")


def answers(model: nn.Module, loader: Iterable[Mapping[str, Any]], keep: Callable[[Any, Batch], T]) -> list[T]:
    """What `keep(output, batch)` returns for each batch, in the loader's order.

    Without gradients and in evaluation mode, on the model's device; the model is left in the mode it was in. Of several
    processes each goes through its share, and all get everything.

    Raises:
        ValueError: If the loader gives no batch.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    kept: list[T] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in loader:
                there = to_device(dict(batch), device)
                kept.append(keep(model(there), there))
    finally:
        model.train(was_training)
    if isinstance(getattr(loader, "sampler", None), EvaluationShare) and distributed.world() > 1:
        everyone = distributed.gather_objects(to_device(kept, torch.device("cpu")))
        kept = [to_device(one, device) for part in everyone for one in part]
    if not kept:
        raise ValueError("the evaluation loader gave no batch: its data set is empty")
    return kept
