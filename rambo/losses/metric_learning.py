"""The doors of pytorch-metric-learning that are opened by name or by class, opened for our losses."""

from __future__ import annotations

import sys
from typing import Any


def admit(name: str) -> None:
    """Lets that library's wrappers take a loss of this name, where it has been imported already; else does nothing.

    Its losses are all called in one way, and so are ours; but `CrossBatchMemory` and `SelfSupervisedLoss` look a loss's
    class name up in a list (`supported_losses`), and `DistributedLossWrapper` asks for a subclass of its
    `BaseMetricLossFunction`, which ours cannot be, as they need torch alone. The lists get our names, and the question
    our classes.
    """
    losses = sys.modules.get("pytorch_metric_learning.losses")
    for wrapper in (getattr(losses, kind, None) for kind in ("CrossBatchMemory", "SelfSupervisedLoss")):
        names: list[str] = getattr(wrapper, "supported_losses", list)()
        if wrapper is not None and name not in names:
            wrapper.supported_losses = staticmethod(lambda names=names: [*names, name])
    distributed: Any = sys.modules.get("pytorch_metric_learning.utils.distributed")
    known = getattr(distributed, "BaseMetricLossFunction", ())
    if isinstance(known, type):  # not yet widened
        from rambo.losses import GalleryMemory, RetrievalLoss

        distributed.BaseMetricLossFunction = (known, RetrievalLoss, GalleryMemory)
