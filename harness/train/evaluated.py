"""A trained model measured again: by another checkpoint, with other metrics, or on other data of its task.

The numbers go to a folder of their own. It has a report as a run has, which reports and comparisons read, and neither
config.yaml nor checkpoints: tables, `reuse` and `resume` never take it for the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from harness import seeds
from harness.record import allowed, measures, reproducibility, runs, schema
from harness.record.composition import changed, key_of
from harness.record.config import is_under
from harness.record.restored import draws_kept
from harness.record.standalone import Trained

FOLDER = "evaluations"  # in that of the run
OPEN = (
    "data", "metrics", "threads", "trainer.channels_last", "trainer.evaluation_precision", "trainer.splits",
)  # fmt: skip

SMALL = {"batch_size": 4, "samples_per_class": 2}  # of a sampler


def evaluate(
    run: Path,
    model: Trained,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    allow: Sequence[str] = (),
) -> tuple[Path, dict[str, Any]]:
    """Measures the `model` of a run as the run measures it, and writes the report; returns its folder and the report.

    Args:
        run: The folder of the run.
        model: Loaded from it.
        overrides: As of train.py, of what is `OPEN`: data=cub, data.root=/elsewhere, metrics.recall_at=[1].
        folder: Where to write; None: a new one in `evaluations` of the run.
        allow: As in `harness.record.load`.

    Raises:
        FileNotFoundError: If the run or the data are not there.
        FileExistsError: If there is a run or a report in `folder`.
        ValueError: If an override is none of evaluation, or the data are not what the model takes.
    """
    started, now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), datetime.now()
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override}: wanted KEY=VALUE, such as data.root=/elsewhere")
        if not is_under(key_of(override), OPEN):
            raise ValueError(f"{override} is of training; an evaluation takes {', '.join(OPEN)} and what is below them")
    was = runs.read_config(run)
    settings = _read_alike(changed(was, overrides), model.facts, overrides)
    device = next((parameter.device for parameter in model.network.parameters()), torch.device("cpu"))
    settings["trainer"] = {**settings["trainer"], "device": str(device)}
    allowed.check({noun: settings.get(noun) for noun in ("data", "metrics", "trainer")}, run / "config.yaml", allow)
    schema.check(OmegaConf.create(settings))
    checkpoint = model.facts["checkpoint"]
    folder = folder or run / FOLDER / f"{now:%Y-%m-%d_%H-%M-%S-%f}_{checkpoint}"
    runs.check_unused(folder)
    reproducibility.set_up(settings.get("threads"), settings.get("deterministic", True))
    reproducibility.reset_peak_memory(device)
    with draws_kept():
        seeds.seed_everything(settings["seed"], "initial weights")
        data, metrics, trainer = (instantiate(settings[n], _convert_="all") for n in ("data", "metrics", "trainer"))
    if hasattr(data, "as_trained"):
        data.as_trained(model.facts, settings["data"])
    if trainer.channels_last:
        model.network.to(memory_format=torch.channels_last)
    evaluation, since = trainer.evaluation(metrics, data), time.perf_counter()
    evaluation.run(model.network, model.facts["epoch"] or 0, "evaluated")
    results = {"last": evaluation.results["last"], "seconds": time.perf_counter() - since}
    record = runs.read_began(run) or runs.read_report(run)
    replaced = [key_of(override) for override in overrides]
    kept = [override for override in record["overrides"] if not is_under(key_of(override), replaced)]
    report = {
        **{key: record[key] for key in ("experiment", "seed")},
        "overrides": [*kept, *overrides, f"checkpoint={checkpoint}"],
        "started": started,
        "device": str(device),
        **reproducibility.provenance()[0],
        "data": data.describe(),
        "evaluated": {"run": str(run), "checkpoint": checkpoint, "trained_on": runs.data_of(run)},
        "config": settings,
        "measures": measures.record(metrics, results),
        "results": {**results, "peak_memory": reproducibility.peak_memory(device)},
    }
    runs.finish(folder, report)
    return folder, report


def _read_alike(config: Mapping[str, Any], facts: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """With other data, which bring settings of their own, pictures are still brought to the network as in the run.

    And batches of training, of which there is none, are made small, for data that could not fill those of the usual
    size.
    """
    keys, data = [key_of(override) for override in overrides], dict(config["data"])
    if "data" not in keys:
        return {**config}
    transform, sampler = (facts.get("reader") or {}).get("transform"), data.get("sampler")
    if transform and "test_transform" in data and not any(k.startswith("data.test_transform") for k in keys):
        data["test_transform"] = transform
    if isinstance(sampler, Mapping):
        data["sampler"] = {**sampler, **{key: value for key, value in SMALL.items() if key in sampler}}
    return {**config, "data": data}
