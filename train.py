"""Trains and evaluates one experiment: python train.py experiment=cub_rambo."""

from __future__ import annotations

from harness import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # the other imports take seconds

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from harness import checkpoint, distributed, seeds
from harness.data import pretrained
from harness.files import clear_unfinished, read_json
from harness.record import measures, repeat, reproducibility, reuse, runs, schema, stages, standalone
from harness.record.command_line import at_home, interrupted, refusal
from harness.record.config import resolved
from harness.record.faults import sentence, told
from harness.train import objective, stopping
from harness.train.optimization import build_optimizer, build_scheduler
from harness.train.trainer import TrainingStoppedError

log = logging.getLogger("train")
CONFIGS = Path(__file__).parent / "configs"
OmegaConf.register_new_resolver("home", os.path.expanduser, replace=True)
OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v), replace=True)


def train(config: DictConfig, folder: Path, name: str, overrides: list[str], data: Any = None) -> dict[str, Any]:
    """Builds the nouns, fits, and leaves a run folder; returns the report that was written to it.

    `name` of the experiment and `overrides` of the command line are for the record; `data` is what `prepared` just
    gave, if it was asked already.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    config = reuse.beginning(config, folder)
    data = prepared(config) if data is None else data
    if config.resume:
        checkpoint.check_data(runs.data_of(folder), data.describe().get("fingerprint"), folder)
    objective.check_split(config.objective, data.evaluation, config.data)
    begun = bool(config.resume) and checkpoint.is_there(folder / "checkpoints")
    model, loss = networks(config, data, begun)
    metrics, trainer = build(config.metrics), build(config.trainer)
    pictures = build(config.pictures) if trainer.pictures else None
    if config.first_stage:
        stages.check(model, config, data.evaluation)
    trainer.check(model, metrics, data)
    optimizer, scheduler = rates(config, model, loss, data, trainer)
    said = {"experiment": name, "overrides": overrides, "seed": config.seed, "started": started}
    said |= {"device": str(trainer.chosen), "processes": distributed.world()}
    new = not config.resume and distributed.is_main()
    with reuse.unused_unless_saved(folder) if new else nullcontext():
        record = begin(config, folder, data, model, said) if distributed.is_main() else {}
        distributed.wait()  # for the folder
        earlier = {}
        if config.first_stage:
            earlier = first_stage(config, folder, name, overrides, model, loss)
            optimizer, scheduler = rates(config, model, loss, data, trainer)  # of what is left to be trained
        tracker = complete(
            "tracking", build(config.tracking), folder=folder, config=resolved(config), name=f"{name}_seed{config.seed}"
        )
        log.info("%s, seed %s, on %s -> %s", name, config.seed, trainer.chosen, folder)
        try:
            results = trainer.fit(model, loss, data, metrics, optimizer, scheduler, tracker, begun, pictures)
            report = {"results": results}
            if distributed.is_main():
                report = reported(config, folder, record, loss, metrics, {**results, **earlier}, tracker.sum())
                last = partial(standalone.write, folder, report, "last")
                tracker.model(folder / standalone.FOLDER, results["last"]["epoch"], last)
                runs.finish(folder, report)
        except BaseException:
            tracker.close(exit_code=1)
            raise
        tracker.close()  # the run is whole already, for W&B may take its time
    distributed.wait()
    return report


def rates(config: DictConfig, model: Any, loss: Any, data: Any, trainer: Any) -> tuple[Any, Any]:
    """Optimizer and scheduler."""
    optimizer = complete("optimizer", build_optimizer, build(config.optimizer), model, loss)
    schedule = build(config.scheduler)
    return optimizer, complete("scheduler", build_scheduler, schedule, optimizer, data.train, trainer.accumulate)


def reported(
    config: DictConfig,
    folder: Path,
    record: dict[str, Any],
    loss: Any,
    metrics: Any,
    results: dict[str, Any],
    record_sum: str,
) -> dict[str, Any]:
    """The report, with which the trained model is completed; it is not written yet."""
    report = {
        **record,
        **runs.begun_otherwise(folder, record),
        "config": resolved(config),
        "loss": getattr(loss, "settings", {}),
        "sums": {runs.METRICS: record_sum},
        "measures": measures.record(metrics, results),
        "results": results,
    }
    standalone.finish(folder, report)
    return report


def attempt(config: DictConfig, folder: Path, data: Any, name: str, overrides: list[str]) -> dict[str, Any]:
    """`train`, which leaves on record if the training itself stopped, as for a loss that became nan."""
    try:
        return train(config, folder, name, overrides, data)
    except TrainingStoppedError as error:
        if distributed.is_main():
            runs.stop(folder, sentence(error))
        raise


def lead(config: DictConfig, folder: Path, make: reuse.Train) -> dict[str, Any]:
    """`reuse.once` in the main process, which tells the others what is to be made, or that nothing is."""
    told = []

    def make_together(config: DictConfig, folder: Path, data: Any) -> dict[str, Any]:
        told.append(distributed.told_by_main((config, folder, data is not None)))
        return make(config, folder, data)

    try:
        report = reuse.once(config, folder, prepared, make_together)
    except reuse.InUseError:
        distributed.told_by_main(None)
        raise
    if not told:
        distributed.told_by_main(None)
    return report


def follow(config: DictConfig, make: reuse.Train) -> dict[str, Any] | None:
    """Beside the main process: makes what it makes; None if that is nothing."""
    data = prepared(config) if config.reuse and not config.resume else None
    told: Any = distributed.told_by_main(None)
    if told is None:
        return None
    config, folder, with_data = told
    return make(config, folder, data if with_data else None)


def prepared(config: DictConfig) -> Any:
    """Checks the config, seeds this process, builds the data; the model is built next, from the draws that follow."""
    schema.check(config)
    reproducibility.set_up(config.threads, config.deterministic)
    seeds.seed_everything(config.seed, "initial weights")
    with distributed.main_first():  # what it downloads or writes is there for the others
        return build(config.data)


def networks(config: DictConfig, data: Any, begun: bool) -> tuple[Any, Any]:
    """Model and loss, with the weights that they start from, unless their training has `begun`."""
    model_config, start = pretrained.own_start(config.model)
    with distributed.main_first():
        model, loss = build(model_config), build(config.loss)
    for part in (model, loss):
        if hasattr(part, "prepare"):
            part.prepare(data)
    if start is not None and not begun:
        pretrained.start_from(model, start)
    return model, loss


def begin(config: DictConfig, folder: Path, data: Any, model: Any, said: dict[str, Any]) -> dict[str, Any]:
    """Writes down what the run is, or has become where it goes on, and returns it: what is `said`, code and data."""
    surroundings, changes = reproducibility.provenance()
    settings = resolved(config)
    clear_unfinished(folder, *(folder / name for name in runs.LEFT))
    downloads = list(getattr(data, "downloads", ()))
    record = {**said, **surroundings, "data": data.describe(), "downloads": downloads}
    record["command"] = repeat.command(record, settings)
    if config.resume:  # what it began with stays on record
        runs.go_on(folder, settings, record)
    else:
        runs.begin(folder, settings, record, changes)
    standalone.begin(folder, settings, data, model, record)
    return record


def first_stage(
    config: DictConfig, folder: Path, name: str, overrides: list[str], model: Any, loss: Any
) -> dict[str, Any]:
    """Trains what comes first, or goes on with it, or finds it done; the model takes it over. Returns its results."""
    below = folder / stages.FOLDER
    if not (below / "DONE").exists():
        first = stages.first_stage(config, below)
        train(first, below, f"{name}_first_stage", overrides)
    selected = config.first_stage.checkpoint
    stages.take_over(model, below / "checkpoints" / f"{selected}.pt", config.first_stage.retrain)
    if hasattr(loss, "second_stage"):
        loss.second_stage()
    results: dict[str, Any] = read_json(below / "report.json")["results"]
    untrained = {"untrained": results["untrained"]} if "untrained" in results else {}
    return {"first_stage": results[selected], **untrained}


def build(config: DictConfig) -> Any:
    """Instantiates one noun; lists and dicts inside arrive as plain Python ones."""
    return instantiate(config, _convert_="all")


def complete(noun: str, started: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Completes a partial noun; a setting that it does not take is bad input, not a bug."""
    try:
        return started(*arguments, **named)
    except TypeError as error:
        raise ValueError(f"{noun}: {error}") from error


@hydra.main(config_path="configs", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Runs what the command line composed, with all processes that were started for it."""
    at_home(config)
    interrupts.answer()
    try:
        with distributed.together():
            return answered(config)
    except ConnectionError as error:
        raise SystemExit(f"error: {error}") from None


def answered(config: DictConfig) -> float | None:
    """Makes the run, and turns bad input into one sentence; returns the objective of a search."""
    chosen = HydraConfig.get()
    name = str(chosen.runtime.choices["experiment"])
    own = Path(chosen.runtime.output_dir)
    folder = Path(distributed.told_by_main(config.resume or own))
    if not distributed.is_main():  # the main process alone writes the folder, and says how it goes
        if own != folder:
            reuse.discard(own)
        logging.getLogger().handlers = [logging.NullHandler()]
    overrides = [o for o in chosen.overrides.task if not o.startswith(("resume=", "experiment="))]
    swept = chosen.mode == RunMode.MULTIRUN
    try:
        objective.check(config.objective, config.trainer, chosen.sweeper if swept else {})
        make = partial(attempt, name=name, overrides=overrides)
        report = lead(config, folder, make) if distributed.is_main() else follow(config, make)
        interrupts.raise_lost()
        return None if report is None else objective.value(report, config.objective, config.trainer.higher_is_better)
    except (Exception, KeyboardInterrupt) as error:
        if distributed.world() > 1:  # torchrun ends all with the first, and would cut the sentence off
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if interrupts.is_interrupt(error):
            if swept:  # told once for all jobs
                raise KeyboardInterrupt from None
            interrupts.hear_no_more()
            if distributed.tells():
                print(interrupted(folder=folder), flush=True)
            raise SystemExit(interrupts.exit_status(error)) from None
        if distributed.others_are_gone(error):
            way = interrupted(folder=folder)
            raise ended(f"error: another process of this run has ended or does not answer{way}") from None
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        said = told(error)
        if not swept:
            raise ended(f"error: {said}") from None
        if isinstance(error, reuse.InUseError):
            log.warning("left alone: %s", error)
            return None
        log.error("%s: %s", " ".join(chosen.overrides.task), said)
        if config.objective and isinstance(error, TrainingStoppedError):
            return stopping.worst(config.trainer.higher_is_better)
        raise CompactHydraException(said) from None  # Hydra goes on with the other jobs and fails at the end


def ended(said: str) -> SystemExit:
    """The end of this process; of several one tells why, and at once, for torchrun ends all with the first."""
    if distributed.world() == 1:
        return SystemExit(said)
    if distributed.tells():
        print(said, file=sys.stderr, flush=True)
    return SystemExit(1)


if __name__ == "__main__":
    if (answer := refusal(sys.argv[1:], CONFIGS)) is not None:
        if not {"--help", "-h"} & set(sys.argv[1:]):
            raise SystemExit(answer if distributed.is_first_started() else 1)
        print(answer)
        raise SystemExit(0)
    interrupts.answer()
    try:
        main()
    except KeyboardInterrupt as error:
        interrupts.hear_no_more()
        print(interrupted(sys.argv[1:]))
        raise SystemExit(interrupts.exit_status(error)) from None
    interrupts.hear_no_more()  # it is over
