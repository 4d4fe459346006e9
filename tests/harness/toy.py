"""A regression of numbers that knows neither paper: the contracts when nothing is retrieved."""

import functools
import json

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from harness.data.loading import EpochLoader
from harness.record.composition import CONFIGS
from harness.train.optimization import build_optimizer, build_scheduler
from harness.train.tracking import Tracker
from harness.train.trainer import Trainer

ADAM = functools.partial(torch.optim.Adam, lr=0.1)
HALVED = functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[2], gamma=0.5)


def scheduled(name, **settings):
    """What a file of configs/scheduler makes, with some settings changed."""
    return instantiate(OmegaConf.merge(OmegaConf.load(CONFIGS / "scheduler" / f"{name}.yaml"), settings))


class Points(torch.utils.data.Dataset):
    """Points on the line y = 3x, the noise of each drawn from (epoch, index)."""

    def __getitem__(self, key):
        epoch, index = key
        generator = torch.Generator().manual_seed(epoch * 1000 + index)
        x = torch.tensor([index / 10.0])
        return {"x": x, "y": 3 * x + 0.01 * torch.randn(1, generator=generator)}


class InTurn:
    """Eight samples in batches of two, in an order that depends on the epoch."""

    def __len__(self):
        return 4

    def batches(self, epoch):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(epoch)).tolist()
        yield from (order[i : i + 2] for i in range(0, 8, 2))


class PointData:
    def __init__(self, workers=0, fingerprint=None):
        self.fingerprint = fingerprint
        self.train = EpochLoader(Points(), InTurn(), workers)
        self.evaluation = {"validation": [2.0], "test": [5.0]}

    def describe(self):
        return {"name": "points", "fingerprint": self.fingerprint}


class Line(nn.Module):
    """y = ax with dropout, so that a run also depends on the global generator."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch):
        return self.linear(self.dropout(batch["x"]))


class SquaredError(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, output, batch):
        loss = self.factor * (output.float() - batch["y"]).square().mean()
        return {"loss": loss, "root": loss.detach().sqrt()}


def closeness(model, loader):
    """Minus the error at the one point of `loader`."""
    x = torch.tensor(loader)
    return {"closeness": -(model({"x": x}) - 3 * x).abs().item()}


def fit(
    folder,
    epochs=3,
    resume=False,
    data=None,
    model=None,
    loss=None,
    optimizer=ADAM,
    metrics=closeness,
    drawing=None,
    schedule=HALVED,
    **settings,
):
    """A run of the toy, or of what is given in its place; returns its results and the trained model."""
    if model is None:
        torch.manual_seed(0)
        model = Line()
    loss = loss or SquaredError()
    built = build_optimizer(optimizer, model, loss)
    data, trainer = data or PointData(), Trainer(epochs, monitor="closeness", device="cpu", **settings)
    scheduler = build_scheduler(schedule, built, data.train, trainer.accumulate)
    tracker = Tracker(folder, {}, wandb="disabled")
    return trainer.fit(model, loss, data, metrics, built, scheduler, tracker, resume, drawing), model


def lines(folder):
    """The record without the one thing that may differ, time."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if not k.startswith("seconds")} for record in records]
