"""What differs between two runs: config, code, data, versions, hardware, results; what is equal is only named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.record import runs
from harness.record.repeat import Recorded

ABSENT = "-"
# What a run is made from; the rest is what came out.
INPUTS = ("config", "code", "data", "versions", "hardware")


@dataclass(frozen=True)
class Difference:
    """One value that the runs do not share; `gap` is the second minus the first, of results."""

    what: str
    first: str
    second: str
    gap: str = ""


@dataclass
class Compared:
    """Differences by section, and the sections in which everything is equal, with the number of values."""

    differing: dict[str, list[Difference]] = field(default_factory=dict)
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
        if inputs + unknown == ["config"] and self._seeds_alone():
            return "One method with two seeds."
        return f"The results differ; {of}."

    def _seeds_alone(self) -> bool:
        return all(d.what.rpartition(".")[2] == "seed" for d in self.differing["config"])


def difference(first: Recorded, second: Recorded) -> Compared:
    """Compares two runs, section by section."""
    found = Compared()
    one, other = (_config(run) for run in (first, second))
    shaping = runs.shaping(first.config).keys() | runs.shaping(second.config).keys()
    found.changes_nothing = [
        key for key in [*one, *(k for k in other if k not in one)]
        if key not in shaping and one.get(key) != other.get(key)
    ]  # fmt: skip
    for section in ("config", "code", "data", "versions", "hardware", "loss as built", "results"):
        _compare(found, section, _section(first, section), _section(second, section))
    for run in (first, second):
        code = run.report.get("code") or {}
        if "code" in found.same and code.get("dirty") and "changes" not in code:  # runs of before this was recorded
            del found.same["code"]
            found.unknown.append("code")
    if monitor := _monitored(first):
        found.differing.get("results", []).sort(key=lambda one: not one.what.endswith(monitor))
    return found


def _compare(found: Compared, section: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    if not first or not second:
        if first or second or section != "loss as built":  # not every loss has settings of its own
            found.unknown.append(section)
        return
    keys = [*first, *(key for key in second if key not in first)]
    differing = [
        Difference(key, _shown(first.get(key)), _shown(second.get(key)), _gap(section, first.get(key), second.get(key)))
        for key in keys
        if not _equal(first.get(key), second.get(key))
    ]
    if differing:
        found.differing[section] = differing
    else:
        found.same[section] = len(keys)


def _config(run: Recorded) -> dict[str, Any]:
    """Flat; a key that is null counts as absent, as in a run's fingerprint."""
    return {key: value for key, value in runs.flat(dict(run.config)).items() if value is not None}


def _section(run: Recorded, section: str) -> dict[str, Any]:
    report = run.report
    if section == "config":
        return runs.shaping(run.config)
    if section == "results":
        return _results(run)
    if section == "versions":
        packages = dict(report.get("packages") or {})
        return {"python": report["python"], **packages} if "python" in report else packages
    if section == "hardware":
        device = {"device": report["device"]} if "device" in report else {}
        return {**device, **runs.flat(dict(report.get("hardware") or {}))}
    part = report.get("loss" if section == "loss as built" else section) or {}
    return {key: value for key, value in runs.flat(dict(part)).items() if value not in (None, {})}


def _results(run: Recorded) -> dict[str, Any]:
    """Epoch and metrics of every selection: last/test/recall@1."""
    found: dict[str, Any] = {}
    for selection, result in (run.report.get("results") or {}).items():
        if isinstance(result, Mapping) and "metrics" in result:
            found |= {f"{selection}/{name}": value for name, value in result["metrics"].items()}
            found[f"{selection}/epoch"] = result.get("epoch")
    return found


def _monitored(run: Recorded) -> str:
    """The metric that is shown first."""
    trainer = run.config.get("trainer")
    return f"/{trainer.get('monitor')}" if isinstance(trainer, Mapping) and trainer.get("monitor") else ""


def _equal(first: Any, second: Any) -> bool:
    return bool(first == second or (first != first and second != second))  # a result may be nan in both


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:12]}..." if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else text


def _gap(section: str, first: Any, second: Any) -> str:
    """How far apart two results are, also where they look alike when rounded."""
    if section != "results" or not isinstance(first, int | float) or not isinstance(second, int | float):
        return ""
    return f"{second - first:+.2g}"


def _listed(sections: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(sections[:-1]), *sections[-1:]]))
