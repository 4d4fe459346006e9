"""A step of the trainer against a step of a bare loop: the same network, loss, optimizer and batches.

    python benchmarks/trainer.py
    python benchmarks/trainer.py --cases perceptron --rounds 21

Both are in one process and make their steps in turn, the one that begins changing from round to round; the ratio is the
median of those of the rounds. Time is that of the processor, in one thread. The loop reads no loss, logs nothing and
checks nothing. Both must end with the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the checkout is measured, installed or not
from harness.data.backbones import SmallConvNet
from harness.data.loading import Batch
from harness.train.evaluation import Evaluation
from harness.train.optimization import build_optimizer
from harness.train.tracking import Tracker
from harness.train.trainer import Trainer
from harness.train.training import Training
from rambo.losses import RecallLoss
from rambo.model import RetrievalModel
from rambo.objective import RetrievalObjective


class Perceptron(nn.Module):
    """Two layers: a step is hardly more than the calls that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 * 8 * 8, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, batch: Batch) -> Tensor:
        """Embeddings of pictures of 8 pixels."""
        embeddings: Tensor = self.layers(batch["image"].flatten(1).float() / 255)
        return embeddings


CASES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # network, pixels, steps in a round
    "perceptron": (Perceptron, 8, 200),
    "four convolutions": (lambda: RetrievalModel(SmallConvNet(24), embedding_size=128, weights="none"), 32, 20),
    "EfficientNet-Lite0": (partial(RetrievalModel, "tf_efficientnet_lite0", weights="none"), 96, 2),
}


class Batches:
    """Data that are there already, so that the loader, which both would need, does not blur the difference."""

    evaluation: Mapping[str, list[Batch]] = MappingProxyType({"test": []})

    def __init__(self, batch: int, pixels: int, steps: int) -> None:
        label = torch.arange(batch) // 4
        colours, noise = torch.randint(256, (batch, 3, 1, 1))[label], torch.randint(256, (batch, 3, pixels, pixels))
        image = ((colours + noise) // 2).to(torch.uint8)  # something to learn
        self.train = [{"image": image, "label": label, "index": torch.arange(batch)}] * steps

    def describe(self) -> dict[str, str]:
        """Nothing that is kept."""
        return {}


def parts(network: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A new network with the weights that seed 0 gives, its loss and its optimizer."""
    torch.manual_seed(0)
    model, loss = network(), RetrievalObjective(RecallLoss(interpolation=4.0, margin=0.02))
    return model, loss, build_optimizer(partial(torch.optim.Adam, lr=1e-4), model, loss)


def bare(model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    """What one would write at least."""
    model.train()
    loss.train()
    for batch in batches:
        loss(model(batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


def measured(make_steps: Callable[[], object]) -> float:
    """Seconds of the processor that it takes."""
    start = time.process_time()
    make_steps()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print("| network | pixels | ms a step, bare | ms a step, ours | ours - bare, ms | ours / bare | rounds |")
    print("|---|---|---|---|---|---|---|")
    for case in options.cases:
        network, pixels, steps = CASES[case]
        data = Batches(options.batch, pixels, steps)
        loop, (model, loss, optimizer) = parts(network), parts(network)
        at_first = [(name, weights.detach().clone()) for name, weights in model.named_parameters()]
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(1, device="cpu")
            scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
            evaluation, tracker = Evaluation(dict, data.evaluation, "recall@1", True), Tracker(folder, {}, "disabled")
            training = Training(trainer, model, loss, data, evaluation, optimizer, scheduler, tracker)
            contestants = {"bare": partial(bare, *loop, data.train), "ours": training.train_epoch}
            seconds: dict[str, list[float]] = {name: [] for name in contestants}
            for number in range(-1, options.rounds):  # the first warms up
                for name in sorted(contestants, reverse=bool(number % 2)):
                    taken = measured(contestants[name])
                    if number >= 0:
                        seconds[name].append(taken)
        still = [name for name, weights in model.named_parameters() if torch.equal(weights, dict(at_first)[name])]
        if still:
            raise SystemExit(f"{case}: nothing was trained in {', '.join(still)}")
        if not all(map(torch.equal, loop[0].state_dict().values(), model.state_dict().values())):
            raise SystemExit(f"{case}: the two have trained different networks")
        a_step = {name: 1000 * statistics.median(taken) / steps for name, taken in seconds.items()}
        pairs = list(zip(seconds["ours"], seconds["bare"], strict=True))
        ratio = statistics.median(ours / bare for ours, bare in pairs)
        more = statistics.median(1000 * (ours - bare) / steps for ours, bare in pairs)
        print(
            f"| {case} | {pixels} | {a_step['bare']:.3f} | {a_step['ours']:.3f} | {more:+.3f} | {ratio:.3f} "
            f"| {options.rounds} of {steps} steps |",
            flush=True,
        )


if __name__ == "__main__":
    main()
