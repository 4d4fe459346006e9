"""What does feature distribution smoothing cost, beside the loop over buckets as it was published?

    python benchmarks/smoothing.py [--threads 1 2] [--repeats 5] [--quick] [--output table.md]

Features as AgeDB-DIR has them with a ResNet-50: 12,208 x 2,048, non-negative, ages from 3 to 99 in buckets of one year.

    loop    written here from the formula: for statistics, a mask over all samples, mean and variance for each bucket;
            for smoothing, a masked gather, the calibration and a masked scatter for each distinct age of the batch
    ours    `FeatureSmoothing`: statistics from batches as they come, or all at once; smoothing by one gather

Before anything is timed, both must find the same statistics and the same smoothed features. Contestants run in turn
within one process, and the fastest of the repeats counts. Times are of the process's CPU with one thread, so that other
work on the machine hardly matters, and of the wall clock with more. Memory is the peak beyond the features of a batch;
the loop has to keep the features of all samples until the pass is over.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ranksim.bins import Bins
from ranksim.smoothing import FeatureSmoothing

Step = Callable[[], object]

SAMPLES, FEATURES = 12_208, 2_048
BATCHES = (64, 256)
BUCKETS = (97, 100)  # AgeDB-DIR from age 3, IMDB-WIKI-DIR from age 0
MEBIBYTE = 2**20


class Loop:
    """Statistics and smoothing by masks, one bucket after the other."""

    def __init__(self, buckets: int, features: int) -> None:
        self.mean, self.variance = torch.zeros(buckets, features), torch.ones(buckets, features)
        self.source_mean, self.source_variance = self.mean, self.variance
        self.target_mean, self.target_variance = self.mean, self.variance

    def statistics(self, batches: list[Tensor], bucket: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each bucket."""
        features = torch.cat(batches) if len(batches) > 1 else batches[0]
        for one in torch.unique(bucket).tolist():
            members = features[bucket == one]
            self.mean[one] = members.mean(0)
            self.variance[one] = members.var(0, unbiased=len(members) > 1)
        return self.mean, self.variance

    def smooth(self, features: Tensor, bucket: Tensor) -> Tensor:
        """In place, as it was published."""
        for one in torch.unique(bucket).tolist():
            mask = bucket == one
            features[mask] = self.calibrated(features[mask], one)
        return features

    def calibrated(self, members: Tensor, one: int) -> Tensor:
        """The features of one bucket, moved to its target statistics."""
        source, target = self.source_variance[one], self.target_variance[one]
        if torch.sum(source) < 1e-10:
            return members
        if (source == 0).any():
            valid = source != 0
            factor = torch.clamp(target[valid] / source[valid], 0.1, 10)
            moved = members.clone()
            moved[:, valid] = (members[:, valid] - self.source_mean[one, valid]) * torch.sqrt(factor)
            moved[:, valid] += self.target_mean[one, valid]
            return moved
        factor = torch.clamp(target / source, 0.1, 10)
        return (members - self.source_mean[one]) * torch.sqrt(factor) + self.target_mean[one]


def drawn(samples: int, buckets: int) -> tuple[Tensor, Tensor, Bins]:
    """Features, ages and buckets."""
    generator = torch.Generator().manual_seed(buckets)
    bins = Bins.uniform(100 - buckets, 100, 1)
    spread = torch.randn(samples, generator=generator) * 15.5 + 45
    ages = spread.round().clamp(float(bins.edges[0]), 99)
    features = torch.randn(samples, FEATURES, generator=generator) + ages[:, None] / 50
    return features.clamp(min=0), ages, bins


def best(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Seconds of each contestant, taken in turn."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            start = clock()
            step()
            found[name] = min(found[name], clock() - start)
    return found


def peak_bytes(step: Step) -> int:
    """Most memory held at once beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def observed(batches: list[Tensor], ages: tuple[Tensor, ...], bins: Bins) -> tuple[Tensor, Tensor]:
    """The first epoch's statistics, as anybody gets them."""
    smoothing = FeatureSmoothing(FEATURES, bins)
    for features, age in zip(batches, ages, strict=True):
        smoothing.observe(features, age)
    smoothing.finish_epoch()
    return smoothing.running_mean, smoothing.running_variance


def compare_statistics(features: Tensor, ages: Tensor, bins: Bins, repeats: int) -> list[str]:
    """Lines of the table: statistics from batches of each size and from all samples at once."""
    lines, bucket, filled = [], bins(ages), torch.unique(bins(ages))
    for size in (*BATCHES, len(features)):
        # copies: a batch is fresh from the network, not a part of one large tensor
        batches, targets = [part.clone() for part in torch.split(features, size)], torch.split(ages, size)
        wanted, got = Loop(bins.count, FEATURES).statistics(batches, bucket), observed(batches, targets, bins)
        for expected, actual in zip(wanted, got, strict=True):
            torch.testing.assert_close(actual[filled], expected[filled], rtol=1e-4, atol=1e-5)
        steps: dict[str, Step] = {
            "loop": lambda b=batches: Loop(bins.count, FEATURES).statistics(b, bucket),  # type: ignore[misc]
            "ours": lambda b=batches, t=targets: observed(b, t, bins),  # type: ignore[misc]
        }
        # the loop's batches wait in memory for the end of the pass
        kept = features.numel() * features.element_size() if size < len(features) else 0
        memory = {"loop": peak_bytes(steps["loop"]) + kept, "ours": peak_bytes(steps["ours"])}
        lines.append(line("statistics", bins.count, size, best(steps, repeats), memory))
    return lines


def compare_smoothing(features: Tensor, ages: Tensor, bins: Bins, repeats: int, backward: bool) -> list[str]:
    """Lines of the table: smoothing all samples in batches of each size."""
    ours = FeatureSmoothing(FEATURES, bins)
    for shifted in (0.0, 0.1, 0.3):  # three epochs, after which source and target statistics differ
        ours.update(features + shifted, ages)
    loop = Loop(bins.count, FEATURES)
    loop.source_mean, loop.source_variance = ours.last_mean, ours.last_variance
    loop.target_mean, loop.target_variance = ours.smoothed_mean, ours.smoothed_variance
    bucket = bins(ages)
    lines = []
    for size in BATCHES:
        batches = [part.clone().requires_grad_(backward) for part in torch.split(features, size)]
        targets, buckets = torch.split(ages, size), torch.split(bucket, size)
        expected = loop.smooth(batches[0].detach().clone(), buckets[0])
        torch.testing.assert_close(ours(batches[0], targets[0]).detach(), expected, rtol=1e-4, atol=1e-5)

        def passes(
            smooth: Callable[[Tensor, Tensor], Tensor], batches: list[Tensor], targets: tuple[Tensor, ...]
        ) -> None:
            for part, target in zip(batches, targets, strict=True):
                if backward:
                    smoothed = smooth(part.clone(), target)
                    torch.autograd.grad(smoothed, part, torch.ones_like(smoothed))
                else:
                    smooth(part, target)

        steps: dict[str, Step] = {
            "loop": lambda b=batches, t=buckets: passes(loop.smooth, b, t),  # type: ignore[misc]
            "ours": lambda b=batches, t=targets: passes(ours, b, t),  # type: ignore[misc]
        }
        memory = {
            "loop": peak_bytes(lambda b=batches, t=buckets: passes(loop.smooth, b[:1], t[:1])),  # type: ignore[misc]
            "ours": peak_bytes(lambda b=batches, t=targets: passes(ours, b[:1], t[:1])),  # type: ignore[misc]
        }
        what = "smoothing, forward and backward" if backward else "smoothing, forward"
        lines.append(line(what, bins.count, size, best(steps, repeats), memory))
    return lines


def line(what: str, buckets: int, size: int, seconds: dict[str, float], memory: dict[str, int]) -> str:
    found = (
        f"| {what} | {buckets} | {size:,} | {torch.get_num_threads()} | {1e3 * seconds['loop']:.0f} "
        f"| {1e3 * seconds['ours']:.0f} | **{seconds['loop'] / seconds['ours']:.1f}** "
        f"| {memory['loop'] / MEBIBYTE:.1f} | {memory['ours'] / MEBIBYTE:.1f} |"
    )
    print(found, flush=True)
    return found


def machine() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(named, platform.processor() or platform.machine())
    return f"{cpu}, torch {torch.__version__}, Python {platform.python_version()}, {datetime.date.today()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples and one number of buckets")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    samples = SAMPLES // 10 if options.quick else SAMPLES
    lines = [
        f"One epoch of {samples:,} x {FEATURES:,}, milliseconds, fastest of {options.repeats} ({machine()}).",
        "",
        "| what | buckets | batch | threads | loop | ours | loop / ours | loop, MiB | ours, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for threads in options.threads:
        torch.set_num_threads(threads)
        for buckets in BUCKETS[:1] if options.quick else BUCKETS:
            features, ages, bins = drawn(samples, buckets)
            lines += compare_statistics(features, ages, bins, options.repeats)
            for backward in (False, True):
                lines += compare_smoothing(features, ages, bins, options.repeats, backward)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
