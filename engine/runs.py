"""A run is its folder: what is written into it when it begins and when it ends, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from engine.checkpoint import write_whole

# Config keys that change no number of a run.
CHANGES_NO_NUMBER = (
    "workers", "data.workers", "data.pin_memory", "data.cache", "paths", "tracking", "resume", "trainer.log_every",
)  # fmt: skip
# A resumed run may also go on for longer and find its data, known by their fingerprint, in another place.
FREE_TO_CHANGE = (*CHANGES_NO_NUMBER, "trainer.epochs", "data.root")


def is_under(key: str, keys: Iterable[str]) -> bool:
    """Whether the dotted `key` is one of `keys` or below one: data.cache and data.cache.folder are under data.cache."""
    return any(key == other or key.startswith(other + ".") for other in keys)


def begin(folder: Path, config: dict[str, Any]) -> None:
    """Writes config.yaml, what the run was asked for with everything resolved."""
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    write_whole(folder / "config.yaml", lambda file: file.write(text.encode()))


def finish(folder: Path, report: dict[str, Any]) -> None:
    """Writes report.json, then the empty file DONE that says the run is complete."""
    write_json(folder / "report.json", report)
    (folder / "DONE").touch()


def check_same(folder: Path, config: dict[str, Any]) -> None:
    """Refuses to resume a run under another config.

    Raises:
        FileNotFoundError: If `folder` holds no run.
        FileExistsError: If the run is finished.
        ValueError: If a value that shapes the numbers differs; the first few are named.
    """
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"resume={folder}: no run there (config.yaml is missing)")
    if (folder / "DONE").exists():
        raise FileExistsError(f"resume={folder}: that run is finished; start a new one without resume")
    before, now = _flat(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))), _flat(config)
    keys = sorted(before.keys() | now.keys())
    changed = [key for key in keys if before.get(key) != now.get(key) and not is_under(key, FREE_TO_CHANGE)]
    if changed:
        words = [f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}" for key in changed[:3]]
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"resume={folder} was run with another config: {'; '.join(words)}{more}{_tied(changed, before, now)}"
        )


def write_json(path: Path, value: Any) -> None:
    """Writes `value` whole or not at all."""
    text = json.dumps(value, indent=1, default=str) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: If it is truncated or not JSON, with its name.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is truncated or not JSON ({error}); delete that run folder or repeat the run"
        ) from error


def _tied(changed: list[str], before: dict[str, Any], now: dict[str, Any]) -> str:
    """Says so where a value changed only because it follows the number of epochs, as the length of a cosine does."""
    epochs = before.get("trainer.epochs"), now.get("trainer.epochs")
    tied = [key for key in changed if (before.get(key), now.get(key)) == epochs]
    if not tied:
        return ""
    return f"; {', '.join(tied)} follows trainer.epochs here: keep trainer.epochs={epochs[0]} or start a new run"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return parts
