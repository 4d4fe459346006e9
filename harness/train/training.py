"""A training in progress: steps, epochs, checkpoints, and going on from there.

Optional hooks: `parameter_groups()` and `end_of_epoch(model, data, epoch)` of model and loss, and of the loss
`start_of_epoch(share)`, with the share of training that lies behind, 0 to 1. The last two may return numbers to log.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import Progress
from torch import nn

from harness import checkpoint, distributed
from harness.data.loading import Batch, Data
from harness.device import half_precision, to_device
from harness.train.average import Average
from harness.train.evaluation import Evaluation
from harness.train.optimization import rates
from harness.train.profiling import Profile, part_of_step
from harness.train.step import NotFiniteError, Step, divisible
from harness.train.tracking import Means, Tracker, Unread

if TYPE_CHECKING:
    from harness.train.trainer import Trainer

log = logging.getLogger(__name__)


class TrainingStoppedError(RuntimeError):
    """Training cannot go on; the message says why and which checkpoint is good."""


@dataclass
class Training:
    """A training in progress: what `Trainer.fit` was given, and everything that changes."""

    trainer: Trainer
    model: nn.Module
    loss: nn.Module
    data: Data
    evaluation: Evaluation
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    tracker: Tracker
    epoch: int = 0
    step: int = 0
    gathered: int = 0  # micro-batches since the last step
    seconds: float = 0.0

    def __post_init__(self) -> None:
        trainer = self.trainer
        self.model.to(trainer.chosen)
        self.loss.to(trainer.chosen)
        if trainer.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.model = divisible(self.model, trainer.chunk, trainer.chosen)
        forward: Callable[[Batch], Any] = torch.compile(self.model) if trainer.compile else self.model
        self.scaler = torch.amp.GradScaler(trainer.chosen.type, enabled=trainer.precision == "fp16")
        autocast = partial(half_precision, trainer.chosen, trainer.precision)
        self.backward = Step(forward, self.loss, autocast, self.scaler, trainer.chunk, trainer.matmul)
        watched = trainer.profile and distributed.is_main()
        self.profile = Profile(self.tracker.folder / "profile", trainer.chosen) if watched else None
        self.by_step = getattr(self.scheduler, "interval", "epoch") == "step"
        self.unread, self.means = Unread(), Means()
        self.folder = self.tracker.folder / "checkpoints"
        self.last, self.last_is_sound = self.folder / checkpoint.LAST, True
        names = ("model", "loss", "optimizer", "scheduler", "scaler")  # what a checkpoint holds besides numbers
        self.parts: dict[str, Any] = {name: getattr(self, name) for name in names}
        self.evaluated = [(self.evaluation, self.model)]
        self.average = None if trainer.average is None else Average(self.model, trainer.average)
        if self.average is not None:
            self.parts["average"] = self.average
            self.evaluated.append((self.evaluation.of_average(), self.average.model))

    def stops_early(self) -> bool:
        """Whether `trainer.stopping` ends the run here."""
        stopping, evaluation = self.trainer.stopping, self.evaluation
        if stopping is None or not stopping.reached(evaluation.history, evaluation.higher_is_better):
            return False
        log.info("stopped after epoch %d by trainer.stopping (%s)", self.epoch, stopping.rule)
        return True

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training batches; returns the means of what the loss names, and the learning rates."""
        trainer, since = self.trainer, time.perf_counter()
        self.backward.seed(trainer.chosen, trainer.seed, self.epoch)
        if hasattr(self.data.train, "set_epoch"):
            self.data.train.set_epoch(self.epoch)
        self.model.train()
        self.loss.train()
        begin: Callable[[float], dict[str, float]] | None = getattr(self.loss, "start_of_epoch", None)
        told = begin(self.epoch / max(1, trainer.epochs - 1)) if begin is not None else {}
        self.means, micro_batches = Means(), 0
        batches, self.profile = self.data.train if self.profile is None else self.profile.watch(self.data.train), None
        with Progress(disable=not (sys.stdout.isatty() and distributed.is_main()), transient=True) as bar:
            for batch in bar.track(batches, description=f"epoch {self.epoch + 1}/{trainer.epochs}"):
                step = self.step + 1
                numbers = self._backward(to_device(batch, trainer.chosen, trainer.channels_last))
                micro_batches += 1
                if self.gathered == trainer.accumulate:
                    numbers |= self._one_step()
                self.unread.add(step, numbers)
                if micro_batches % (trainer.accumulate * trainer.log_every) == 0:
                    self.tracker.log({f"step/{name}": value for name, value in self._read().items()}, self.step)
        if micro_batches == 0:
            raise TrainingStoppedError("the training set gave no batch; use a smaller batch or more images")
        if self.gathered:
            self.unread.add(self.step + 1, self._one_step())
        self._read()
        self._check_weights()
        self.epoch += 1
        if not self.by_step:
            told |= rates(self.optimizer)
            self.scheduler.step()
        for module in (self.model, self.loss):
            hook: Callable[..., dict[str, float] | None] | None = getattr(module, "end_of_epoch", None)
            if hook is not None:
                told |= hook(self.model, self.data, self.epoch) or {}
        if self.average is not None:
            self.average.finish_epoch()
        return self.means.values() | told | {"seconds/train": time.perf_counter() - since}

    def _backward(self, batch: Batch) -> dict[str, Any]:
        """Adds the gradient of one micro-batch to those gathered, and returns what the loss names."""
        try:
            named = self.backward(batch, self.trainer.accumulate)
        except Exception as error:
            self._read()  # an earlier loss that was not finite is the reason
            if isinstance(error, NotFiniteError):
                raise self._stopped("the model's output became non-finite", self.step + 1) from error
            raise
        self.gathered += 1
        return dict(named)

    def _read(self) -> dict[str, float]:
        """Counts what the steps since the last read have named, and returns the last of it.

        Nothing else in a step waits for the device, so a loss that is not finite is found here.
        """
        numbers: dict[str, float] = {}
        for step, numbers in self.unread.read():
            if not math.isfinite(numbers.get("loss", 0.0)):
                raise self._stopped(f"the loss became {numbers['loss']}", step)
            if not math.isfinite(numbers.get("gradient_norm", 0.0)):  # fp16 overflowed and the scaler skipped the step
                del numbers["gradient_norm"]
            self.means.add(numbers)
        return numbers

    def _one_step(self) -> dict[str, Any]:
        """`_update`, and what goes on with every step; with the learning rates of the step where they change by it."""
        numbers = self._update()
        if self.by_step:
            numbers |= rates(self.optimizer)
            self.scheduler.step()
        if self.average is not None:
            self.average.update(self.step)
        return numbers

    @part_of_step("optimizer")
    def _update(self) -> dict[str, Any]:
        """One step along the mean gradient of the micro-batches gathered since the last; its norm if it is clipped."""
        # Each of their losses was divided by `accumulate`, and an epoch's last group may be smaller.
        scale, self.gathered = self.trainer.accumulate / self.gathered, 0
        self.step += 1
        numbers: dict[str, Any] = {}
        distributed.add_up_gradients(p for p in self.model.parameters() if p.requires_grad)
        distributed.agree(p.grad for p in self.loss.parameters() if p.grad is not None)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:  # no batch had anything to learn from; a scaler that has scaled nothing could not go on
            return numbers
        self.scaler.unscale_(self.optimizer)
        if scale != 1:
            for parameter in parameters:
                parameter.grad.mul_(scale)
        if self.trainer.clip_norm is not None:
            numbers["gradient_norm"] = nn.utils.clip_grad_norm_(parameters, self.trainer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return numbers

    def _check_weights(self) -> None:
        """Stops before broken weights are evaluated or saved over good ones; the next loss would show them too late."""
        parts = {"model": self.model, "loss": self.loss}
        named = {f"{name} of the {part}": p for part, module in parts.items() for name, p in module.named_parameters()}
        finite = torch.stack([parameter.isfinite().all() for parameter in named.values()]).tolist()
        for name, fine in zip(named, finite, strict=True):
            if not fine:
                raise self._stopped(f"{name} became non-finite", self.step)

    def _stopped(self, what: str, step: int) -> TrainingStoppedError:
        return TrainingStoppedError(
            f"{what} in epoch {self.epoch + 1}, step {step}; {self.last} holds the end of epoch {self.epoch}; "
            "try a lower optimizer.lr, trainer.clip_norm=1 or trainer.precision=fp32"
        )

    def evaluate(self, note: str = "") -> dict[str, float]:
        """The metrics of every split; those under a `note` get a line of their own and cannot be the best."""
        since = time.perf_counter()
        numbers: dict[str, float] = {}
        for evaluation, model in self.evaluated[: 1 if note else None]:
            numbers |= evaluation.run(model, self.epoch, note)
        if note:
            self.tracker.log({"epoch": self.epoch, **numbers}, self.step)
            log.info("%s%s", note, self.evaluation.headline(numbers))
        return numbers | {"seconds/evaluation": time.perf_counter() - since}

    def finish_epoch(self, numbers: dict[str, float], seconds: float) -> None:
        """Logs the epoch and saves it."""
        self.seconds += seconds
        self.tracker.log({"epoch": self.epoch, **numbers}, self.step)
        of = self.trainer.epochs
        headline = "".join(evaluation.headline(numbers) for evaluation, _ in self.evaluated)
        self.save()
        log.info("epoch %d/%d  loss %.4f%s  %.0f s", self.epoch, of, numbers["loss"], headline, seconds)

    def save(self) -> None:
        """Writes the model of every split with a new best, the averaged one if there is one, then last.pt.

        In this order, because a resumed run repeats what follows last.pt: killed in between, it finds the same best
        again and writes it again. So it does if it goes on from previous.pt, which is what last.pt was before.
        """
        if not distributed.is_main():
            return
        for evaluation, model in self.evaluated:
            of_now = {"model": model.state_dict(), "epoch": self.epoch}
            for split in evaluation.new_best:
                checkpoint.save(self.folder / f"best_on_{split}.pt", of_now)
            evaluation.new_best = []
            if evaluation is not self.evaluation:
                checkpoint.save(self.folder / f"last{evaluation.weights}.pt", of_now)
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "results": self.evaluation.results,
            "history": self.evaluation.history,
            "fingerprint": self.data.describe().get("fingerprint"),
            "record": self.tracker.sum(),
        }
        self.tracker.sync()  # so that the record is never behind the checkpoint, whatever happens to the machine
        kept = self.folder / checkpoint.PREVIOUS if self.last_is_sound else None
        checkpoint.save(self.last, state | {what: part.state_dict() for what, part in self.parts.items()}, kept)
        self.last_is_sound = True

    def restore(self) -> None:
        """Goes back to last.pt, or to previous.pt if that is damaged, and drops what the record holds beyond it.

        A CheckpointError names a best model that is damaged, a ValueError the record if it is.
        """
        path, state, fault = checkpoint.newest(self.folder)
        if fault is not None:
            wrong = str(fault).removesuffix(checkpoint.WAY_OUT)
            log.warning("%s; goes on from %s, the end of epoch %d", wrong, path.name, state["epoch"])
            self.last_is_sound = False
        for best in sorted(self.folder.glob("best_on_*.pt")):  # needed at the end, and not made again
            checkpoint.check(best)
        checkpoint.check_data(state.get("fingerprint"), self.data.describe().get("fingerprint"), path)
        for what, part in self.parts.items():
            checkpoint.restore(part, state[what], path, what)
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.evaluation.results.update(state["results"])
        self.evaluation.history.update(state.get("history", {}))
        self.tracker.rewind(self.step, state.get("record"))
        log.info("resumed after epoch %d of %d", self.epoch, self.trainer.epochs)
