"""One folder, one run: what may begin there, what may go on there, and that the folder says what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from harness import checkpoint
from harness.files import read_json, write_json
from harness.record import runs, stages
from harness.record.config import FREE_ONCE_FINISHED, FREE_TO_CHANGE, changes, differences, flat, shaping

# What a run may leave in its folder; what Hydra makes before it begins (train.log) is not among it.
LEFT = (
    "config.yaml", runs.BEGAN, runs.STOPPED, runs.PATCH, "metrics.jsonl", "checkpoints", "pictures",
    "report.json", "DONE", stages.FOLDER,
)  # fmt: skip


def check_unused(folder: Path) -> None:
    """Refuses a folder that holds a run, so that no two are ever mixed.

    Raises:
        FileExistsError: With the way out.
    """
    if not any((folder / name).exists() for name in LEFT):
        return
    go_on = (
        "" if (folder / "DONE").exists() or not any(folder.rglob("last.pt")) else f"go on with it (resume={folder}), "
    )
    raise FileExistsError(
        f"{folder} holds a run already, and a second one there would mix the two; {go_on}choose another folder"
        f"{', ' if go_on else ' '}or leave hydra.run.dir out, which gives every run its own"
    )


def check(folder: Path, config: DictConfig) -> None:
    """Refuses to go on with a run under a config that is not its own, before anything is built or written.

    It may go on for more epochs, though not for fewer than it has, and none of its stages may be finished with others.

    Args:
        folder: The run folder.
        config: Composed.

    Raises:
        FileNotFoundError: If `folder` holds no run.
        FileExistsError: If the run is finished.
        ValueError: If a value that shapes the numbers differs; the first few are named.
        CheckpointError: If its checkpoint cannot be read.
    """
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"resume={folder}: no run there (config.yaml is missing)")
    if (folder / "DONE").exists():
        raise FileExistsError(
            f"resume={folder}: that run is finished; to go on from its weights in a new run: model.weights={folder} "
            "instead of resume (in regression model.encoder.weights)"
        )
    check_config(folder, resolved(config))
    last = folder / "checkpoints" / "last.pt"
    done = checkpoint.load(last, mapped=True)["epoch"] if last.is_file() else 0
    if done > config.trainer.epochs:
        raise ValueError(
            f"resume={folder}: trainer.epochs={config.trainer.epochs}, but {done} epochs are trained already; give at "
            f"least {done}, or start a new run"
        )
    below = folder / stages.FOLDER
    if config.first_stage and (below / "DONE").exists():
        check_config(below, resolved(stages.first_stage(config, below)), FREE_ONCE_FINISHED)


def check_config(folder: Path, config: Mapping[str, Any], free: Iterable[str] = FREE_TO_CHANGE) -> None:
    """Refuses another config than the run in `folder` has.

    Args:
        folder: Of a run.
        config: Resolved.
        free: Keys that may differ.

    Raises:
        ValueError: If a value that shapes the numbers differs; the first few are named.
    """
    own = runs.read_config(folder)
    was, now = shaping(own, free), shaping(config, free)
    told = changes(was, now)
    if not told:
        return
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    epochs = tuple(flat(one).get("trainer.epochs") for one in (own, config))
    follow = [
        key for key, values in differences(was, now).items() if values == epochs
    ]  # as the length of a cosine does
    tied = f"; {', '.join(follow)} follows trainer.epochs here: keep trainer.epochs={epochs[0]} or start a new run"
    raise ValueError(
        f"resume={folder} was run with another config: {'; '.join(told[:3])}{more}{tied if follow else ''}"
    )


def check_data(folder: Path, now: str | None) -> None:
    """Refuses other data than the run in `folder` began with, as far as it recorded them.

    Raises:
        CheckpointError: If both are known and differ.
    """
    checkpoint.check_data(runs.data_of(folder), now, folder)


def go_on(folder: Path, config: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Makes the folder say what the run has become: its config, the command, and that it is not finished.

    Args:
        folder: Of a run that passed `check`.
        config: Resolved.
        record: Of the run as it goes on; overrides and command are taken over.
    """
    runs.write_config(folder, config)
    if (folder / runs.BEGAN).is_file():
        now = {key: record[key] for key in ("overrides", "command")}
        write_json(folder / runs.BEGAN, read_json(folder / runs.BEGAN) | now)
    (folder / "report.json").unlink(missing_ok=True)  # without DONE it was cut off, or is of fewer epochs


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
