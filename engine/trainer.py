"""The loop: train an epoch, evaluate, keep the best and the last, and be able to go on from there.

The trainer moves batches and never looks inside. `model(batch)` returns whatever `loss(output, batch)` understands;
the loss returns named scalars of which "loss" is minimised; `metrics(model, loader)` returns named floats.

Optional hooks: `loss.prepare(data)` before the optimizer is built,
`parameter_groups()` of model and loss, `end_of_epoch(model, data, epoch)` of model and loss,
`metrics.pictures(model, loader, folder, split)` at the end, which returns {name: path of an image}.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from engine import checkpoint
from engine.data import Batch, Data
from engine.device import choose_device, to_device
from engine.distributed import is_main
from engine.reproducibility import peak_memory, seed_everything
from engine.tracking import Tracker

log = logging.getLogger(__name__)
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Metrics = Callable[[nn.Module, Any], Mapping[str, float]]


class TrainingStoppedError(RuntimeError):
    """Training cannot go on; the message says why and which checkpoint is good."""


class Trainer:
    """Trains a model and evaluates it as it goes.

    Args:
        epochs: Passes over the training batches.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        evaluate_first: Whether to evaluate before training, which shows what training adds.
        monitor: The metric by which the best epoch is chosen, for each evaluation split on its own.
        higher_is_better: Whether a larger `monitor` is better.
        precision: `fp32`, or `bf16` or `fp16` autocast (the latter with gradient scaling).
        accumulate: Micro-batches per optimizer step, whose gradients are averaged. A ranking loss ranks inside one
            micro-batch, so this is more queries per step, not longer rankings.
        clip_norm: Largest gradient norm, or None.
        channels_last: Whether images and model use the channels-last memory format.
        compile: Whether to compile the model.
        device: `auto` takes a GPU when there is one.
        log_every: Steps between lines of metrics.jsonl; epochs always have theirs.
        seed: What every epoch's draws derive from.

    Raises:
        ValueError: If a value is outside its range; shown.
    """

    def __init__(
        self,
        epochs: int,
        evaluate_every: int = 1,
        evaluate_first: bool = True,
        monitor: str = "recall@1",
        higher_is_better: bool = True,
        precision: str = "fp32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        channels_last: bool = False,
        compile: bool = False,
        device: str = "auto",
        log_every: int = 10,
        seed: int = 0,
    ) -> None:
        counts = {"epochs": epochs, "evaluate_every": evaluate_every, "accumulate": accumulate, "log_every": log_every}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"trainer.{name} must be at least 1, got {value}")
        if precision not in PRECISIONS:
            raise ValueError(f"trainer.precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"trainer.clip_norm must be positive or null, got {clip_norm}")
        self.epochs, self.evaluate_every, self.evaluate_first = epochs, evaluate_every, evaluate_first
        self.monitor, self.higher_is_better = monitor, higher_is_better
        self.precision, self.accumulate, self.clip_norm = precision, accumulate, clip_norm
        self.channels_last, self.compile, self.log_every, self.seed = channels_last, compile, log_every, seed
        self.device = choose_device(device)

    def fit(
        self,
        model: nn.Module,
        loss: nn.Module,
        data: Data,
        metrics: Metrics,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        tracker: Tracker,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Trains to the last epoch and returns the results of the run.

        Args:
            model: Called with a batch.
            loss: Called with the model's output and the batch.
            data: Training batches and evaluation loaders.
            metrics: Called with the model and each evaluation loader.
            optimizer: Of the parameters of model and loss.
            scheduler: Stepped once an epoch.
            tracker: Receives all numbers; its folder receives the checkpoints.
            resume: Whether to go on from the folder's last checkpoint.

        Returns:
            `last`: the metrics after the last epoch; `best_on_<split>`: the epoch that `monitor` prefers on a split,
            with the metrics of every split at that epoch; `seconds`, `peak_memory`.

        Raises:
            TrainingStoppedError: If the loss is not finite.
            CheckpointError: If a checkpoint cannot be written or does not fit.
        """
        run = _Run(self, model, loss, data, metrics, optimizer, scheduler, tracker)
        if resume:
            run.restore()
        else:
            if self.evaluate_first:
                run.evaluate("untrained")
            run.save()
        while run.epoch < self.epochs:
            started = time.perf_counter()
            numbers = run.train_epoch()
            if run.epoch % self.evaluate_every == 0 or run.epoch == self.epochs:
                numbers |= run.evaluate()
            run.seconds += time.perf_counter() - started
            run.finish_epoch(numbers, time.perf_counter() - started)
        run.pictures()
        return {**run.results, "seconds": run.seconds, "peak_memory": peak_memory(self.device)}


@dataclass
class _Run:
    """A run in progress: what `Trainer.fit` was given, and everything that changes."""

    trainer: Trainer
    model: nn.Module
    loss: nn.Module
    data: Data
    metrics: Metrics
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    tracker: Tracker
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)
    new_best: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        trainer = self.trainer
        self.model.to(trainer.device)
        self.loss.to(trainer.device)
        if trainer.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.forward: Callable[[Batch], Any] = torch.compile(self.model) if trainer.compile else self.model
        self.scaler = torch.amp.GradScaler(trainer.device.type, enabled=trainer.precision == "fp16")
        self.folder = self.tracker.folder / "checkpoints"
        self.last = self.folder / "last.pt"

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training batches; returns the mean of every number that the loss names."""
        trainer = self.trainer
        seed_everything(trainer.seed, self.epoch)
        set_epoch = getattr(self.data.train, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch)
        self.model.train()
        self.loss.train()
        sums: dict[str, float] = {}
        micro_batches, since = 0, time.perf_counter()
        with Progress(disable=not (sys.stdout.isatty() and is_main()), transient=True) as bar:
            total = len(self.data.train) if isinstance(self.data.train, Sized) else None
            task = bar.add_task(f"epoch {self.epoch + 1}/{trainer.epochs}", total=total)
            for batch in self.data.train:
                numbers = self._backward(to_device(batch, trainer.device, trainer.channels_last))
                micro_batches += 1
                if micro_batches % trainer.accumulate == 0:
                    numbers |= self._update()
                for name, value in numbers.items():
                    sums[name] = sums.get(name, 0.0) + value
                if micro_batches % (trainer.accumulate * trainer.log_every) == 0:
                    self.tracker.log({f"step/{name}": value for name, value in numbers.items()}, self.step)
                bar.advance(task)
        if micro_batches == 0:
            raise TrainingStoppedError("the training set gave no batch; use a smaller batch or more images")
        if micro_batches % trainer.accumulate:
            self._update()  # what the last, incomplete group has gathered
        self.epoch += 1
        self.scheduler.step()
        for module in (self.model, self.loss):
            hook: Callable[..., None] | None = getattr(module, "end_of_epoch", None)
            if hook is not None:
                hook(self.model, self.data, self.epoch)
        means = {name: total / micro_batches for name, total in sums.items()}
        return means | {"seconds/train": time.perf_counter() - since}

    def _backward(self, batch: Batch) -> dict[str, float]:
        trainer = self.trainer
        dtype = PRECISIONS[trainer.precision]
        with torch.autocast(trainer.device.type, dtype=dtype, enabled=dtype is not None):
            named = self.loss(self.forward(batch), batch)
        numbers = {name: float(torch.as_tensor(value).detach()) for name, value in named.items()}
        if not math.isfinite(numbers["loss"]):
            raise TrainingStoppedError(
                f"the loss became {numbers['loss']} in epoch {self.epoch + 1}, step {self.step + 1}; "
                f"{self.last} holds the end of epoch {self.epoch}; "
                "try a lower optimizer.lr, trainer.clip_norm=1 or trainer.precision=fp32"
            )
        if named["loss"].requires_grad:  # a batch without anything to learn from has no graph
            self.scaler.scale(named["loss"] / trainer.accumulate).backward()
        return numbers

    def _update(self) -> dict[str, float]:
        numbers = {}
        self.scaler.unscale_(self.optimizer)
        if self.trainer.clip_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            numbers["gradient_norm"] = float(nn.utils.clip_grad_norm_(parameters, self.trainer.clip_norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return numbers

    def evaluate(self, note: str = "") -> dict[str, float]:
        """Metrics of every split, named split/metric; notes which splits have a new best."""
        since = time.perf_counter()
        self.model.eval()
        numbers: dict[str, float] = {}
        for split, loader in self.data.evaluation.items():
            with torch.no_grad():
                found = self.metrics(self.model, loader)
            numbers |= {f"{split}/{name}": float(value) for name, value in found.items()}
        self.results["last"] = {"epoch": self.epoch, "metrics": numbers}
        if note:
            self.results[note] = self.results["last"]
            self.tracker.log({"epoch": self.epoch, **numbers}, self.step)
            log.info("%s  %s", note, self._headline(numbers))
            return numbers
        self.new_best = [split for split in self.data.evaluation if self._is_best(split, numbers)]
        for split in self.new_best:
            self.results[f"best_on_{split}"] = self.results["last"]
        return numbers | {"seconds/evaluation": time.perf_counter() - since}

    def _is_best(self, split: str, numbers: Mapping[str, float]) -> bool:
        name = f"{split}/{self.trainer.monitor}"
        if name not in numbers:
            raise ValueError(f"trainer.monitor={self.trainer.monitor} is no metric; there are {', '.join(numbers)}")
        best = self.results.get(f"best_on_{split}")
        if best is None:
            return True
        gain = numbers[name] - float(best["metrics"][name])
        return gain > 0 if self.trainer.higher_is_better else gain < 0

    def finish_epoch(self, numbers: dict[str, float], seconds: float) -> None:
        """Logs the epoch and saves it."""
        groups = enumerate(self.optimizer.param_groups)
        rates = {f"learning_rate/{group.get('name', i)}": group["lr"] for i, group in groups}
        self.tracker.log({"epoch": self.epoch, **numbers, **rates}, self.step)
        self.save()
        evaluated = any(name.partition("/")[0] in self.data.evaluation for name in numbers)
        headline = f"  {self._headline(numbers)}" if evaluated else ""
        log.info(
            "epoch %d/%d  loss %.4f%s  %.0f s", self.epoch, self.trainer.epochs, numbers["loss"], headline, seconds
        )

    def _headline(self, numbers: Mapping[str, float]) -> str:
        words = []
        for split in self.data.evaluation:
            name = f"{split}/{self.trainer.monitor}"
            words.append(f"{name} {numbers[name]:.4f}" + (" (best)" if split in self.new_best else ""))
        return "  ".join(words)

    def save(self) -> None:
        """Writes the model of every split with a new best, then last.pt.

        In this order, because a resumed run repeats what follows last.pt: killed in between, it finds the same best
        again and writes it again.
        """
        if not is_main():
            return
        for split in self.new_best:
            checkpoint.save(
                self.folder / f"best_on_{split}.pt", {"model": self.model.state_dict(), "epoch": self.epoch}
            )
        self.new_best = []
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "results": self.results,
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        checkpoint.save(self.last, state)

    def restore(self) -> None:
        """Goes back to last.pt and drops what the record holds beyond it."""
        state = checkpoint.load(self.last)
        checkpoint.restore(self.model, state["model"], self.last, "model")
        checkpoint.restore(self.loss, state["loss"], self.last, "loss")
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{self.last} was saved with another optimizer ({error})") from error
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.results = state["results"]
        self.tracker.rewind(self.step)
        log.info("resumed after epoch %d of %d", self.epoch, self.trainer.epochs)

    def pictures(self) -> None:
        """Asks the metrics for pictures of every evaluation split, and mirrors them."""
        if hasattr(self.metrics, "pictures") and is_main():
            folder = self.tracker.folder / "pictures"
            folder.mkdir(exist_ok=True)
            for split, loader in self.data.evaluation.items():
                for name, path in self.metrics.pictures(self.model, loader, folder, split).items():
                    self.tracker.image(f"{split}/{name}", Path(path), self.step)
