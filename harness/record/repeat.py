"""How to repeat a run, by what it wrote down when it began, and what differs between two.

A run folder may be somebody else's: what is read from it is printed as quoted words of a shell, and never run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.record import runs, stages
from harness.record.composition import key_of, without_sweep
from harness.record.config import BITS, STARTS_A_RUN, differences, flat, is_under, shaping
from harness.record.reproducibility import RECORDED_PACKAGES
from harness.words import line, override

# What a run writes down when it begins, for a repeat.
WRITTEN = {
    "command": list, "code": dict, "python": str, "packages": dict, "hardware": dict, "device": str, "data": dict,
    "downloads": list,
}  # fmt: skip
# What a run is made from; of what two runs are compared by, the rest is what came out.
INPUTS = ("config", "code", "data", "versions", "hardware")


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
    """The words of a command line that makes a run once more, by its `record` so far and its resolved config.

    Seed, number of threads and device are named, also where they were defaults, because the bits depend on them.
    """
    # A repeat is one run, begins anew, and takes no finished one for it.
    kept = [one for one in without_sweep(record["overrides"]) if not is_under(key_of(one), STARTS_A_RUN)]
    processes, device = record.get("processes", 1), record["device"]
    if processes > 1:  # each has a GPU of its own
        device = device.partition(":")[0]
    named = {"seed": config["seed"], "threads": record["hardware"]["threads"], "trainer.device": device}
    if config["paths"]["data"] != "data":  # the default
        named["paths.data"] = config["paths"]["data"]
    given = [key_of(one) for one in kept]
    experiment = record["experiment"].removesuffix(f"_{stages.FOLDER}")  # a first stage is repeated with its run
    added = [override(key, value) for key, value in named.items() if key not in given]
    started = ["python"] if processes == 1 else ["torchrun", "--standalone", f"--nproc-per-node={processes}"]
    return [*started, "train.py", f"experiment={experiment}", *kept, *added]


def arguments(command: Sequence[Any]) -> list[Any] | None:
    """What follows train.py in a command that a run has written down; None if it is no such command."""
    words = list(map(str, command))
    several = words[:2] == ["torchrun", "--standalone"] and re.fullmatch(r"--nproc-per-node=\d+", "".join(words[2:3]))
    start = 3 if several else 1 if words[:1] == ["python"] else len(words)
    return list(command[start + 1 :]) if words[start : start + 1] == ["train.py"] else None


def read(folder: Path) -> Recorded:
    """Reads a run folder, finished or not; errors as `runs.read_config`, and for a first stage."""
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
    words = arguments(command)
    if words is None or any(not isinstance(word, str) or word.startswith("-") for word in words):
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


@dataclass
class Compared:
    """Differences by section, and the sections in which everything is equal, with the number of values."""

    differing: dict[str, dict[str, tuple[Any, ...]]] = field(default_factory=dict)  # both values; None: it has none
    same: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)  # sections that one of the runs does not have
    changes_nothing: list[str] = field(default_factory=list)  # config keys that differ and shape no number

    def verdict(self) -> str:
        """The differences in one sentence."""
        inputs = [section for section in INPUTS if section in self.differing]
        unknown = [section for section in INPUTS if section in self.unknown]
        of = f"what they are made from differs in {_listed(inputs)}" if inputs else "what they are made from is equal"
        of += f", and {_listed(unknown)} of one is not on record" if unknown else ""
        if "results" in self.unknown:
            return f"There are no results of both to compare; {of}."
        if "results" in self.same:
            return "A repeat: every result is equal." if not inputs + unknown else f"Every result is equal; {of}."
        if not inputs + unknown and (bits := [key for key in self.changes_nothing if is_under(key, BITS)]):
            return f"The results differ, as do settings that may move the last digits: {_listed(bits)}."
        if not inputs + unknown:
            return "The results differ although all that they are made from is equal: this run does not repeat here."
        if inputs + unknown == ["config"] and all(key.split(".")[-1] == "seed" for key in self.differing["config"]):
            return "One method with two seeds."
        return f"The results differ; {of}."


def compared(first: Recorded, second: Recorded) -> Compared:
    """Compares two runs, section by section."""
    found, one, other = Compared(), _sections(first), _sections(second)
    for section in one:
        if one[section] and other[section]:
            if differing := differences(one[section], other[section]):
                found.differing[section] = differing
            else:
                found.same[section] = len(one[section])
        elif one[section] or other[section] or section != "loss as built":  # not every loss has settings of its own
            found.unknown.append(section)
    settings = differences(flat(first.config), flat(second.config))
    found.changes_nothing = [key for key in settings if key not in one["config"] and key not in other["config"]]
    return found


def _sections(run: Recorded) -> dict[str, dict[str, Any]]:
    """All that is compared, flat; the metric that selects comes first among the results."""
    report = run.report
    code = report.get("code") or {}
    if code.get("dirty") and "changes" not in code:  # an old run: its changes could be any
        code = {}
    several = {"processes": report["processes"]} if report.get("processes", 1) != 1 else {}
    found = {
        "code": code,
        "data": report.get("data"),
        "versions": {"python": report.get("python"), **(report.get("packages") or {})},
        "hardware": {"device": report.get("device"), **several, **(report.get("hardware") or {})},
        "loss as built": report.get("loss"),
    }
    known = {name: {k: v for k, v in flat(part or {}).items() if v is not None} for name, part in found.items()}
    monitor = str((run.config.get("trainer") or {}).get("monitor", ""))
    results = sorted(_results(report).items(), key=lambda one: not one[0].endswith(f"/{monitor}"))
    return {"config": shaping(run.config), **known, "results": dict(results)}


def _results(report: Mapping[str, Any]) -> dict[str, Any]:
    """Epoch and metrics of every selection: last/test/recall@1."""
    found: dict[str, Any] = {}
    for selection, result in (report.get("results") or {}).items():
        if isinstance(result, Mapping) and "metrics" in result:
            found |= {f"{selection}/{name}": value for name, value in result["metrics"].items()}
            found[f"{selection}/epoch"] = result.get("epoch")
    return found


def _listed(sections: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(sections[:-1]), *sections[-1:]]))
