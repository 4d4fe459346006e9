"""The few questions about processes that a run asks; the only file that knows torch.distributed.

One process is the world of size one, so nothing else needs a special case.
"""

from __future__ import annotations

import torch.distributed as dist


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes the run folder."""
    return rank() == 0
