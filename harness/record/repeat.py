"""How to repeat a run: the command that is written down when it begins, and what its folder holds for a repeat.

A run folder may be somebody else's: what is read from it is printed as quoted words of a shell, and never run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.record import runs, stages
from harness.record.composition import key_of, without_sweep
from harness.record.config import STARTS_A_RUN, is_under
from harness.record.reproducibility import RECORDED_PACKAGES
from harness.words import line, override

# What a run writes down when it begins, for a repeat.
WRITTEN = {
    "command": list, "code": dict, "python": str, "packages": dict, "hardware": dict, "device": str, "data": dict,
    "downloads": list,
}  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """What a run folder holds; `report` is report.json of a finished run, else began.json."""

    folder: Path
    config: Mapping[str, Any]
    report: Mapping[str, Any]
    finished: bool

    @property
    def name(self) -> str:
        """For headings."""
        experiment = self.report.get("experiment", "a run")
        return f"{experiment}, seed {self.config.get('seed')}{'' if self.finished else ', unfinished'}"


def command(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The words of a command line that makes a run once more.

    Seed, number of threads and device are named, also where they were defaults, because the bits depend on them.

    Args:
        record: Of a run that begins: its experiment, overrides, hardware and device.
        config: Resolved.
    """
    # A repeat is one run, begins anew, and takes no finished one for it.
    kept = [one for one in without_sweep(record["overrides"]) if not is_under(key_of(one), STARTS_A_RUN)]
    named = {"seed": config["seed"], "threads": record["hardware"]["threads"], "trainer.device": record["device"]}
    if config["paths"]["data"] != "data":  # the default
        named["paths.data"] = config["paths"]["data"]
    given = [key_of(one) for one in kept]
    experiment = record["experiment"].removesuffix(f"_{stages.FOLDER}")  # a first stage is repeated with its run
    added = [override(key, value) for key, value in named.items() if key not in given]
    return ["python", "train.py", f"experiment={experiment}", *kept, *added]


def read(folder: Path) -> Recorded:
    """Reads a run folder, finished or not.

    Raises:
        FileNotFoundError: If `folder` is no run; one below it is named if there is any.
        ValueError: If a file in it is truncated, or is not what a run writes.
    """
    config = runs.read_config(folder)
    if folder.absolute().name == stages.FOLDER:
        raise ValueError(
            f"{folder} is the first stage of a run and is repeated with it; give {folder.absolute().parent}"
        )
    finished = (folder / "report.json").is_file() or (folder / "DONE").exists()
    report = runs.read_report(folder) if finished else runs.read_began(folder)
    return Recorded(folder, config, report, finished)


def check(run: Recorded) -> None:
    """Refuses a run that has not written down how to repeat it.

    Raises:
        ValueError: With what it lacks, or with the words of its command that no run writes.
    """
    lacks = [key for key, kind in WRITTEN.items() if not isinstance(run.report.get(key), kind)]
    if lacks:
        raise ValueError(
            f"{run.folder} was made before runs wrote down how to repeat them (it has no {', '.join(lacks)}); its "
            f"settings are in {run.folder / 'config.yaml'}"
        )
    command = run.report["command"]
    if command[:2] != ["python", "train.py"] or any(not isinstance(w, str) or w.startswith("-") for w in command):
        raise ValueError(f"{run.folder} holds a command that no run writes: {line(map(str, command))}")


def constraints(run: Recorded) -> list[str]:
    """Package versions as pip takes them in a constraints file: of packages that a run records, and no others."""
    found = run.report.get("packages", {}).items()
    return [f"{n}=={v}" for n, v in found if n in RECORDED_PACKAGES and re.fullmatch(r"[\w.!+-]+", str(v))]


def code_steps(run: Recorded) -> tuple[list[str], str]:
    """Commands that bring the code back, and what is to be known about it."""
    code = run.report["code"]
    if not code.get("revision"):
        return [], "The revision of the code is not on record."
    checkout = [line(["git", "checkout", str(code["revision"])])]
    if not code.get("dirty"):
        return checkout, ""
    patch, known = run.folder / runs.PATCH, str(code.get("changes"))
    if patch.is_file() and hashlib.sha256(patch.read_bytes()).hexdigest() == known:
        return [*checkout, line(["git", "apply", str(patch.absolute())])], ""
    return checkout, (
        f"The code had uncommitted changes that were not kept (their sha256 is {known[:16]}...): the revision alone "
        "may not do."
    )


def data_steps(run: Recorded) -> tuple[list[str], str]:
    """Commands that bring the data, and which data they must be."""
    data, config = run.report["data"], run.config.get("data") or {}
    known = f"{data.get('name')}, fingerprint {str(data.get('fingerprint'))[:16]}"
    if config.get("fixture"):
        return [], f"{known}: stand-in data, which the run writes itself."
    if commands := [line(["python", "scripts/download.py", str(name)]) for name in run.report["downloads"]]:
        return commands, f"{known}."
    where = f"The run read them from {config['root']}." if "root" in config else "Needs no download."
    return [], f"{known}. {where}"
