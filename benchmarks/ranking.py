"""How fast are the ranking losses, forward and backward, beside the formula as it was published?

    python benchmarks/ranking.py [--threads 1 2] [--quick] [--output table.md]

Contestants, all on the same scores, in turn within one process:
    published   the official formulation, written here from the formula: each rank a double argsort, six sorts a step
    sorted      the same loss with every row sorted before and after the step
    ours        the loss as it is used, which compares few relevant items with all and sorts for many
    torchsort   another differentiable rank, if installed: not the same gradient, so only its time is of interest
Before anything is timed, gradients must agree: ours and sorted to the last bit, the published one to half a rank.

Also printed: memory at the peak beyond the inputs, in arrays of (rows, items), which must not grow with the rows.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from rambo.losses import AveragePrecisionLoss, RecallLoss, RetrievalLoss

Step = Callable[[], Tensor]

# rows, items, relevant items of a row (a pair: anything between)
RECALL_SHAPES = [
    (128, 127, 3),
    (128, 127, 7),
    (128, 127, 63),
    (512, 511, 3),
    (512, 511, (1, 15)),
    (512, 511, 127),
    (2048, 2047, 3),
    (2048, 2047, 31),
    (128, 16384, 3),
    (128, 16384, 20),
    (128, 16384, 200),
    (128, 16384, 4000),
    (16, 200, 100),
]
PRECISION_SHAPES = [(20, 4096, 150), (20, 32768, 1000), (1, 81920, 1500), (1, 320000, 2000), (1, 320000, 160000)]
QUICK = 3  # shapes of each kind in a quick run
INTERPOLATION, MARGIN = 4.0, 0.02
DISAGREEMENT = 1e-2  # share of a gradient that may differ from the published one


class PublishedRank(torch.autograd.Function):
    """Normalised ranks by a double argsort, and the blackbox backward pass (spelt as algorithm 1)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, interpolation: float) -> Tensor:  # noqa: D102
        ranked = double_argsort(scores)
        ctx.save_for_backward(scores, ranked)
        ctx.interpolation = interpolation
        return ranked

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        scores, ranked = ctx.saved_tensors
        moved = double_argsort(scores + ctx.interpolation * upstream)
        return -(ranked - moved) / (ctx.interpolation + 1e-8), None


def double_argsort(scores: Tensor) -> Tensor:
    return (scores.argsort(dim=1).flip(1).argsort(dim=1) + 1).float() / scores.shape[1]


def published_recall(scores: Tensor, relevance: Tensor) -> Tensor:
    shifted = scores - MARGIN * (relevance - 0.5)
    ranked = PublishedRank.apply(shifted, INTERPOLATION)
    among = double_argsort(-ranked.detach() + 2 * relevance)
    before = (ranked - among) * relevance * scores.shape[1]
    return torch.log(1 + torch.log(1 + before)).sum() / relevance.sum()


def published_precision(scores: Tensor, relevance: Tensor) -> Tensor:
    shifted = scores - MARGIN * (relevance - 0.5)
    ranked = PublishedRank.apply(shifted, INTERPOLATION)
    among = double_argsort(-ranked.detach() + 2 * relevance)
    return 1 - (((among / ranked) * relevance).sum(1) / relevance.sum(1)).mean()


def torchsort_recall(scores: Tensor, relevance: Tensor) -> Tensor:
    import torchsort

    shifted = scores - MARGIN * (relevance - 0.5)
    ranked = torchsort.soft_rank(-shifted, regularization_strength=0.1)
    among = double_argsort(-ranked.detach() / scores.shape[1] + 2 * relevance) * scores.shape[1]
    before = ((ranked - among) * relevance).clamp(min=0)
    return torch.log(1 + torch.log(1 + before)).sum() / relevance.sum()


def relevance_of(rows: int, items: int, relevant: int | tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random 0/1 relevance as float32, the type that the published code needs, where the generator is."""
    low, high = relevant if isinstance(relevant, tuple) else (relevant, relevant)
    device = generator.device
    counts = torch.randint(low, high + 1, (rows, 1), generator=generator, device=device)
    order = torch.rand(rows, items, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    return (order < counts).float()


def ours(kind: str) -> RetrievalLoss:
    """The loss as it is used, with the numbers of the published formulation."""
    if kind == "AP":
        return AveragePrecisionLoss(INTERPOLATION, MARGIN)
    return RecallLoss(INTERPOLATION, MARGIN, "loglog", reduction="micro")


def disagreement(
    published: Callable[[Tensor, Tensor], Tensor], loss: RetrievalLoss, scores: Tensor, relevance: Tensor
) -> float:
    """The share of gradient entries in which the published formulation differs by more than half a rank.

    float32 ranks round off less than that; the published sort breaks ties as it likes, and long rows hold some.
    """
    difference = gradient(published, scores, relevance) - gradient(loss.from_scores, scores, relevance > 0)
    return float((difference.abs() * scores.shape[1] * INTERPOLATION > 0.5).float().mean())


def gradient(loss: Callable[[Tensor, Tensor], Tensor], scores: Tensor, relevance: Tensor) -> Tensor:
    leaf = scores.clone().requires_grad_()
    loss(leaf, relevance).backward()
    assert leaf.grad is not None
    return leaf.grad


def timed(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Times of each contestant, taken in turn so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 5:
        for name, step in steps.items():
            # a cheap contestant is repeated, so that a switch of tasks does not decide its time
            repeats = 1 if not times[name] else max(1, min(20, int(0.005 / times[name][0])))
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            times[name].append((time.perf_counter() - start) / repeats)
    return times


def peak_arrays(step: Step, entries: int) -> float:
    """Most memory held at once beyond what was there before, in float32 arrays of so many entries."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / (4 * entries)


def always_sorted(loss: RetrievalLoss, scores: Tensor, relevance: Tensor) -> Tensor:
    """The loss with every row sorted, however few items are relevant."""
    with mock.patch("rambo.ranking.relevant.COUNTED_AT_MOST", 0):
        return loss.from_scores(scores, relevance)


def compare(kind: str, shape: tuple[int, int, Any], seconds: float) -> str:
    """One line of the table."""
    rows, items, relevant = shape
    generator = torch.Generator().manual_seed(rows * items)
    relevance = relevance_of(rows, items, relevant, generator)
    scores = torch.rand(rows, items, generator=generator) * 2 - 1
    mask = relevance > 0

    loss = ours(kind)
    published = published_precision if kind == "AP" else published_recall
    expected = gradient(partial(always_sorted, loss), scores, mask)
    assert torch.equal(gradient(loss.from_scores, scores, mask), expected), "counting and sorting disagree"
    wrong = disagreement(published, loss, scores, relevance)
    assert wrong < DISAGREEMENT, f"{wrong:.2%} of the gradient differs from the published formula"

    leaf = scores.requires_grad_()
    steps: dict[str, Step] = {
        "published": lambda: torch.autograd.grad(published(leaf, relevance), leaf)[0],
        "sorted": lambda: torch.autograd.grad(always_sorted(loss, leaf, mask), leaf)[0],
        "ours": lambda: torch.autograd.grad(loss.from_scores(leaf, mask), leaf)[0],
    }
    if kind == "recall" and torchsort_is_there():
        steps["torchsort"] = lambda: torch.autograd.grad(torchsort_recall(leaf, relevance), leaf)[0]
    times = timed(steps, seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    minima = {name: min(values) for name, values in times.items()}
    most = f"{relevant[0]}-{relevant[1]}" if isinstance(relevant, tuple) else str(relevant)
    other = f"{1e3 * medians['torchsort']:.2f}" if "torchsort" in medians else "-"
    return (
        f"| {kind} | {rows} x {items} | {most} | {torch.get_num_threads()} | {1e3 * medians['published']:.2f} "
        f"| {1e3 * medians['sorted']:.2f} | {1e3 * medians['ours']:.2f} | {other} "
        f"| **{medians['published'] / medians['ours']:.1f}** ({minima['published'] / minima['ours']:.1f}) "
        f"| {medians['sorted'] / medians['ours']:.1f} | {peak_arrays(steps['ours'], rows * items):.1f} |"
    )


def torchsort_is_there() -> bool:
    try:
        import torchsort  # noqa: F401
    except ImportError:
        return False
    return True


def machine() -> str:
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return f"{cpu}, torch {torch.__version__}, Python {platform.python_version()}, {datetime.date.today()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each shape")
    parser.add_argument("--quick", action="store_true", help="only the first shapes of each kind")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    lines = [
        f"Forward and backward from scores, median milliseconds ({machine()}); lambda 4, margin 0.02.",
        "Ratio: published / ours, median (minimum). Peak: memory beyond the inputs in (rows, items) arrays of float32.",
        "",
        "| loss | rows x items | relevant | threads | published | sorted | ours | torchsort | published / ours "
        "| sorted / ours | peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    shapes = [("recall", shape) for shape in (RECALL_SHAPES[:QUICK] if options.quick else RECALL_SHAPES)]
    shapes += [("AP", shape) for shape in (PRECISION_SHAPES[:QUICK] if options.quick else PRECISION_SHAPES)]
    for threads in options.threads:
        torch.set_num_threads(threads)
        for kind, shape in shapes:
            lines.append(compare(kind, shape, options.seconds))
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
