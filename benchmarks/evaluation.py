"""Time and memory of the retrieval metrics, side by side with pytorch-metric-learning's AccuracyCalculator.

    python benchmarks/evaluation.py                 # 10,000, 30,000 and 60,502 random embeddings of 512 dimensions
    python benchmarks/evaluation.py --items 10000   # one size

Every measurement runs in a process of its own, and the best of several counts, as other programs only ever add to it.
Memory is the peak of the process beyond what it held once the embeddings were made and a small run had warmed it up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from rambo.metrics import retrieval_metrics

DIMENSIONS = 512
OURS, BEST, DEFAULT = "ours", "peer, k = largest class", "peer, default (k = all)"
SOP_ITEMS, SOP_CLASSES = 60502, 11316  # test half of Stanford Online Products
NAMES = {"recall@1": "precision_at_1", "r_precision": "r_precision", "map_at_r": "mean_average_precision_at_r"}


def make(items: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random points on the sphere, a little nearer to their class; made in place, to leave no peak of memory."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(items) % classes
    centres = torch.randn(classes, DIMENSIONS, generator=generator)
    embeddings = torch.randn(items, DIMENSIONS, generator=generator)
    for start in range(0, items, 1000):
        part = embeddings[start : start + 1000]
        part += 0.3 * centres[labels[start : start + 1000]]
        part /= part.norm(dim=1, keepdim=True)
    return embeddings, labels


def evaluator(method: str, recall_at: list[int]) -> Callable[[torch.Tensor, torch.Tensor], dict[str, float]]:
    if method == OURS:
        return lambda embeddings, labels: retrieval_metrics(embeddings, labels, recall_at=recall_at)
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    k = "max_bin_count" if method == BEST else None
    calculator = AccuracyCalculator(include=tuple(NAMES.values()), k=k, device=torch.device("cpu"))

    def evaluate(embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        theirs = calculator.get_accuracy(embeddings, labels)
        return {ours: theirs[name] for ours, name in NAMES.items()}

    return evaluate


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure(method: str, items: int, classes: int, recall_at: list[int], threads: int, repeats: int) -> None:
    """Runs in the child, and prints its findings as JSON."""
    torch.set_num_threads(threads)
    embeddings, labels = make(items, classes)
    evaluate = evaluator(method, recall_at)
    evaluate(embeddings[:1000], labels[:1000] % 100)
    before, seconds = peak_bytes(), []
    for _ in range(repeats):
        start = time.perf_counter()
        numbers = evaluate(embeddings, labels)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(seconds), "bytes": peak_bytes() - before, "numbers": numbers}))


def in_child(method: str, items: int, classes: int, recall_at: list[int], threads: int, repeats: int) -> dict:
    arguments = json.dumps([method, items, classes, recall_at, threads, repeats])
    done = subprocess.run([sys.executable, __file__, "--child", arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{method} at {items} items failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def agree(first: dict[str, float], second: dict[str, float]) -> bool:
    """Within what float32 leaves open: two nearly equal distances may change places."""
    return all(abs(first[name] - second[name]) < 1e-5 for name in NAMES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10000, 30000, SOP_ITEMS])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3, help="processes of each method, in turn; the best counts")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return measure(*json.loads(options.child))
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}, {datetime.date.today()}\n")
    print("| items | classes | method | seconds | of ours | memory, GiB | of ours |\n|---|---|---|---|---|---|---|")
    for items in options.items:
        classes, recall_at = (SOP_CLASSES, [1, 10, 100, 1000]) if items == SOP_ITEMS else (500, [1])
        methods = [OURS] + [BEST] * (items <= 30000) + [DEFAULT] * (items <= 10000)
        runs: dict[str, list[dict]] = {method: [] for method in methods}
        for turn in range(options.rounds):
            for method in methods:
                if method != DEFAULT or turn == 0:  # slow, and far from close
                    repeats = 1 if method == DEFAULT or items > 10000 else 3
                    runs[method].append(in_child(method, items, classes, recall_at, options.threads, repeats))
        seconds = {method: min(run["seconds"] for run in runs[method]) for method in methods}
        memory = {method: min(run["bytes"] for run in runs[method]) for method in methods}
        for method in methods:
            if not agree(runs[method][0]["numbers"], runs[OURS][0]["numbers"]):
                raise SystemExit(
                    f"{method} and ours disagree: {runs[method][0]['numbers']}, {runs[OURS][0]['numbers']}"
                )
            time_ratio, memory_ratio = seconds[method] / seconds[OURS], memory[method] / memory[OURS]
            columns = [f"{items:,}", f"{classes:,}", method, f"{seconds[method]:.2f}", f"{time_ratio:.2f}x"]
            columns += [f"{memory[method] / 2**30:.2f}", f"{memory_ratio:.1f}x"]
            print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
