"""Time and memory of a training step in one piece and in chunks (`trainer.chunk`), side by side.

    python benchmarks/step.py                       # batches of 256, 512 and 1,024 pictures of 64 pixels, ResNet-18
    python benchmarks/step.py --batches 256 --chunk 32

Every measurement runs in a process of its own. Memory is the peak of the process beyond what it held once the batch was
made; time is that of the processor, the best of several steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from harness.train.step import Step
from rambo.losses import RecallLoss
from rambo.model import RetrievalModel
from rambo.objective import RetrievalObjective


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure(batch: int, chunk: int | None, repeats: int) -> None:
    """Runs in the child, and prints its findings as JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = RetrievalModel("resnet18", embedding_size=128, weights="none")
    loss = RetrievalObjective(RecallLoss(interpolation=4.0, margin=0.02))
    step = Step(model, loss, contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False), chunk)
    images = torch.randint(256, (batch, 3, 64, 64), dtype=torch.uint8)
    given = {"image": images, "label": torch.arange(batch) // 4, "index": torch.arange(batch)}
    before, seconds = peak_bytes(), []
    for _ in range(repeats):
        model.zero_grad()
        start = time.process_time()
        value = step(given)["loss"]
        seconds.append(time.process_time() - start)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    found = {"loss": float(value.detach()), "gradient": float(norm)}
    print(json.dumps({"seconds": min(seconds), "bytes": peak_bytes() - before, **found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(int(options.child[0]), int(options.child[1]) or None, options.repeats)
        return
    print("| batch | chunk | MiB | seconds | memory / in one piece | time / in one piece | loss | gradient's norm |")
    print("|---|---|---|---|---|---|---|---|")
    for batch in options.batches:
        whole: dict[str, float] = {}
        for chunk in (0, options.chunk):
            command = [sys.executable, __file__, "--repeats", str(options.repeats), "--child", str(batch), str(chunk)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            whole = whole or found
            ratios = f"{found['bytes'] / whole['bytes']:.2f} | {found['seconds'] / whole['seconds']:.2f}"
            numbers = f"{found['loss']:.6f} | {found['gradient']:.6f}"
            print(
                f"| {batch} | {chunk or '-'} | {found['bytes'] >> 20} | {found['seconds']:.2f} | {ratios} | {numbers} |"
            )


if __name__ == "__main__":
    main()
