"""What is measured on a GPU; `python scripts/gpu_check.py` runs each part in a process of its own.

A part is a function of (device, small) that returns `Finding`s. `small` is for a trial on a CPU: tiny shapes, whose
numbers mean nothing.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the checkout is measured, installed or not
from benchmarks import ranking
from rambo.losses import AveragePrecisionLoss, RecallLoss, SmoothAPLoss

ROOT = Path(__file__).resolve().parents[1]
LARGE = ("recall", (4096, 65536, 3))
STANFORD = (60502, 11316, 512)  # items and classes of the test half of Stanford Online Products, dimensions


class NotHereError(Exception):
    """A part, or a line of it, cannot be had on this machine; says why."""


@dataclass
class Finding:
    """One line of the table.

    Attributes:
        what: What was measured.
        value: The number, or a word.
        target: What it should be, in words; empty where nothing was promised.
        met: Whether it is; None where nothing was promised.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], Any], device: torch.device, small: bool) -> float:
    """Median time of a step, of as many as fit into about a second; the device has finished before and after each."""
    for _ in range(1 if small else 3):
        step()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1 and len(times) < 100 and not small):
        finish(device)
        start = time.perf_counter()
        step()
        finish(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def tests(device: torch.device, small: bool) -> list[Finding]:
    """The tests that are marked `gpu`."""
    if device.type != "cuda":
        raise NotHereError("they need a GPU")
    import hypothesis  # noqa: F401  (of tests/conftest.py)
    import pytest  # noqa: F401

    findings = []
    for path in sorted(ROOT.glob("tests/*/**/test_*.py")):
        if "mark.gpu" not in path.read_text():
            continue
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        missing = re.search(r"ModuleNotFoundError: No module named '(\w+)", done.stdout + done.stderr)
        if done.returncode and not missing:
            raise RuntimeError(f"{done.stdout[-3000:]}{done.stderr[-1000:]}\n{last}")
        name = str(path.relative_to(ROOT))
        left_out = Finding(name, f"left out: needs {missing[1]}, which is not installed") if missing else None
        findings.append(left_out or Finding(name, last, "all pass", True))
    return findings


def losses(device: torch.device, small: bool) -> list[Finding]:
    """Each loss, forward and backward from scores, against the published formulation."""
    shapes = [("recall", shape) for shape in ranking.RECALL_SHAPES] + [("AP", s) for s in ranking.PRECISION_SHAPES]
    shapes = [*shapes[:1], ("AP", (4, 64, 5))] if small else [*shapes, LARGE]
    return [_loss(kind, shape, device, small) for kind, shape in shapes]


def _loss(kind: str, shape: tuple[int, int, Any], device: torch.device, small: bool) -> Finding:
    rows, items, relevant = shape
    generator = torch.Generator(device).manual_seed(rows * items)
    relevance = ranking.relevance_of(rows, items, relevant, generator)
    scores = (torch.rand(rows, items, generator=generator, device=device) * 2 - 1).requires_grad_()
    mask, ours = relevance > 0, ranking.ours(kind)
    published = ranking.published_precision if kind == "AP" else ranking.published_recall
    what = f"{kind}, {rows} x {items}, {relevant} relevant"
    try:
        wrong = ranking.disagreement(published, ours, scores.detach(), relevance)
        theirs = seconds(lambda: torch.autograd.grad(published(scores, relevance), scores), device, small)
    except torch.cuda.OutOfMemoryError:
        gc.collect()
        torch.cuda.empty_cache()
        mine = seconds(lambda: torch.autograd.grad(ours.from_scores(scores, mask), scores), device, small)
        return Finding(what, f"{1e3 * mine:.2f} ms; the published formulation does not fit the memory")
    if wrong >= ranking.DISAGREEMENT:
        raise AssertionError(f"{what}: {wrong:.2%} of the gradient differs from the published formulation")
    mine = seconds(lambda: torch.autograd.grad(ours.from_scores(scores, mask), scores), device, small)
    ratio = theirs / mine
    return Finding(what, f"{1e3 * mine:.2f} ms, published {1e3 * theirs:.2f} ms: {ratio:.1f}x", ">= 1x", ratio >= 1)


def waits(device: torch.device, small: bool) -> list[Finding]:
    """How often the CPU waits for the device in a step: copy of the batch, forward, loss and backward."""
    if device.type != "cuda":
        raise NotHereError("CUDA counts them; tests/harness/pretend_gpu.py stands in for it on a CPU")
    from harness.device import to_device
    from harness.train.step import Step
    from rambo.objective import RetrievalObjective
    from ranksim.losses import RankSimilarity

    class Regularized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.term = RankSimilarity(2.0, 100.0)

        def forward(self, output: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": self.term(output, batch["label"])}

    model = nn.Linear(64, 32).to(device)
    kinds: dict[str, nn.Module] = {
        "recall": RecallLoss(4.0, 0.02),
        "recall, 3 batches in memory": RecallLoss(4.0, 0.02, memory_batches=3),
        "average precision": AveragePrecisionLoss(4.0, 0.02),
        "SmoothAP": SmoothAPLoss(),
    }
    objectives = {name: RetrievalObjective(loss) for name, loss in kinds.items()} | {"RankSim": Regularized()}
    findings = []
    for name, objective in objectives.items():
        scaler = torch.amp.GradScaler(enabled=False)
        step = Step(lambda batch: model(batch["image"]), objective.to(device), contextlib.nullcontext, scaler)
        counts = []
        for turn in range(5):
            labels = torch.arange(128) // 4
            batch = {"image": torch.randn(128, 64), "label": labels, "index": torch.arange(128) + 128 * turn}
            counts.append(_counted(lambda step=step, batch=batch: step(to_device(batch, device))))
        findings.append(Finding(f"waits a step, {name}", str(counts[-1]), "0", counts[-1] == 0))
    return findings


def _counted(step: Callable[[], Any]) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def share(device: torch.device, small: bool) -> list[Finding]:
    """The share of a ResNet-50 step at batch 128 that the loss takes."""
    from harness.data.backbones import SmallConvNet
    from harness.device import to_device
    from harness.train.step import Step
    from rambo.model import RetrievalModel
    from rambo.objective import RetrievalObjective

    images, side = (8, 32) if small else (128, 224)
    model = RetrievalModel(SmallConvNet(8) if small else "resnet50", weights="none").to(device).train()
    labels = torch.arange(images) // 4
    batch = to_device(
        {"image": torch.randint(256, (images, 3, side, side), dtype=torch.uint8), "label": labels}, device
    )
    embeddings = torch.randn(images, 512, device=device).requires_grad_()
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=1e-3), RecallLoss(4.0, 0.02)
    alone = seconds(lambda: torch.autograd.grad(loss(embeddings, labels), embeddings), device, small)
    findings = []
    for name, kind in {"fp32": None, "bf16": torch.bfloat16}.items():
        autocast = partial(torch.autocast, device.type, dtype=kind, enabled=kind is not None)
        scaler = torch.amp.GradScaler(device.type, enabled=False)
        step = Step(model, RetrievalObjective(loss), autocast, scaler)

        def whole(step: Step = step) -> None:
            step(batch)
            optimizer.step()
            optimizer.zero_grad()

        all_of_it = seconds(whole, device, small)
        part = alone / all_of_it
        shown = f"{100 * part:.2f} % ({1e3 * alone:.2f} of {1e3 * all_of_it:.1f} ms)"
        findings.append(Finding(f"the loss's share of a step, {name}", shown, "< 1 %", part < 0.01))
    return findings


def evaluation(device: torch.device, small: bool) -> list[Finding]:
    """The retrieval metrics at the size of Stanford Online Products, against their matrix product alone."""
    from benchmarks.evaluation import make
    from rambo.metrics import retrieval_metrics

    items, classes, dimensions = (2000, 200, 512) if small else STANFORD
    embeddings, labels = (tensor.to(device) for tensor in make(items, classes, dimensions))
    rows = 2**25 // items  # of which the scores take 128 MiB
    buffer = torch.empty(rows, items, device=device)

    def product() -> None:
        for part in embeddings.split(rows):
            torch.mm(part, embeddings.T, out=buffer[: len(part)])

    bare = seconds(product, device, small)
    whole = seconds(lambda: retrieval_metrics(embeddings, labels, recall_at=[1, 10, 100, 1000]), device, small)
    shown = f"{whole:.3f} s, matrix product {bare:.3f} s: {whole / bare:.1f}x"
    return [Finding(f"evaluation, {items} x {embeddings.shape[1]}", shown, "<= 2x", whole <= 2 * bare)]


def images(device: torch.device, small: bool) -> list[Finding]:
    """Images a second in an epoch of the trainer on rendered letters, loading and warping included."""
    from harness.data.backbones import SmallConvNet
    from harness.device import cores
    from harness.train.tracking import Tracker
    from harness.train.trainer import Trainer
    from rambo.datasets.glyphs import Glyphs
    from rambo.datasets.transforms import CentreCrop, CharacterWarp
    from rambo.evaluation import RetrievalMetrics
    from rambo.model import RetrievalModel
    from rambo.objective import RetrievalObjective
    from rambo.sampling import ClassBalancedBatches

    side, size, batches, workers = (16, 16, 2, 0) if small else (64, 128, 60, min(8, cores()))
    data = Glyphs(
        side,
        renders=4 if small else 24,
        sampler=partial(ClassBalancedBatches, batch_size=size, batches_per_epoch=batches),
        train_transform=CharacterWarp(side),
        test_transform=CentreCrop(side, resize=None),
        workers=workers,
    )
    model = RetrievalModel(SmallConvNet(8) if small else "resnet50", embedding_size=128, weights="none")
    loss = RetrievalObjective(RecallLoss(4.0, 0.02))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    trainer = Trainer(2, evaluate_every=2, evaluate_first=False, device=str(device), pictures=False)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(folder, {}, wandb="disabled")
        trainer.fit(model, loss, data, RetrievalMetrics((1,)), optimizer, scheduler, tracker)
        lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
        took = [line["seconds/train"] for line in lines if "seconds/train" in line][-1]
    name = "small network" if small else "ResNet-50"
    shown = f"{size * batches / took:.0f} images/s"
    return [Finding(f"second training epoch, {name}, {side} px, {workers} workers", shown)]


PARTS: dict[str, tuple[Callable[[torch.device, bool], list[Finding]], int]] = {
    "tests": (tests, 85),
    "waits": (waits, 40),
    "losses": (losses, 140),
    "share": (share, 60),
    "evaluation": (evaluation, 60),
    "images": (images, 75),
}
"""Each part and how many seconds it may take; eight minutes in all, with the start."""
