"""How fast are the losses on rankings beside each other, forward and backward from scores?

    python benchmarks/peers.py [--seconds 3]

All take the same scores, in turn within one process, with one thread; times are the fastest of each, as a busy machine
only ever adds to them. Ratios are to RaMBO's recall. The peak is memory beyond the inputs in (rows, items) arrays of
float32. Every loss has its published constants, and no query in its own row.
"""

from __future__ import annotations

import argparse

import torch
from ranking import Step, machine, peak_arrays, relevance_of, timed

from rambo.losses import (
    AveragePrecisionLoss,
    PNPLoss,
    RecallLoss,
    RetrievalLoss,
    RoadmapLoss,
    SmoothAPLoss,
    SmoothRecallLoss,
    SupAPLoss,
    SupRecallLoss,
)

LOSSES: dict[str, RetrievalLoss] = {
    "ours": RecallLoss(4.0, 0.02),  # the first, to which the others are compared
    "RaMBO, AP": AveragePrecisionLoss(4.0, 0.02),
    "Smooth-AP": SmoothAPLoss(),
    "RS@k": SmoothRecallLoss(),
    "SupAP": SupAPLoss(),
    "ROADMAP": RoadmapLoss(),
    "SupRecall": SupRecallLoss(),
    "PNP": PNPLoss("D_q", alpha=4.0),
}
SHAPES = [(128, 127, 3), (512, 511, 3), (2048, 2047, 3), (128, 16384, 3), (128, 16384, 20)]  # rows, items, relevant


def step(loss: RetrievalLoss, scores: torch.Tensor, mask: torch.Tensor) -> Step:
    return lambda: torch.autograd.grad(loss.from_scores(scores, mask), scores)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each shape")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}, one thread\n\n| rows x items | relevant | loss | ms | of RaMBO's recall | peak |")
    print("|---|---|---|---|---|---|", flush=True)
    for rows, items, relevant in SHAPES:
        generator = torch.Generator().manual_seed(0)
        mask = relevance_of(rows, items, relevant, generator) > 0
        scores = (torch.rand(rows, items, generator=generator) * 2 - 1).requires_grad_()
        steps = {name: step(loss, scores, mask) for name, loss in LOSSES.items()}
        fastest = {name: 1e3 * min(times) for name, times in timed(steps, options.seconds).items()}
        for name, milliseconds in fastest.items():
            ratio, peak = milliseconds / fastest["ours"], peak_arrays(steps[name], rows * items)
            shown = "RaMBO, recall" if name == "ours" else name
            print(
                f"| {rows} x {items} | {relevant} | {shown} | {milliseconds:.2f} | {ratio:.1f} | {peak:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
