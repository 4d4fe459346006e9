"""What differs between two runs: config, code, data, versions, hardware, results; what is equal is only named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.record.config import differences, flat, shaping
from harness.record.repeat import Recorded

# What a run is made from; the rest is what came out.
INPUTS = ("config", "code", "data", "versions", "hardware")


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
    found = {
        "code": code,
        "data": report.get("data"),
        "versions": {"python": report.get("python"), **(report.get("packages") or {})},
        "hardware": {"device": report.get("device"), **(report.get("hardware") or {})},
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
