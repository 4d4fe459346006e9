"""A run is its folder: what may begin or go on there, what is written into it, and reading it back."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from harness import checkpoint
from harness.data.pretrained import key_of_weights
from harness.files import read_json, sum_of, sync, write_json, write_record, write_text, write_whole
from harness.record import stages
from harness.record.config import FREE_ONCE_FINISHED, FREE_TO_CHANGE, changes, differences, resolved, shaping
from harness.yaml_text import from_yaml

logger = logging.getLogger(__name__)

STAND_IN = "Stand-in data: these numbers mean nothing."  # above whatever shows them
BEGAN = "began.json"  # in a run folder: the run's record as far as it is known when it begins
STOPPED = "stopped.json"  # beside it: why training stopped by itself, as for a loss that became nan
PATCH = "uncommitted.patch"  # beside it: what the code had that its revision has not
METRICS = "metrics.jsonl"  # beside it: every number, see harness.train.tracking
LARGEST_PATCH = 2**20
_SUM = "# sha256 of the lines below: "  # the first line of config.yaml
MODEL = "model"  # beside it: a folder with the model alone, see harness.record.standalone
# What a run may leave in its folder; what Hydra makes before it begins (train.log) is not among it.
LEFT = (
    "config.yaml", BEGAN, STOPPED, PATCH, MODEL, METRICS, "checkpoints", "pictures", "profile",
    "report.json", "DONE", stages.FOLDER,
)  # fmt: skip
MIRRORED = ("wandb_id.txt", "wandb", "tensorboard")  # what mirrors of its numbers leave there
# Folders of a run, and of Hydra, below which no other run is.
APART = (".hydra", "checkpoints", "pictures", "profile", MODEL, stages.FOLDER)
SHOWN_PACKAGES = ("torch", "pytorch-metric-learning")  # of those in a report, the ones that a page names
SURROUNDINGS = ("code", "python", "packages", "hardware", "device", "processes")  # what a resumed run may find changed


def begin(folder: Path, config: dict[str, Any], record: Mapping[str, Any] | None = None, patch: bytes = b"") -> None:
    """Writes config.yaml, what the run was asked for with everything resolved, and what it began with.

    The `record` of command, code, packages and hardware is for began.json: an unfinished run can then be repeated, too.
    The `patch` of uncommitted changes is for uncommitted.patch, and left out beyond `LARGEST_PATCH`.
    """
    write_config(folder, config)
    if record is not None:
        write_record(folder / BEGAN, record)
    if 0 < len(patch) <= LARGEST_PATCH:
        write_whole(folder / PATCH, lambda file: file.write(patch))


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes config.yaml, which always says what the run in `folder` is, whatever it was when it began."""
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    write_text(folder / "config.yaml", f"{_SUM}{sum_of(text)}\n{text}")


def saved(folder: Path) -> bool:
    """Whether a run, or its first stage, has a checkpoint from which it can go on."""
    return any(checkpoint.is_there(stage / "checkpoints") for stage in (folder, folder / stages.FOLDER))


def nothing_came_of(folder: Path) -> bool:
    """Whether there is at most the beginning of a run, as a kill before its first checkpoint leaves it.

    That is no checkpoint, no report, no trained model, and no number of a training step; in its first stage neither.
    What is called as something of a run, where no run wrote its config, is somebody's own, and not nothing.
    """
    if any((folder / name).exists() for name in LEFT) and not _began_here(folder):
        return False
    later = ("DONE", "report.json", STOPPED, "pictures", "profile", f"{MODEL}/model.safetensors")
    if any((folder / name).exists() for name in later) or any((folder / "checkpoints").glob("*.pt")):
        return False
    if (folder / METRICS).exists():
        lines = (folder / METRICS).read_bytes().split(b"\n")[:-1]  # what follows the last end of a line was cut off
        if not all(line.startswith(b'{"step": 0,') for line in lines):
            return False
    below = folder / stages.FOLDER
    return not below.is_dir() or nothing_came_of(below)


def _began_here(folder: Path) -> bool:
    """Whether `begin` wrote the config.yaml in `folder`; that of earlier versions has began.json beside it alone."""
    config = folder / "config.yaml"
    return config.is_file() and ((folder / BEGAN).is_file() or config.read_bytes().startswith(_SUM.encode()))


def check_unused(folder: Path) -> None:
    """Refuses a folder that holds a run, so that no two are ever mixed.

    Raises:
        FileExistsError: With the way out.
    """
    if not any((folder / name).exists() for name in LEFT):
        return
    resumable = not (folder / "DONE").exists() and saved(folder)
    go_on = f"go on with it (resume={folder}), choose another folder, or" if resumable else "choose another folder or"
    raise FileExistsError(
        f"{folder} holds a run already, and a second one there would mix the two; {go_on} leave hydra.run.dir out, "
        "which gives every run its own"
    )


def check_resumed(folder: Path, config: DictConfig) -> None:
    """Refuses to go on with a run under a composed config that is not its own, before anything is built or written.

    It may go on for more epochs, also when it is finished, though not for fewer than it has, and none of its stages may
    be finished with others.

    Raises:
        FileNotFoundError: If `folder` holds no run.
        FileExistsError: If the run is finished, and no more epochs are asked for.
        ValueError: If a value that shapes the numbers differs; the first few are named.
        CheckpointError: If its checkpoint cannot be read.
    """
    checkpoints, finished = folder / "checkpoints", (folder / "DONE").exists()
    there = checkpoint.is_there(checkpoints)
    if finished and (not there or config.trainer.epochs <= read_config(folder)["trainer"]["epochs"]):
        key = key_of_weights(config.get("model") or {})
        way = f", or go on from its weights in a new run: {key}={folder} instead of resume" if key else ""
        raise FileExistsError(
            f"resume={folder}: that run is finished; give more trainer.epochs to go on with it"
            f"{'' if there else f' (which takes {checkpoints / checkpoint.LAST})'}{way}"
        )
    check_config(folder, resolved(config))
    done = checkpoint.newest(checkpoints, mapped=True).state["epoch"] if there else 0
    if done > config.trainer.epochs:
        raise ValueError(
            f"resume={folder}: trainer.epochs={config.trainer.epochs}, but {done} epochs are trained already; give at "
            f"least {done}, or start a new run"
        )
    below = folder / stages.FOLDER
    if config.first_stage and (below / "DONE").exists():
        check_config(below, resolved(stages.first_stage(config, below)), FREE_ONCE_FINISHED)


def check_config(folder: Path, config: Mapping[str, Any], free: Iterable[str] = FREE_TO_CHANGE) -> None:
    """Refuses a resolved config in which another key than those that are `free` differs from the run in `folder`.

    Raises:
        ValueError: If a value that shapes the numbers differs; the first few are named.
    """
    own = read_config(folder)
    was, now = shaping(own, free), shaping(config, free)
    told = changes(was, now)
    if not told:
        return
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    epochs = tuple(shaping(one, ()).get("trainer.epochs") for one in (own, config))
    follow = [key for key, values in differences(was, now).items() if values == epochs]  # as a cosine's length does
    key = key_of_weights(config.get("model") or {})
    tied = (
        f"; {', '.join(follow)} follows trainer.epochs here: keep trainer.epochs={epochs[0]} or start a new run"
        f"{f', from these weights by {key}={folder}' if key else ''}"
    )
    raise ValueError(
        f"resume={folder} was run with another config: {'; '.join(told[:3])}{more}{tied if follow else ''}"
    )


def go_on(folder: Path, config: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Makes the folder of a run that passed `check_resumed` say what it has become, and that it is not finished.

    Of what it began with, the resolved config and, from `record`, overrides and command are replaced.
    """
    (folder / "DONE").unlink(missing_ok=True)
    write_config(folder, config)
    if began := read_began(folder):
        write_record(folder / BEGAN, began | {key: record[key] for key in ("overrides", "command")})
    (folder / "report.json").unlink(missing_ok=True)  # it was cut off, or is of fewer epochs


def begun_otherwise(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Which settings of code, packages and hardware changed since the run in `folder` began, as {"began": {...}}."""
    began = read_began(folder)
    changed = {key: began[key] for key in SURROUNDINGS if key in began and began[key] != record.get(key)}
    return {"began": changed} if changed else {}


def finish(folder: Path, report: dict[str, Any]) -> None:
    """Writes report.json, and once all of the run is on the disk the empty file DONE, which says that it is whole."""
    write_record(folder / "report.json", report)
    (folder / STOPPED).unlink(missing_ok=True)
    sync(*folder.rglob("*"), folder, *folder.absolute().parents[:3])  # in outputs/<experiment>/seed<k>
    write_text(folder / "DONE", "")


def stop(folder: Path, reason: str) -> None:
    """Writes stopped.json: the training itself came to nothing; missing data or memory would not be its fault."""
    if folder.is_dir():
        write_json(folder / STOPPED, {"reason": reason})


def why_stopped(folder: Path) -> str:
    """What `stop` was told, with files as seen from the current folder, where they are below it.

    Raises:
        ValueError: If the record is truncated; with its name.
    """
    record = read_json(folder / STOPPED)
    reason = record.get("reason") if isinstance(record, dict) else None
    if not isinstance(reason, str):
        raise ValueError(f"{folder / STOPPED} gives no reason; delete that run folder")
    return reason.replace(f"{Path.cwd()}/", "")


def data_of(folder: Path) -> str | None:
    """The fingerprint of the data of the run in `folder`; None if it is not on record.

    Raises:
        ValueError: If its record cannot be read.
    """
    report = folder / "report.json"  # runs of earlier versions have it there alone
    for record in (read_began(folder), read_json(report) if report.is_file() else {}):
        data = (record.get("data") or {}) if isinstance(record, dict) else None
        if not isinstance(data, dict):
            raise ValueError(f"{folder} has no record of its data as a run writes it; delete that run folder")
        if data.get("fingerprint"):
            return str(data["fingerprint"])
    return None


def folders(outputs: Path) -> list[Path]:
    """The folders of all runs at or below `outputs`; a first stage belongs to its run and is left out."""
    found = []
    for at, below, files in os.walk(outputs):
        below[:] = [name for name in below if name not in APART]
        if "config.yaml" in files:
            found.append(Path(at))
    return sorted(found)


def made_of(reports: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The revisions, packages and processors behind reports, each combination once: a line for a page of numbers."""
    found: dict[str, None] = {}
    for report in reports:
        code, packages = report.get("code") or {}, report.get("packages") or {}
        revision = f"revision {code['revision'][:7]}" if code else "no revision known"
        changed = " with uncommitted changes" if code.get("dirty") else ""
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if name in SHOWN_PACKAGES)
        processor = (report.get("hardware") or {}).get("processor", "")
        found["; ".join(part for part in (revision + changed, versions, processor) if part)] = None
    return tuple(found)


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of the run in `folder`.

    Raises:
        FileNotFoundError: If `folder` is no run; one below it is named if there is any.
        ValueError: If it is no YAML, or no mapping; with its name.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        below = folders(folder)
        way = f"below it are {len(below)}, such as {below[0]}" if below else "one is outputs/<experiment>/seed0/<time>"
        raise FileNotFoundError(f"{folder} is no run folder (config.yaml is missing); {way}")
    try:
        text = path.read_text(encoding="utf-8")
        first, _, rest = text.partition("\n")
        if first.startswith(_SUM) and sum_of(rest) != first.removeprefix(_SUM):
            raise ValueError("it is not what was written there; if you changed it yourself, remove its first line")
        config = from_yaml(text)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete that run folder") from error
    if not isinstance(config, dict) or not config:
        raise ValueError(f"{path} holds no settings: it is not what a run writes; delete that folder")
    return cast(dict[str, Any], config)


def read_began(folder: Path) -> dict[str, Any]:
    """What the run in `folder` wrote down when it began; empty if it did not.

    Raises:
        ValueError: If it is truncated or something else; with its name.
    """
    record = read_json(folder / BEGAN) if (folder / BEGAN).is_file() else {}
    if not isinstance(record, dict):
        raise ValueError(f"{folder / BEGAN} is not what a run writes; delete that run folder")
    return record


def read_report(folder: Path) -> dict[str, Any]:
    """The report of the finished run in `folder`.

    Raises:
        ValueError: If it is missing, truncated or something else; with its name.
    """
    path = folder / "report.json"
    if not path.is_file():
        raise ValueError(f"{folder} is marked as finished but has no report.json; delete that run folder")
    report = read_json(path)
    if isinstance(report, dict) and all(isinstance(report.get(key), dict) for key in ("config", "data", "results")):
        return report
    raise ValueError(f"{path} is no report of a run; delete that run folder or repeat the run")


def read_metrics(folder: Path) -> bytes:
    """What metrics.jsonl of the run in `folder` holds.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If the run is finished and it is not what the run wrote, as far as its report knows.
    """
    report, content = folder / "report.json", (folder / METRICS).read_bytes()
    known = (read_json(report).get("sums") or {}).get(METRICS) if report.is_file() else None
    if known is not None and hashlib.sha256(content).hexdigest() != known:
        raise ValueError(f"{folder / METRICS} is damaged: it is not what the run wrote; take a copy from elsewhere")
    return content


def metrics_of(report: Mapping[str, Any], selection: str) -> dict[str, float | None] | None:
    """The metrics at the epoch that `selection` names, None where one was not finite; None if it names no result."""
    result = report["results"].get(selection)
    metrics = result.get("metrics") if isinstance(result, dict) else None
    return metrics if isinstance(metrics, dict) else None
