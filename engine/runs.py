"""A run is its folder: what is written into it when it begins and when it ends, and reading it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from engine.checkpoint import write_whole

# What may differ between a run and its resumption, because it changes no number or only how long the run goes on.
FREE_TO_CHANGE = ("resume", "workers", "paths", "tracking", "trainer.epochs", "trainer.log_every", "data.root")


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
    changed = [
        f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not any(key == f or key.startswith(f + ".") for f in FREE_TO_CHANGE)
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(f"resume={folder} was run with another config: {'; '.join(changed[:3])}{more}")


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


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return parts
