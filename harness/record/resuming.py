"""One folder, one run: what may begin there, what may go on there, and that the folder says what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from harness import checkpoint
from harness.files import write_json
from harness.record import runs, stages
from harness.record.config import FREE_ONCE_FINISHED, FREE_TO_CHANGE, changes, differences, flat, resolved, shaping

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
    resumable = not (folder / "DONE").exists() and any(folder.rglob("last.pt"))
    go_on = f"go on with it (resume={folder}), choose another folder, or" if resumable else "choose another folder or"
    raise FileExistsError(
        f"{folder} holds a run already, and a second one there would mix the two; {go_on} leave hydra.run.dir out, "
        "which gives every run its own"
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
    """Refuses a resolved config in which another key than those that are `free` differs from the run in `folder`.

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
    follow = [key for key, values in differences(was, now).items() if values == epochs]  # as a cosine's length does
    tied = f"; {', '.join(follow)} follows trainer.epochs here: keep trainer.epochs={epochs[0]} or start a new run"
    raise ValueError(
        f"resume={folder} was run with another config: {'; '.join(told[:3])}{more}{tied if follow else ''}"
    )


def go_on(folder: Path, config: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Makes the folder say what the run has become: its config, the command, and that it is not finished.

    Args:
        folder: Of a run that passed `check`.
        config: Resolved.
        record: Of the run as it goes on; overrides and command are taken over.
    """
    runs.write_config(folder, config)
    if began := runs.read_began(folder):
        write_json(folder / runs.BEGAN, began | {key: record[key] for key in ("overrides", "command")})
    (folder / "report.json").unlink(missing_ok=True)  # without DONE it was cut off, or is of fewer epochs
