"""What is chosen for a run, and the loop: train an epoch, evaluate, keep the best and the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from harness.data.loading import Data
from harness.device import PRECISIONS, PRODUCTS, choose_device, half_precision
from harness.record.reproducibility import peak_memory, reset_peak_memory
from harness.train.evaluation import Evaluation, Metrics, Pictures
from harness.train.step import check_divisible
from harness.train.stopping import EarlyStopping
from harness.train.tracking import Tracker
from harness.train.training import Training, TrainingStoppedError

__all__ = ["Trainer", "TrainingStoppedError"]
log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Trains a model and evaluates it as it goes.

    Args:
        epochs: Passes over the training batches; 0 evaluates the model as it is.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        evaluate_first: Whether to evaluate before training, which shows what training adds.
        monitor: The metric by which the best epoch is chosen, for each evaluation split on its own.
        higher_is_better: Whether a larger `monitor` is better.
        precision: `fp32`, or `bf16` or `fp16` autocast (the latter with gradient scaling), in training.
        evaluation_precision: The same for the model's outputs in evaluations, which are ranked in float32 all the same;
            None is `fp32`.
        matmul: Of float32 products and convolutions in training, the loss left out: `highest` is float32, `high` TF32,
            `medium` bfloat16; None leaves torch's choice, which is float32 products and, on a GPU, TF32 convolutions.
        accumulate: Micro-batches per optimizer step, whose gradients are averaged. A ranking loss ranks inside one
            micro-batch, so this is more queries per step, not longer rankings.
        chunk: Samples of a batch that go through the model at once, or None for all. The whole batch is ranked, with
            the memory of one chunk and of the outputs, and a second forward pass.
        clip_norm: Largest gradient norm, or None.
        channels_last: Whether images and model use the channels-last memory format.
        compile: Whether to compile the model.
        device: `auto` takes a GPU when there is one, else Apple's.
        log_every: Steps between lines of metrics.jsonl; epochs always have theirs. In between nothing waits for a GPU,
            so a loss that is not finite ends the run at the next line.
        stopping: Ends training before the last epoch, or None.
        average: Decay of an exponential moving average of the weights, such as 0.999, or None. It is evaluated and
            saved beside the weights themselves, as `last_average` and, chosen by its own metrics,
            `best_on_<split>_average`. Stopping and searches go by the weights themselves.
        splits: The evaluation splits that are looked at; None: all. A search for settings leaves test out.
        pictures: Whether pictures are drawn at the end.
        profile: Whether the first steps show where their time goes: a table and a trace in `profile/` of the run
            folder. It changes no number.
        seed: What every epoch's draws derive from.

    Raises:
        ValueError: If a value is outside its range; shown.
    """

    epochs: int
    evaluate_every: int = 1
    evaluate_first: bool = True
    monitor: str = "recall@1"
    higher_is_better: bool = True
    precision: str = "fp32"
    evaluation_precision: str | None = None
    matmul: str | None = None
    accumulate: int = 1
    chunk: int | None = None
    clip_norm: float | None = None
    channels_last: bool = False
    compile: bool = False
    device: str = "auto"
    log_every: int = 10
    stopping: EarlyStopping | None = None
    average: float | None = None
    splits: Sequence[str] | None = None
    pictures: bool = True
    profile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"trainer.epochs must be at least 1, or 0 to evaluate only, got {self.epochs}")
        for name in ("evaluate_every", "accumulate", "log_every", "chunk"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"trainer.{name} must be at least 1, got {value}")
        named = {"precision": PRECISIONS, "evaluation_precision": [*PRECISIONS, None], "matmul": [*PRODUCTS, None]}
        for name, choices in named.items():
            if (value := getattr(self, name)) not in choices:
                listed = ", ".join("null" if choice is None else choice for choice in choices)
                raise ValueError(f"trainer.{name} must be one of {listed}, got {value!r}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"trainer.clip_norm must be positive or null, got {self.clip_norm}")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"trainer.average must lie in [0, 1), or be null, got {self.average}")
        self.chosen = choose_device(self.device)

    def evaluation(self, metrics: Metrics, data: Data) -> Evaluation:
        """What measures a model on every split, as this trainer was asked to; errors of `Evaluation`."""
        half = self.evaluation_precision
        context = None if half is None else partial(half_precision, self.chosen, half)
        return Evaluation(metrics, data.evaluation, self.monitor, self.higher_is_better, self.splits, context)

    def check(self, model: nn.Module, metrics: Metrics, data: Data) -> Evaluation:
        """Refuses what `fit` would, as far as it shows before anything is written; returns how `fit` will evaluate.

        Raises:
            ValueError: If the metrics do not give `monitor`, or declare it better the other way, a split is not there,
                or the model cannot be given a batch in parts.
        """
        evaluation = self.evaluation(metrics, data)
        if self.stopping is not None:
            self.stopping.check(evaluation.loaders)
        check_divisible(model, self.chunk, self.chosen)
        return evaluation

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
        pictures: Pictures | None = None,
    ) -> dict[str, Any]:
        """Trains to the last epoch and returns the results of the run.

        `model(batch)` gives whatever `loss(output, batch)` understands, which gives named scalars of which "loss" is
        minimised; `metrics(model, loader)` gives named floats. Batches are moved and never looked into. The folder of
        `tracker` receives the checkpoints; `resume` goes on from its last one.

        Returns:
            `last`: the metrics after the last epoch; `best_on_<split>`: the epoch that `monitor` prefers on a split,
            with the metrics of every split at that epoch; the same of the `average`; `seconds`, `peak_memory`.

        Raises:
            TrainingStoppedError: If the loss, the model's output or a weight is not finite.
            CheckpointError: If a checkpoint cannot be written or does not fit the run or its data.
            ValueError: As `check`.
        """
        reset_peak_memory(self.chosen)
        evaluation = self.check(model, metrics, data)
        if evaluation.undeclared:
            log.warning("%s", evaluation.undeclared)
        run = Training(self, model, loss, data, evaluation, optimizer, scheduler, tracker)
        if resume:
            run.restore()
        else:
            tracker.rewind(-1)  # a stage that was stopped before its first checkpoint may have left lines
            if self.evaluate_first or not self.epochs:
                run.evaluate("untrained")
            run.save()
        while run.epoch < self.epochs and not run.stops_early():
            started = time.perf_counter()
            numbers = run.train_epoch()
            if run.epoch % self.evaluate_every == 0 or run.epoch == self.epochs:
                numbers |= run.evaluate()
            run.finish_epoch(numbers, time.perf_counter() - started)
        evaluation.warn_of_no_number()
        if self.pictures and pictures is not None:
            evaluation.draw(pictures, model, tracker, run.step)
        return {**evaluation.results, "seconds": run.seconds, "peak_memory": peak_memory(self.chosen)}
