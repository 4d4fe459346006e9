"""Time and memory of the retrieval metrics, side by side with pytorch-metric-learning's AccuracyCalculator.

    python benchmarks/evaluation.py                               # 10,000 to 1,000,000 random embeddings, classes of 5
    python benchmarks/evaluation.py --items 10000 --classes 500   # one size

Every measurement runs in a process of its own, in turn, and the best of several counts, as other programs only ever add
to it. Seconds are processor time, so that a busy machine does; measure with one thread. Memory is the peak of the
process beyond what it held once the embeddings were made and a small run had warmed it up. From `--whole` items on,
some of the queries are searched in the whole gallery, without the saving of leave-one-out, and the time is extrapolated
to all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
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

OURS, OUR_FAISS = "ours", "ours, engine=faiss"
BEST, DEFAULT = "peer, k = largest class", "peer, default (k = all)"
QUERIES = 1024  # of those that are searched where the time is extrapolated
NAMES = {"recall@1": "precision_at_1", "r_precision": "r_precision", "map_at_r": "mean_average_precision_at_r"}


def make(items: int, classes: int, dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random points on the sphere, a little nearer to their class; made in place, to leave no peak of memory."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(items) * classes // items
    centres = torch.randn(classes, dimensions, generator=generator)
    embeddings = torch.randn(items, dimensions, generator=generator)
    for start in range(0, items, 1000):
        part = embeddings[start : start + 1000]
        part += 0.3 * centres[labels[start : start + 1000]]
        part /= part.norm(dim=1, keepdim=True)
    return embeddings, labels


def evaluator(method: str) -> Callable[[torch.Tensor, torch.Tensor, int], dict[str, float]]:
    """Measures the first so many as queries among all, each left out of its own list."""
    if method in (OURS, OUR_FAISS):
        engine = "faiss" if method == OUR_FAISS else "exact"

        def ours(embeddings: torch.Tensor, labels: torch.Tensor, queries: int) -> dict[str, float]:
            if queries == len(labels):
                return retrieval_metrics(embeddings, labels, recall_at=[1], engine=engine)
            some = (embeddings[:queries], labels[:queries], embeddings, labels)
            own = torch.arange(queries)
            return retrieval_metrics(*some, own_positions=own, recall_at=[1], engine=engine)

        return ours
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    k = "max_bin_count" if method == BEST else None
    calculator = AccuracyCalculator(include=tuple(NAMES.values()), k=k, device=torch.device("cpu"))

    def theirs(embeddings: torch.Tensor, labels: torch.Tensor, queries: int) -> dict[str, float]:
        some = (embeddings[:queries], labels[:queries], embeddings, labels)
        found = calculator.get_accuracy(*some, ref_includes_query=True)
        return {ours: found[name] for ours, name in NAMES.items()}

    return theirs


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure(method: str, items: int, classes: int, dimensions: int, queries: int, threads: int) -> None:
    """Runs in the child, and prints its findings as JSON."""
    torch.set_num_threads(threads)
    embeddings, labels = make(items, classes, dimensions)
    evaluate = evaluator(method)
    few = min(items, 1000)
    evaluate(embeddings[:few], labels[:few] % 100, few)
    before, start = peak_bytes(), time.process_time()
    numbers = evaluate(embeddings, labels, queries)
    seconds = (time.process_time() - start) * items / queries
    print(json.dumps({"seconds": seconds, "bytes": peak_bytes() - before, "numbers": numbers}))


def in_child(*arguments: str | int) -> dict:
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments[-1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def agree(first: dict[str, float], second: dict[str, float]) -> bool:
    """Within what float32 leaves open: two nearly equal distances may change places."""
    return all(abs(first[name] - second[name]) < 1e-5 for name in NAMES)


def compared(items: int, options: argparse.Namespace) -> list[dict]:
    """A row for each method, best of all rounds, the first of them ours."""
    classes = options.classes or items // 5
    queries = items if items < options.whole else QUERIES
    methods = [OURS, BEST] + [OUR_FAISS] * options.faiss + [DEFAULT] * (options.default and items <= 10000)
    runs: dict[str, list[dict]] = {method: [] for method in methods}
    for _ in range(options.rounds if items <= 60000 else min(2, options.rounds)):
        for method in methods:
            runs[method].append(in_child(method, items, classes, options.dimensions, queries, options.threads))
            if not agree(runs[method][0]["numbers"], runs[OURS][0]["numbers"]):
                found = runs[method][0]["numbers"], runs[OURS][0]["numbers"]
                raise SystemExit(f"{method} and ours disagree: {found[0]}, {found[1]}")
    return [
        {"items": items, "classes": classes, "method": method, "queries": queries}
        | {"seconds": min(run["seconds"] for run in runs[method]), "bytes": min(run["bytes"] for run in runs[method])}
        for method in methods
    ]


def draw(path: Path, rows: list[dict]) -> None:
    """Time and memory against the number of items, both axes logarithmic."""
    from harness.show.figures import COLOURS, DASHES, MARKERS, drawing

    with drawing(path, (8, 3.4)) as figure:
        for axes, key, scale, label in zip(
            figure.subplots(1, 2),
            ("seconds", "bytes"),
            (1, 2**20),
            ("seconds", "MiB beyond the embeddings"),
            strict=True,
        ):
            for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
                mine = [row for row in rows if row["method"] == method]
                look = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": DASHES[number]}
                axes.plot([r["items"] for r in mine], [r[key] / scale for r in mine], label=method, **look)
            axes.set(xscale="log", yscale="log", xlabel="items", ylabel=label)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.grid(True, linewidth=0.5)
        axes.legend(fontsize=8, loc="center right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10000, 30000, 60000, 250000, 1000000])
    parser.add_argument("--classes", type=int, help="default: a fifth of the items")
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--whole", type=int, default=250000, help="from how many items on the time is extrapolated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each method, in turn; the best counts")
    parser.add_argument("--default", action="store_true", help="the peer's default too, up to 10,000 items")
    parser.add_argument("--faiss", action="store_true", help="our search by faiss, too")
    parser.add_argument("--figure", type=Path, help="a PNG or SVG to draw")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return measure(*json.loads(options.child))
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}, {datetime.date.today()}\n")
    print("| items | classes | method | seconds | of ours | memory, GiB | of ours |\n|---|---|---|---|---|---|---|")
    rows = []
    for items in options.items:
        found = compared(items, options)
        rows += found
        for row in found:
            columns = [f"{items:,}", f"{row['classes']:,}", row["method"], f"{row['seconds']:.2f}"]
            columns[-1] += "" if row["queries"] == items else f" (from {row['queries']:,} queries)"
            columns += [f"{row['seconds'] / found[0]['seconds']:.2f}x", f"{row['bytes'] / 2**30:.2f}"]
            columns += [f"{row['bytes'] / max(found[0]['bytes'], 2**20):.1f}x"]
            print(f"| {' | '.join(columns)} |", flush=True)
    if options.figure:
        draw(options.figure, rows)


if __name__ == "__main__":
    main()
