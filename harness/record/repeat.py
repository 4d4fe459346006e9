"""How to repeat a run exactly: what its folder tells of code, packages, data, command and hardware."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.record import runs, stages
from harness.record.composition import CONFIGS, composed, without_sweep
from harness.record.reproducibility import RECORDED_PACKAGES
from harness.words import line, override

# Overrides that belong to how a run was started: a repeat is one run, begins anew, and takes no finished one for it.
NOT_REPEATED = ("experiment", "resume", "reuse", "objective")
NO_CHANGES = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Recorded:
    """What a run folder holds.

    `report` is report.json of a finished run; of an unfinished one what it began with, which may be nothing.
    """

    folder: Path
    config: Mapping[str, Any]
    report: Mapping[str, Any]
    finished: bool

    @property
    def name(self) -> str:
        """For headings."""
        experiment = self.report.get("experiment", "a run")
        return f"{experiment}, seed {self.config.get('seed')}{'' if self.finished else ', unfinished'}"


def read(folder: Path) -> Recorded:
    """Reads a run folder, finished or not.

    Raises:
        FileNotFoundError: If `folder` is no run; one below it is named if there is any.
        ValueError: If a file in it is truncated, or is not what a run writes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; a run's is called outputs/<experiment>/seed0/<time>")
    report_path, config_path = folder / "report.json", folder / "config.yaml"
    if not report_path.is_file() and not config_path.is_file():
        below = sorted(path.parent for path in folder.rglob("config.yaml") if path.parent.name != ".hydra")
        also = f"; below it are {len(below)}, such as {below[0]}" if below else ""
        raise FileNotFoundError(f"{folder} is no run (it has neither config.yaml nor report.json){also}")
    if folder.absolute().name == stages.FOLDER:
        raise ValueError(
            f"{folder} is the first stage of a run and is repeated with it; give {folder.absolute().parent}"
        )
    finished = report_path.is_file()
    if not finished and (folder / "DONE").exists():
        runs.read_report(folder)  # says what is wrong
    report = _json(report_path) if finished else _beginning(folder)
    config = _config(config_path) if config_path.is_file() else report.get("config")
    if not isinstance(config, Mapping):
        raise ValueError(f"{report_path} holds no config: it is not what a run writes")
    return Recorded(folder, config, report, finished)


def arguments(run: Recorded) -> list[str] | None:
    """The arguments of train.py that make this run once more; None if its command was not recorded.

    Seed, number of threads and device are named, also where they were defaults, because their bits depend on them.
    """
    experiment, overrides = run.report.get("experiment"), run.report.get("overrides")
    if not experiment or overrides is None:
        return None
    kept = [o for o in without_sweep(map(str, overrides)) if not runs.is_under(_key(o), NOT_REPEATED)]
    known = {
        "seed": run.config.get("seed"),
        "threads": run.report.get("hardware", {}).get("threads"),
        "trainer.device": run.report.get("device"),
        "paths.data": (run.config.get("paths") or {}).get("data"),
    }
    if known["paths.data"] == "data":  # the default
        del known["paths.data"]
    given = {_key(one) for one in kept}
    added = [override(key, value) for key, value in known.items() if value is not None and key not in given]
    return [f"experiment={experiment}", *kept, *added]


def command(words: Sequence[str]) -> str:
    """A line for the shell."""
    return line(["python", "train.py", *words])


def composes_otherwise(
    run: Recorded, words: Sequence[str], configs: Path = CONFIGS, allow: Sequence[str] = ()
) -> list[str]:
    """What this checkout makes of a command that differs from the run's config; empty if it is the same run.

    Raises:
        ValueError, ImportError: If the command does not compose here; NotAllowedError if it must not be run.
    """
    here = composed(words, configs, allow)
    if runs.fingerprint(here) == runs.fingerprint(run.config):
        return []
    now, then = runs.shaping(here), runs.shaping(run.config)
    return [
        f"{key} was {then.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]


def constraints(run: Recorded) -> list[str]:
    """Package versions as pip takes them in a constraints file: of packages that a run records, and no others."""
    found = run.report.get("packages", {}).items()
    return [f"{n}=={v}" for n, v in found if n in RECORDED_PACKAGES and re.fullmatch(r"[\w.!+-]+", str(v))]


def patch(run: Recorded) -> Path | None:
    """The uncommitted changes that the run was made with, if they were kept and are whole."""
    path = run.folder / runs.PATCH
    known = run.report.get("code", {}).get("changes")
    whole = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == known
    return path if whole else None


def code_steps(run: Recorded) -> tuple[list[str], str]:
    """Commands that bring the code back, and what is to be known about it."""
    code = run.report.get("code", {})
    if not code.get("revision"):
        return [], "The revision of the code is not on record."
    checkout = [line(["git", "checkout", str(code["revision"])])]
    if not code.get("dirty"):
        return checkout, ""
    if (kept := patch(run)) is not None:
        return [*checkout, line(["git", "apply", str(kept.absolute())])], ""
    if code.get("changes") == NO_CHANGES:
        return checkout, "Only files that are neither code nor configs had uncommitted changes."
    known = f" (their sha256 is {code['changes'][:16]}...)" if "changes" in code else ""
    return checkout, f"The code had uncommitted changes that were not kept{known}: the revision alone may not do."


def data_steps(run: Recorded, configs: Path = CONFIGS) -> tuple[list[str], str]:
    """Commands that bring the data, and which data they must be."""
    config, found = run.config.get("data") or {}, run.report.get("data") or {}
    name = found.get("name", str(config.get("_target_", "unknown")).rpartition(".")[2])
    known = f"{name}, fingerprint {found['fingerprint'][:16]}" if found.get("fingerprint") else str(name)
    if config.get("fixture"):
        return [], f"{known}: stand-in data, which the run writes itself."
    path = _data_file(config, configs)
    text = path.read_text() if path else ""
    commands = re.findall(r"python scripts/download\.py \w+", text)
    where = f" The run read them from {config['root']}." if config.get("root") and not commands else ""
    way = "" if commands else " Needs no download." if "Needs no download" in text else where
    return commands, f"{known}.{way}"


def _data_file(config: Mapping[str, Any], configs: Path) -> Path | None:
    """The file of configs/data that `config` came from: of those with its `_target_` the one with most in common."""
    own = runs.flat(dict(config))
    best: tuple[int, Path | None] = (0, None)
    for path in sorted((configs / "data").glob("*.yaml")):
        there = OmegaConf.to_container(OmegaConf.load(path))
        if isinstance(there, dict) and there.get("_target_") == config.get("_target_"):
            flat = runs.flat({str(key): value for key, value in there.items()})
            common = sum(own.get(key) == value for key, value in flat.items())
            best = max(best, (common, path), key=lambda entry: entry[0])
    return best[1]


def _beginning(folder: Path) -> Mapping[str, Any]:
    """What an unfinished run left: began.json, or at least what Hydra wrote down of its command."""
    if (folder / runs.BEGAN).is_file():
        return _json(folder / runs.BEGAN)
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return {}
    overrides = [str(override) for override in OmegaConf.to_container(_yaml(path)) or []]
    experiment = next((o.partition("=")[2] for o in overrides if _key(o) == "experiment"), None)
    return {"experiment": experiment, "overrides": overrides}


def _json(path: Path) -> Mapping[str, Any]:
    content = runs.read_json(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is not what a run writes; delete that run folder or repeat the run")
    return content


def _config(path: Path) -> Mapping[str, Any]:
    content = OmegaConf.to_container(_yaml(path))
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no config: it is truncated or not what a run writes")
    return {str(key): value for key, value in content.items()}


def _yaml(path: Path) -> Any:
    try:
        return OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path} is truncated or not YAML ({' '.join(str(error).split())})") from error


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
