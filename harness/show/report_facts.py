"""The facts of a report: what its runs were made of, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.record import runs
from harness.study.results import Run, Study
from harness.words import numbered

NAMED = 3  # interrupted runs


def facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What the runs were made of: data, code, machine, versions, time."""
    reports = [run.report for run in runs]
    data = reports[0]["data"]
    parts = [f"{name} {_counts(part)}" for name, part in data.items() if isinstance(part, dict) and _counts(part)]
    started = sorted(str(report["started"]) for report in reports if report.get("started"))
    seconds = sum(float(report["results"].get("seconds") or 0) for report in reports)
    lines = {
        "data": str(data.get("name", "unnamed")) + (f": {'; '.join(parts)}" if parts else ""),
        "data fingerprint": str(data.get("fingerprint") or "not recorded"),
        "code": _several(_revision(report.get("code", {})) for report in reports),
        "machine": _several(_machine(report.get("hardware", {})) for report in reports),
        "versions": _several(_versions(report) for report in reports),
        "started": " to ".join(dict.fromkeys(_minute(time) for time in started[:1] + started[-1:])),
        "training and evaluation": f"{_duration(seconds)} for {numbered(len(reports), 'run')}",
        "peak memory": ", ".join(filter(None, [_peak(reports, "process", "process"), _peak(reports, "device", "GPU")])),
    }
    return [(key, value) for key, value in lines.items() if value]


def _peak(reports: Sequence[dict[str, Any]], key: str, word: str) -> str:
    found = [(report["results"].get("peak_memory") or {}).get(f"{key}_bytes") or 0 for report in reports]
    return f"{max(found) / 2**30:.1f} GiB of the {word}" if any(found) else ""


def warnings(all_studies: Sequence[Study], unfinished: Sequence[Path]) -> list[str]:
    """What somebody who trusts the page should know, a sentence each."""
    said: list[str] = []
    if unfinished:
        more = f" and {len(unfinished) - NAMED} more" if len(unfinished) > NAMED else ""
        names = ", ".join(map(str, unfinished[:NAMED])) + more
        said.append(
            f"{numbered(len(unfinished), 'run')} left out, interrupted or still running: {names}. "
            "The same command with resume=FOLDER goes on with an interrupted one."
        )
    said += [f"{study.data}: {sentence}." for study in all_studies for sentence in _warnings(study)]
    return said + versions(all_studies)


def versions(all_studies: Sequence[Study]) -> list[str]:
    """A sentence for each data set of which there are several versions, as runs on them are kept apart."""
    prints: dict[str, set[str]] = {}
    for study in all_studies:
        if not study.stand_in:
            fingerprint = study.runs[0].report["data"].get("fingerprint")
            prints.setdefault(study.data, set()).add(str(fingerprint)[:12])
    several = {name: ", ".join(sorted(found)) for name, found in prints.items() if len(found) > 1}
    start = "there are runs on different versions of the data, each below"
    return [f"{name}: {start}: {found}." for name, found in several.items()]


def _warnings(study: Study) -> Iterator[str]:
    reports = [run.report for run in study.runs]
    if dirty := sum(bool(report.get("code", {}).get("dirty")) for report in reports):
        made = f"{_share(dirty, len(reports))} made with uncommitted changes"
        yield f"{made}, so that the revision alone does not tell the code"
    if resumed := sum(bool(report.get("began")) for report in reports):
        yield f"{_share(resumed, len(reports))} resumed with other code, packages or hardware"
    for part, key, word in (("code", "revision", "revisions of the code"), ("packages", "torch", "versions of torch")):
        if len({report.get(part, {}).get(key) for report in reports}) > 1:
            yield f"the runs were made with different {word}"
    if len({frozenset(run.report["seed"] for run in members) for members in study.methods.values()}) > 1:
        yield "not all methods were run with the same seeds"


def interrupted(folders: Sequence[Path]) -> list[Path]:
    """Runs at or below `folders` that began and did not end."""
    begun = {run for folder in folders for run in runs.folders(folder)}
    return sorted(folder for folder in begun if not (folder / "DONE").exists())


def _counts(part: dict[str, Any]) -> str:
    numbers = [f"{value:,} {key.replace('_', ' ')}" for key, value in part.items() if type(value) is int]
    return ", ".join(numbers[:2])


def _several(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


def _revision(code: dict[str, Any]) -> str:
    if not code.get("revision"):
        return "not recorded"
    return str(code["revision"])[:12] + (" with uncommitted changes" if code.get("dirty") else "")


def _machine(hardware: dict[str, Any]) -> str:
    if not hardware:
        return "not recorded"
    gpus = hardware.get("gpus") or []
    named = ", ".join(f"{gpus.count(gpu)} × {gpu}" for gpu in dict.fromkeys(gpus)) if gpus else "no GPU"
    cores = f"{hardware.get('cores')} cores, {hardware.get('threads')} used"
    return f"{hardware.get('processor') or 'unknown processor'}, {cores}, {named}"


def _versions(report: dict[str, Any]) -> str:
    packages = report.get("packages", {})
    kept = [f"{name} {packages[name]}" for name in ("torch", "torchvision", "timm") if name in packages]
    return ", ".join([f"Python {report['python']}", *kept] if report.get("python") else kept)


def _share(count: int, of: int) -> str:
    return f"{'all' if count == of else f'{count} of'} {of} runs were" if of > 1 else "the run was"


def _minute(time: str) -> str:
    """2026-01-02T03:04:05Z -> 2026-01-02 03:04 UTC."""
    return f"{time[:10]} {time[11:16]} UTC" if time.endswith("Z") else time


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
