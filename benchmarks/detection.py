"""What the average-precision loss costs a detector, and how long a test set takes to be evaluated.

    python benchmarks/detection.py [--threads 1 2] [--parts sequences loss step evaluation] [--output table.md]

sequences   average precision of one long sequence, forward and backward, with few positives and with many:
                published   the official formulation: each rank a double argsort, six sorts a step
                sorted      written here from equations 2, 14, 21 and algorithm 1: a sort before the step, one after
                ours        the loss as it is used
            beside table 6 of the paper. Gradients must agree before anything is timed.
loss        the classification loss alone at 512 regions an image and 20 classes: ours beside cross-entropy
step        the same within a training step of a detector, and its share of the step, on random images:
                small       2.3 million parameters, 160 px, 64 regions, 4 classes: the detector of the demonstration
                small, 512  the same with 512 regions and 20 classes
                resnet50    the paper's detector at 600 x 1000 px, 512 regions, 20 classes; only with --large
evaluation  as many images as VOC2007 test has, 100 detections each: every number of ours, the COCO rule of pycocotools
            through torchmetrics if installed (numbers must agree), and 1,000 draws of the bootstrap for 72 images

With one thread the clock is the processor's, which other programs disturb less; with more it is the wall's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from ranking import gradient, machine, published_precision, relevance_of

from rambo.losses import AveragePrecisionLoss, MeanAveragePrecisionLoss

LENGTHS = (100_000, 320_000, 1_000_000)
POSITIVE = (0.001, 0.01, 0.25)
PAPER = {100_000: "33", 1_000_000: "331"}  # table 6: milliseconds on one core of a Xeon Gold at 2.2 GHz
INTERPOLATION, MARGIN, MEMORY = 0.5, 0.15, 7  # lambda, alpha and tau of the detection experiments, section 5.2
VOC_IMAGES, DETECTIONS = 4952, 100


def clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def medians(steps: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of each contestant, taken in turn so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


# ---- one long sequence ----


def rank(scores: Tensor) -> Tensor:
    order = scores.argsort(descending=True, stable=True)
    ranks = torch.empty_like(scores)
    ranks[order] = torch.arange(1, len(scores) + 1, dtype=scores.dtype)
    return ranks


class SortedRank(torch.autograd.Function):
    """Normalised ranks and their blackbox gradient, as algorithm 1 is written."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # noqa: D102
        ranks = rank(scores)
        ctx.save_for_backward(scores, ranks)
        return ranks / len(scores)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # noqa: D102
        scores, ranks = ctx.saved_tensors
        return (rank(scores + INTERPOLATION * upstream) - ranks) / (INTERPOLATION * len(scores))


def sorted_precision(scores: Tensor, relevance: Tensor) -> Tensor:
    row, positive = scores[0], relevance[0] > 0
    shifted = row - MARGIN * (positive.to(row.dtype) - 0.5)
    ranked = SortedRank.apply(shifted)[positive] * len(row)
    return 1 - (rank(shifted.detach()[positive]) / ranked).mean()


def sequences(options: argparse.Namespace) -> Iterator[str]:
    for length in LENGTHS:
        for share in POSITIVE:
            generator = torch.Generator().manual_seed(length)
            relevance = relevance_of(1, length, int(share * length), generator)
            scores, mask = torch.randn(1, length, generator=generator) + relevance, relevance > 0
            loss = AveragePrecisionLoss(INTERPOLATION, MARGIN)
            mine = gradient(loss.from_scores, scores, mask)  # type: ignore[arg-type]
            wrong = (mine - gradient(sorted_precision, scores, relevance)).abs() * length * INTERPOLATION > 0.5
            assert wrong.float().mean() < 1e-2, f"{wrong.sum()} gradient entries differ from the formula"
            leaf = scores.requires_grad_()
            took = medians(
                {
                    "published": lambda: torch.autograd.grad(published_precision(leaf, relevance), leaf),  # noqa: B023
                    "sorted": lambda: torch.autograd.grad(sorted_precision(leaf, relevance), leaf),  # noqa: B023
                    "ours": lambda: torch.autograd.grad(loss.from_scores(leaf, mask), leaf),  # noqa: B023
                },
                options.seconds,
            )
            cells = " | ".join(f"{1e3 * took[name]:.1f}" for name in took)
            yield (
                f"| {length:,} | {100 * share:g} % | {torch.get_num_threads()} | {PAPER.get(length, '-')} | {cells} "
                f"| **{took['published'] / took['ours']:.1f}** | {took['sorted'] / took['ours']:.1f} |"
            )


# ---- the classification loss, alone and within a step ----


def classification_steps(logits: Tensor, labels: Tensor, batches: int) -> dict[str, Callable[[], Any]]:
    """Forward and backward of both losses on the logits of regions, the memory filled."""
    loss = MeanAveragePrecisionLoss(INTERPOLATION, MARGIN, memory_batches=batches)
    leaf = logits.detach().requires_grad_()
    relevance = labels[:, None] == torch.arange(1, logits.shape[1])
    for _ in range(batches):
        loss(leaf[:, 1:], relevance)
    return {
        "ours": lambda: torch.autograd.grad(loss(leaf[:, 1:], relevance), leaf),
        "cross-entropy": lambda: torch.autograd.grad(functional.cross_entropy(leaf, labels), leaf),
    }


def loss_alone(options: argparse.Namespace) -> Iterator[str]:
    for images in (2, 8):
        for batches in (0, MEMORY):
            generator = torch.Generator().manual_seed(images)
            logits = torch.randn(512 * images, 21, generator=generator)
            labels = torch.randint(1, 21, (len(logits),), generator=generator)
            labels[torch.rand(len(logits), generator=generator) > 0.25] = 0
            logits[torch.arange(len(logits)), labels] += 2
            took = medians(classification_steps(logits, labels, batches), options.seconds)
            yield (
                f"| {images} | {batches} | {torch.get_num_threads()} | {1e3 * took['cross-entropy']:.2f} "
                f"| {1e3 * took['ours']:.1f} |"
            )


def detector(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """The model in training mode, and images, height and width of its batches."""
    from rambo.detection.model import FasterRCNN
    from rambo.detection.settings import AnchorSettings, ProposalSettings, RegionSettings

    if name == "resnet50":
        return FasterRCNN("resnet50", weights="none", classes=20).train(), (2, 600, 1000)
    # an untrained network's proposals overlap much, so that 512 are left only if more overlap is allowed
    regions, classes, kept, overlap = (512, 20, 1000, 0.95) if "512" in name else (64, 4, 200, 0.7)
    scratch: dict[str, Any] = {"weights": "none", "frozen_stages": None, "freeze_batch_norm": False}
    model = FasterRCNN(
        "resnet10t",
        **scratch,
        levels=(2, 3),
        pyramid_channels=64,
        extra_level=False,
        classes=classes,
        anchors=AnchorSettings(scales=(3.0,)),
        proposals=ProposalSettings(samples=64, train_before_nms=kept, train_after_nms=kept, nms_iou=overlap),
        regions=RegionSettings(samples=regions, hidden=256),
    )
    return model.train(), (8, 160, 160)


def random_batch(images: int, height: int, width: int, classes: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(images, 3, 2, generator=generator) * torch.tensor([0.6 * width, 0.6 * height])
    boxes = torch.cat([corner, corner + 0.3 * torch.tensor([width, height])], dim=2)
    labels = torch.randint(1, classes + 1, (images, 3), generator=generator)
    pixels = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=generator)
    targets = [{"boxes": own, "labels": names} for own, names in zip(boxes, labels, strict=True)]
    return {"images": list(pixels), "targets": targets, "index": torch.arange(images)}


def train_step(model: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Any]) -> None:
    optimizer.zero_grad()
    objective(model(batch), batch)["loss"].backward()
    optimizer.step()


def within_step(options: argparse.Namespace) -> Iterator[str]:
    from rambo.detection.objective import DetectionObjective

    for name in ["small", "small, 512", *(["resnet50"] if options.large else [])]:
        torch.manual_seed(0)
        model, (images, height, width) = detector(name)
        batch = random_batch(images, height, width, int(model.classes))  # type: ignore[arg-type]
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
        ranked = DetectionObjective(MeanAveragePrecisionLoss(INTERPOLATION, MARGIN, memory_batches=MEMORY))
        output = model(batch)
        relevance = output.labels[:, None] == torch.arange(1, output.class_logits.shape[1])
        for _ in range(MEMORY):
            ranked.classification(output.class_logits[:, 1:].detach().requires_grad_(), relevance)  # type: ignore[misc]

        objectives = {"cross-entropy": DetectionObjective("cross_entropy"), "ours": ranked}
        steps = {key: partial(train_step, model, objective, optimizer, batch) for key, objective in objectives.items()}
        whole = medians(steps, 4 * options.seconds)
        alone = medians(classification_steps(output.class_logits, output.labels, MEMORY), options.seconds)
        cells = [1e3 * times[key] for times in (whole, alone) for key in objectives]
        yield (
            f"| {name} | {images} x {height} x {width} | {len(output.labels)} | {torch.get_num_threads()} "
            f"| {cells[0]:.0f} | {cells[1]:.0f} | {cells[2]:.2f} | {cells[3]:.1f} "
            f"| **{100 * cells[3] / cells[1]:.2f} %** |"
        )


# ---- evaluation ----


def scenes(images: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Objects as frequent as in VOC2007 test, and around them 100 detections an image, in whole pixels."""
    generator = torch.Generator().manual_seed(images)
    found, objects = [], []
    for _ in range(images):
        count = int(torch.randint(1, 6, (1,), generator=generator))
        corner = torch.randint(0, 300, (count, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(30, 200, (count, 2), generator=generator)], 1).float()
        labels = torch.randint(1, 21, (count,), generator=generator)
        objects.append({"boxes": boxes, "labels": labels, "difficult": torch.rand(count, generator=generator) < 0.2})
        source = torch.randint(count, (DETECTIONS,), generator=generator)
        near = boxes[source] + torch.randint(-12, 13, (DETECTIONS, 4), generator=generator)
        other = torch.randint(1, 21, (DETECTIONS,), generator=generator)
        guess = labels[source].where(torch.rand(DETECTIONS, generator=generator) < 0.3, other)
        found.append({"boxes": near, "scores": torch.rand(DETECTIONS, generator=generator), "labels": guess})
    return found, objects


def evaluation(options: argparse.Namespace) -> Iterator[str]:
    from rambo.detection.metrics import THRESHOLDS, bootstrap, detection_metrics

    found, objects = scenes(VOC_IMAGES)
    names, threads = [f"class {k}" for k in range(20)], torch.get_num_threads()
    took = medians({"ours": lambda: detection_metrics(found, objects, names)}, options.seconds)
    yield f"| ours: 11-point, all-point and COCO | {threads} | {took['ours']:.1f} |"
    try:
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError:
        yield f"| torchmetrics and pycocotools: not installed | {threads} | - |"
    else:
        steps = (torch.arange(101, dtype=torch.float64) * 0.01).tolist()
        start = clock()
        peer = MeanAveragePrecision(iou_thresholds=list(THRESHOLDS), rec_thresholds=steps, backend="pycocotools")
        peer.update(found, [{**entry, "iscrowd": entry["difficult"].long()} for entry in objects])
        theirs, seconds = float(peer.compute()["map"]), clock() - start
        mine = detection_metrics(found, objects, names)["coco_ap"]
        assert abs(theirs - mine) < 1e-6, f"the COCO rule gives {mine} here and {theirs} in pycocotools"
        yield f"| torchmetrics and pycocotools: COCO | {threads} | {seconds:.1f} |"
    few = medians({"ours": lambda: bootstrap(found[:72], objects[:72])}, options.seconds)
    yield f"| ours: bootstrap, 72 images, 1,000 draws | {threads} | {few['ours']:.2f} |"


PARTS = {  # what is measured, the columns, and the rows
    "sequences": (
        "AP, forward and backward, milliseconds; lambda 0.5, margin 0.15. Paper: table 6, one core of a Xeon Gold.",
        "| scores | positive | threads | paper | published | sorted | ours | published / ours | sorted / ours |",
        sequences,
    ),
    "loss": (
        "The classification loss, forward and backward, milliseconds; 512 regions an image, a quarter of 20 classes.",
        "| images | batches in memory | threads | cross-entropy | ours |",
        loss_alone,
    ),
    "step": (
        "A training step, and its classification loss alone (CE: cross-entropy), milliseconds; 7 batches in memory.",
        "| detector | batch | regions | threads | step, CE | step, ours | loss, CE | loss, ours | share of the step |",
        within_step,
    ),
    "evaluation": (
        f"Evaluation of {VOC_IMAGES:,} images with {DETECTIONS} detections each, 20 classes, ten thresholds, seconds.",
        "| what | threads | seconds |",
        evaluation,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each line")
    parser.add_argument("--large", action="store_true", help="also a step of the paper's detector: minutes")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    options = parser.parse_args()
    lines: list[str] = []

    def write(*new: str) -> None:
        lines.extend(new)
        print(*new, sep="\n", flush=True)

    write(f"Measured on {machine()}.")
    for sentence, columns, rows in (PARTS[part] for part in options.parts):
        write("", sentence, "", columns, "|" + "---|" * (columns.count("|") - 1))
        for threads in options.threads:
            torch.set_num_threads(threads)
            for row in rows(options):
                write(row)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
