"""What the settings of memory that every run makes do for its time: torch's own behind `deterministic` against ours.

    python benchmarks/settings.py
    python benchmarks/settings.py --pixels 96 --steps 5

Training steps of EfficientNet-Lite0 (RaMBO's recall, Adam, random pictures), each variant in processes of its own, in
turn; the processor's time of a step, in one thread, and the largest memory of the process. The weights must be equal.

default:    torch.use_deterministic_algorithms(True) and nothing else: torch fills what it takes with NaN, glibc
            gives large blocks back to the system.
unfilled:   nothing is filled.
as a run:   harness.record.reproducibility.set_up: nothing is filled, and freed memory is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from harness.record.reproducibility import set_up
from rambo.losses import RecallLoss
from rambo.model import RetrievalModel

VARIANTS = ("default", "unfilled", "as a run")


def measure(variant: str, batch: int, pixels: int, steps: int) -> None:
    """Prints seconds a step, the peak of memory and a hash of the weights as JSON."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if variant == "unfilled":
        torch.utils.deterministic.fill_uninitialized_memory = False
    if variant == "as a run":
        set_up(1, True)
    torch.manual_seed(0)
    model = RetrievalModel("tf_efficientnet_lite0", embedding_size=128, weights="none", freeze_batch_norm=True)
    model = model.to(memory_format=torch.channels_last).train()
    loss, optimizer = RecallLoss(4.0, margin=0.02), torch.optim.Adam(model.parameters(), lr=1e-4)
    images = torch.randint(0, 256, (batch, 3, pixels, pixels), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) // 4
    seconds: list[float] = []
    for _ in range(steps + 1):  # the first warms up
        start = time.process_time()
        optimizer.zero_grad()
        loss(model({"image": images}), labels).backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    weights = hashlib.sha256()
    for weight in model.parameters():
        weights.update(weight.detach().numpy().tobytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": min(seconds[1:]), "bytes": peak, "weights": weights.hexdigest()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pixels", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return measure(*json.loads(options.child))
    print("| pixels | settings | ms a step | of default | peak, MiB |")
    print("|---|---|---|---|---|")
    for pixels in options.pixels:
        found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
        for _ in range(options.rounds):
            for variant in VARIANTS:
                case = json.dumps([variant, options.batch, pixels, options.steps])
                command = [sys.executable, __file__, "--child", case]
                found[variant].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
        assert len({result["weights"] for results in found.values() for result in results}) == 1, "weights differ"
        first = min(result["seconds"] for result in found["default"])
        for variant, results in found.items():
            seconds = min(result["seconds"] for result in results)
            peak = max(result["bytes"] for result in results) / 2**20
            print(f"| {pixels} | {variant} | {1000 * seconds:.0f} | {seconds / first:.2f} | {peak:.0f} |", flush=True)
    return None


if __name__ == "__main__":
    main()
