"""How fast is the rank-similarity term, forward and backward, beside the formula row by row?

    python benchmarks/rank_similarity.py [--threads 1 2] [--seconds 2] [--output table.md]

Contestants, on the same batches, in turn within one process:
    rows        the formulation that was published, written here from the formula: for each sample a row of
                similarities, two double argsorts, an autograd function and a mean squared error
    ours        the term as it is used
    products    the two matrix products that no way round can avoid: similarities of features, and their gradient
Before anything is timed, value and gradient of the first two must agree.

Labels are "ages", whole numbers drawn as often as in the training part of AgeDB, of which one sample each takes part;
or "distinct", so that all do. Batches alternate, lest the processor learn one by heart.

With one thread the clock is the processor's, which other programs disturb less; with more it is the wall's.

Also printed: memory at the peak beyond the inputs, in arrays of (samples, samples), which must not grow with the batch.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from ranksim.losses.rank_similarity import RankSimilarity

Step = Callable[[], Any]
Batch = tuple[Tensor, Tensor]

CASES = [("ages", 64), ("ages", 256), ("distinct", 64), ("distinct", 256), ("distinct", 1024)]
DIMENSIONS = 2048
INTERPOLATION, WEIGHT = 2.0, 100.0  # as published for ages
BATCHES = 8
# images of AgeDB's training part in each five years of age, from 0 to 104 (Yang et al. 2021)
AGES = [7, 17, 36, 171, 678, 1223, 1479, 1533, 1368, 1196, 1122, 923, 801, 650, 530, 263, 115, 57, 27, 9, 3]


class PublishedRank(torch.autograd.Function):
    """Normalised ranks of one row by a double argsort, and the blackbox backward pass."""

    @staticmethod
    def forward(ctx: Any, row: Tensor) -> Tensor:  # noqa: D102
        ranked = double_argsort(row)
        ctx.save_for_backward(row, ranked)
        return ranked

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # noqa: D102
        row, ranked = ctx.saved_tensors
        return -(ranked - double_argsort(row + INTERPOLATION * upstream)) / (INTERPOLATION + 1e-8)


def double_argsort(row: Tensor) -> Tensor:
    # among equals the later one gets the smaller rank
    return (row.argsort(stable=True).flip(0).argsort() + 1).float() / len(row)


def one_of_each(targets: Tensor) -> list[int]:
    distinct = targets.unique()
    if len(distinct) == len(targets):
        return list(range(len(targets)))
    return [random.choice((targets == label).nonzero().flatten().tolist()) for label in distinct]


def row_by_row(features: Tensor, targets: Tensor) -> Tensor:
    chosen = one_of_each(targets)
    features, targets = torch.nn.functional.normalize(features[chosen]), targets[chosen]
    similarities = features @ features.T
    loss = torch.zeros(())
    for row, target in enumerate(targets):
        by_label = double_argsort(-(targets - target).abs())
        by_feature = PublishedRank.apply(similarities[row])
        loss = loss + torch.nn.functional.mse_loss(by_feature, by_label)
    return WEIGHT * loss


def made(kind: str, samples: int, generator: torch.Generator) -> Batch:
    """Features as a network with ReLU pools them, non-negative and alike, and targets."""
    features = torch.rand(samples, DIMENSIONS, generator=generator) + torch.rand(DIMENSIONS, generator=generator)
    if kind == "ages":
        bands = torch.multinomial(torch.tensor(AGES).float(), samples, replacement=True, generator=generator)
        return features, (5 * bands + torch.randint(5, (samples,), generator=generator)).float()
    return features, torch.rand(samples, generator=generator) * 100


def gradient(loss: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    leaf = batch[0].clone().requires_grad_()
    random.seed(0)
    value = loss(leaf, batch[1])
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def check_agreement(kind: str, samples: int, batch: Batch) -> None:
    """Same samples, so draws by Python; a rank or two may move where similarities differ by less than rounding."""
    value, slope = gradient(RankSimilarity(INTERPOLATION, WEIGHT, subsample="python"), batch)
    expected, expected_slope = gradient(row_by_row, batch)
    assert torch.isclose(value, expected, rtol=1e-5), f"{kind} {samples}: {value} differs from {expected}"
    wrong = (slope - expected_slope).norm() / expected_slope.norm()
    assert wrong < 1e-2, f"{kind} {samples}: gradients differ by {wrong} of their length"


def in_turn(function: Callable[[Tensor, Tensor], Any], batches: list[Batch]) -> Step:
    turns: Iterator[Batch] = itertools.cycle(batches)
    return lambda: function(*next(turns))


def timed(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Times of each contestant, taken in turn so that a busy machine slows all alike."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 5:
        for name, step in steps.items():
            # a cheap contestant is repeated, so that a switch of tasks does not decide its time
            repeats = 1 if not times[name] else max(1, min(BATCHES, int(0.01 / times[name][0])))
            start = clock()
            for _ in range(repeats):
                step()
            times[name].append((clock() - start) / repeats)
    return times


def peak_arrays(samples: int) -> float:
    """Most memory held at once beyond the inputs, in float32 arrays of (samples, samples); features are few."""
    features = torch.rand(samples, 8).requires_grad_()
    term, targets = RankSimilarity(INTERPOLATION, WEIGHT), torch.rand(samples)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        term(features, targets).backward()
    held = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / (4 * samples**2)


def compare(kind: str, samples: int, seconds: float) -> str:
    """One line of the table."""
    generator = torch.Generator().manual_seed(samples)
    batches = [made(kind, samples, generator) for _ in range(BATCHES)]
    check_agreement(kind, samples, batches[0])
    term = RankSimilarity(INTERPOLATION, WEIGHT)
    used = statistics.mean(len(targets.unique()) for _, targets in batches)
    for features, _ in batches:
        features.requires_grad_()
    chosen = [
        (torch.nn.functional.normalize(features.detach())[: len(targets.unique())], targets)
        for features, targets in batches
    ]
    squares = {len(x): torch.rand(len(x), len(x)) for x, _ in chosen}
    steps = {
        "rows": in_turn(lambda x, y: torch.autograd.grad(row_by_row(x, y), x), batches),
        "ours": in_turn(lambda x, y: torch.autograd.grad(term(x, y), x), batches),
        "products": in_turn(lambda x, _: (x @ x.T, squares[len(x)] @ x), chosen),
    }
    times = timed(steps, seconds)
    median = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    least = {name: 1e3 * min(values) for name, values in times.items()}
    return (
        f"| {kind} | {samples} | {used:.0f} | {torch.get_num_threads()} | {median['rows']:.2f} | {median['ours']:.2f} "
        f"| {median['products']:.2f} | **{median['rows'] / median['ours']:.1f}** ({least['rows'] / least['ours']:.1f}) "
        f"| {median['ours'] / median['products']:.2f} ({least['ours'] / least['products']:.2f}) |"
    )


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(names, platform.processor() or platform.machine())
    return f"{cpu}, torch {torch.__version__}, Python {platform.python_version()}, {datetime.date.today()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each case")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    lines = [
        f"Forward and backward, {DIMENSIONS} dimensions, median milliseconds ({machine()}); lambda 2, gamma 100.",
        "Ratios: of medians (of minima).",
        "",
        "| labels | batch | samples compared | threads | rows | ours | products | rows / ours | ours / products |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for threads in options.threads:
        torch.set_num_threads(threads)
        for kind, samples in CASES:
            lines.append(compare(kind, samples, options.seconds))
            print(lines[-1], flush=True)
    peaks = ", ".join(f"{peak_arrays(samples):.1f} at {samples}" for samples in (256, 1024, 2048))
    lines += ["", f"Memory at the peak, in float32 arrays of (samples, samples): {peaks}."]
    print("\n".join(lines[-2:]))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
