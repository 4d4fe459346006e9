"""What a search for settings goes by: a validation metric, never one of the test set."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from harness.train.stopping import worst

log = logging.getLogger(__name__)
SPLIT = "validation"


def check(objective: str | None, trainer: Mapping[str, Any], sweeper: Mapping[str, Any]) -> None:
    """Raises ValueError for an objective, such as validation/recall@1, that a search must not or cannot go by.

    `trainer` is its config; `sweeper` are Hydra's settings, of which only those of Optuna's have a `direction`.
    """
    wanted = f"{SPLIT}/{trainer['monitor']}"
    direction = sweeper.get("direction")
    if objective is None:
        if direction is not None:
            raise ValueError(f"a search by Optuna needs to know what to go by: objective={wanted}")
        return
    if objective.startswith("test/"):
        raise ValueError(
            f"objective={objective}: settings chosen by the test set would flatter what is then reported on it; "
            f"use objective={wanted}"
        )
    if objective != wanted:
        raise ValueError(
            f"objective={objective}: a search goes by the metric that selects the epoch, {wanted}; "
            "choose another by trainer.monitor and trainer.higher_is_better"
        )
    if SPLIT not in (splits := trainer.get("splits") or [SPLIT]):
        raise ValueError(f"objective={objective}: {SPLIT} is not evaluated; add it to trainer.splits={list(splits)}")
    better, right = ("higher", "maximize") if trainer["higher_is_better"] else ("lower", "minimize")
    given = getattr(direction, "name", direction)
    if given not in (None, right):
        raise ValueError(
            f"hydra.sweeper.direction={given}, but {objective} is better when {better}: hydra.sweeper.direction={right}"
        )


def check_split(objective: str | None, splits: Iterable[str], data: Mapping[str, Any]) -> None:
    """Refuses an objective whose split is not among `splits`; the config of the data tells how to get it."""
    if objective is None or SPLIT in splits:
        return
    if "validation_fraction" in data:
        way = "hold classes out: data.validation_fraction=0.2"
    elif "validation" in data:
        way = "name image sets in data.validation that data.train does not have"
    else:
        way = "use data that have one"
    raise ValueError(f"objective={objective}: these data have no {SPLIT} split; {way}")


class BeforeSweep(Callback):
    """Tells what is wrong with a search once and before its first job, as far as the config shows it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the command with one sentence if `check` refuses the search, or its data hold nothing out."""
        ways = [config.data.get(key) for key in ("validation_fraction", "validation", "validation_classes")]
        none_held_out = any(way is not None for way in ways) and not any(ways)
        try:
            check(config.objective, config.trainer, config.hydra.sweeper)
            check_split(config.objective, [] if none_held_out else [SPLIT], config.data)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None


def value(report: Mapping[str, Any], objective: str | None, higher_is_better: bool) -> float | None:
    """The objective of a finished run, at the epoch that it selects; None without an objective.

    Where it is not a number the run counts as one whose training came to nothing, so that the search turns away.
    """
    if objective is None:
        return None
    found = report["results"][f"best_on_{SPLIT}"]["metrics"][objective]
    if found is not None and math.isfinite(found):
        return float(found)
    log.warning("%s was not a number in any evaluation: the run counts as the worst", objective)
    return worst(higher_is_better)
