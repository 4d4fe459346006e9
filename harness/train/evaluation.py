"""Metrics of every evaluation split, which epoch is best on each, and pictures of what the model does."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import distributed
from harness.device import PRECISIONS, map_tensors
from harness.record import measures
from harness.train.tracking import Tracker

log = logging.getLogger(__name__)
Metrics = Callable[[nn.Module, Any], Mapping[str, float]]
Pictures = Callable[[nn.Module, Any, Path, str], Mapping[str, str | Path]]
"""Called with the model, a loader, a folder and the name of the split; returns {name: path of an image}."""


@contextmanager
def forward_in(model: nn.Module, context: Callable[[], AbstractContextManager[Any]] | None) -> Iterator[None]:
    """Inside, the model computes in `context`, and what is in half precision then is handed on in float32."""
    if context is None:
        yield
        return
    forward = model.forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with context():
            output = forward(*args, **kwargs)
        return map_tensors(output, lambda tensor: tensor.float() if tensor.dtype in PRECISIONS.values() else tensor)

    model.forward = wrapped
    try:
        yield
    finally:
        del model.forward


@dataclass
class Evaluation:
    """Evaluates a model on every split and remembers the best epoch of each; any number is better than nan.

    Raises:
        ValueError: If `metrics` declare that `monitor` is better the other way, or tell by `names()` that they do not
            give it, or there is no such split.
    """

    metrics: Metrics
    loaders: Mapping[str, Any]  # by split; of `splits`, if those are given
    monitor: str  # the metric by which the best epoch is chosen
    higher_is_better: bool
    splits: Sequence[str] | None = None
    context: Callable[[], AbstractContextManager[Any]] | None = None  # in which the model computes its outputs
    # `last` and `best_on_<split>` (and what a note named): the epoch and the metrics of every split.
    results: dict[str, Any] = field(default_factory=dict)
    new_best: list[str] = field(default_factory=list)  # the splits on which the last evaluation was the best so far
    history: dict[str, list[float]] = field(default_factory=dict)  # of the monitored metric after each epoch, by split
    undeclared: str | None = field(init=False)  # a sentence if the metrics do not say which way `monitor` is better
    weights: str = ""  # what stands after the names of splits and results where the weights are others: _average

    def __post_init__(self) -> None:
        if self.splits is not None:
            if not self.splits or not set(self.splits) <= self.loaders.keys():
                given, there = list(self.splits), ", ".join(self.loaders)
                raise ValueError(f"trainer.splits={given} must name some of the splits of the data: {there}")
            self.loaders = {split: self.loaders[split] for split in self.splits}
        given = list(self.metrics.names()) if hasattr(self.metrics, "names") else ["*"]
        if not any(fnmatch(self.monitor, pattern) for pattern in given):
            raise self._no_metric(next(iter(self.loaders), "any split"), given)
        self.undeclared = measures.direction(self.metrics, self.monitor, self.higher_is_better)

    def of_average(self) -> Evaluation:
        """One for the averaged weights, which has results of its own beside these, in the same record."""
        other = copy.copy(self)
        other.new_best, other.weights = [], "_average"
        return other

    def run(self, model: nn.Module, epoch: int, note: str = "") -> dict[str, float]:
        """The metrics of every split, named split/metric; those under a `note` are no candidate for the best.

        With averaged weights they are named split_average/metric, though in the results as the others are.
        """
        model.eval()
        numbers: dict[str, float] = {}
        for split, loader in self.loaders.items():
            with torch.no_grad(), forward_in(model, self.context):
                found = self.metrics(model, loader)
            if self.monitor not in found:
                raise self._no_metric(split, found)
            numbers |= {f"{split}/{name}": float(value) for name, value in found.items()}
        numbers = distributed.told_by_main(numbers)  # by them all decide which epoch is best, and when to stop
        result = self.results[f"last{self.weights}"] = {"epoch": epoch, "metrics": numbers}
        if note:
            self.results[note] = result
        else:
            self.new_best = []
            for split in self.loaders:
                name, known = f"{split}/{self.monitor}", f"{split}{self.weights}"
                best = self.results.get(f"best_on_{known}")
                self.history.setdefault(known, []).append(numbers[name])
                if best is None or measures.is_better(numbers[name], best["metrics"][name], self.higher_is_better):
                    self.results[f"best_on_{known}"] = result
                    self.new_best.append(known)
        return {name.replace("/", f"{self.weights}/", 1): value for name, value in numbers.items()}

    def _no_metric(self, split: str, there: Iterable[str]) -> ValueError:
        return ValueError(f"trainer.monitor={self.monitor} is no metric of {split}; there are {', '.join(there)}")

    def warn_of_no_number(self) -> None:
        """Says of which splits the best epoch means nothing, as the monitored metric was never a number."""
        for split, values in self.history.items():
            if values and not any(map(math.isfinite, values)):
                log.warning(
                    "%s/%s was not a number in any evaluation: best_on_%s is the first epoch, chosen by nothing",
                    split,
                    self.monitor,
                    split,
                )

    def headline(self, numbers: Mapping[str, float]) -> str:
        """The monitored metric of every split that `numbers` has, as the log shows it."""
        words = []
        for split in (f"{split}{self.weights}" for split in self.loaders):
            name = f"{split}/{self.monitor}"
            if name in numbers:
                best = split in self.new_best and math.isfinite(numbers[name])
                words.append(f"  {name} {numbers[name]:.4f}" + (" (best)" if best else ""))
        return "".join(words)

    def draw(self, pictures: Pictures, model: nn.Module, tracker: Tracker, step: int) -> None:
        """Asks for the pictures of every split, and mirrors them; the main process alone."""
        folder = tracker.folder / "pictures"
        for split, loader in self.loaders.items() if distributed.is_main() else []:
            try:
                folder.mkdir(exist_ok=True)
                with distributed.apart():
                    drawn = pictures(model, loader, folder, split)
                for name, path in drawn.items():
                    tracker.image(f"{split}/{name}", Path(path), step)
            except Exception as error:  # whatever goes wrong with a picture must not cost the report
                log.warning("no pictures of %s (%s: %s)", split, type(error).__name__, error)
        distributed.wait()
