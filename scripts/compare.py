"""Compares two methods over the seeds that both were run with: python scripts/compare.py outputs --first LABEL."""

from __future__ import annotations

import argparse
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.record import runs
from harness.record.composition import place
from harness.record.config import REPORTED, first_difference, shaping
from harness.record.measures import ARROWS
from harness.show import sheet
from harness.show.sheet import Sheet
from harness.study.results import Run, find_runs, group_by_method, measure_of, values_of
from harness.study.uncertainty import Better, Comparison, compare, interval, together

Groups = Mapping[str, Sequence[Run]]


def choose(groups: Groups, first: str | None, second: Sequence[str] | None) -> tuple[str, list[str]]:
    """The labels that are compared: the first with each of the others.

    Raises:
        ValueError: If a label is missing, unknown, or compared with itself; with the labels that there are.
    """
    there = "".join(f"\n  {label}  ({_seeds(members)})" for label, members in groups.items())
    for label in [first, *(second or [])]:
        if label is not None and label not in groups:
            raise ValueError(f"there is no method '{label}'; there are{there}")
    if len(groups) < 2:
        raise ValueError(f"comparing takes two methods; there is{there}")
    if first is None and len(groups) > 2:
        raise ValueError(f"which method is compared with the others? --first 'LABEL', one of{there}")
    chosen = first or next(label for label in groups if label not in (second or []))
    others = [label for label in dict.fromkeys(second or groups) if second or label != chosen]
    if chosen in others:
        raise ValueError(f"--first and --second are both '{chosen}'; there are{there}")
    return chosen, others


def metrics_of(groups: Groups, labels: Sequence[str], selection: str, wanted: Sequence[str] | None) -> list[str]:
    """What is compared: `wanted`, or every metric of the test split that all runs have.

    Raises:
        ValueError: If no run was selected so, or a wanted metric is missing; with what there is.
    """
    members = [run for label in labels for run in groups[label]]
    found = [run.metrics(selection) for run in members]
    if without := [run for run in members if not run.metrics(selection)]:
        kinds = ", ".join(name for name in without[0].report["results"] if without[0].metrics(name))
        raise ValueError(f"{without[0].folder} has no results '{selection}'; it has {kinds}")
    common = [name for name in found[0] if all(name in other for other in found)]
    for name in wanted or []:
        if name not in common:
            raise ValueError(f"{name} is not a metric of every run here; there are {', '.join(common)}")
    tested = [n for n in common if n.startswith("test/") and measure_of(members, n).kind != "count"]
    return list(dict.fromkeys(wanted or tested))


def check_comparable(groups: Groups, labels: Sequence[str]) -> None:
    """Refuses methods that were run on different data or measured differently, with the folders of both."""
    for label in labels[1:]:
        one, other = groups[labels[0]][0], groups[label][0]
        both = f"'{labels[0]}' and '{label}' were"
        if one.report["data"].get("fingerprint") != other.report["data"].get("fingerprint"):
            raise ValueError(f"{both} run on different data: {one.folder} and {other.folder}")
        settings = ({"metrics": run.report["config"].get("metrics")} for run in (one, other))
        if differing := first_difference(*(shaping(part, REPORTED) for part in settings)):
            raise ValueError(
                f"{both} measured with different settings ({' and '.join(differing)}): {one.folder} and {other.folder}"
            )


@dataclass(frozen=True)
class Line:
    """One metric of the first method, A, against another; the values of both, by seed, with the comparison."""

    label: str
    metric: str
    unit: str
    sides: tuple[Mapping[int, float], Mapping[int, float]]
    comparison: Comparison


def compare_all(
    groups: Groups,
    first: str,
    others: Sequence[str],
    metrics: Sequence[str],
    selection: str,
    better: Better | None = None,
) -> tuple[list[Line], list[str]]:
    """A line for every other method and metric, all allowing for each other, and what was left out.

    The methods are called A (the first), B, C, ... in the texts; shares are in percent.
    """
    lines, left_out, few = [], [], dict[str, list[str]]()
    by_seed = {label: {run.report["seed"]: run for run in groups[label]} for label in (first, *others)}
    for label, letter in zip(others, letters(len(others) + 1)[1:], strict=True):
        common = by_seed[first].keys() & by_seed[label].keys()
        for metric in metrics:
            measure = measure_of([*groups[first], *groups[label]], metric)
            found = [values_of(by_seed[name], selection, metric) for name in (first, label)]
            one, other = ({seed: measure.factor * value for seed, value in side.items()} for side in found)
            if not common <= one.keys() & other.keys():
                left_out.append(f"{metric} is not a number in every run of A and {letter}")
                continue
            if len(common) < 2:
                few.setdefault(f"{label} ({letter})", []).append(metric)
                continue
            comparison = compare(one, other, better=better or measure.better, names=("A", letter))
            lines.append(Line(label, metric, "%" if measure.kind == "share" else "", (one, other), comparison))
    for name, by in few.items():
        which = ", ".join(by) if len(by) < len(metrics) else "any metric" if len(by) > 1 else by[0]
        left_out.append(f"{name} has fewer than 2 seeds in common with {first} (A) by {which}")
    if not lines:
        raise ValueError(f"nothing can be compared: {'; '.join(left_out)}")
    allowing = together([line.comparison for line in lines])
    return [replace(line, comparison=c) for line, c in zip(lines, allowing, strict=True)], left_out


def letters(count: int) -> list[str]:
    """A, B, ..., Z, A2, B2, ..."""
    alphabet = string.ascii_uppercase
    return [alphabet[i % 26] + (str(i // 26 + 1) if i >= 26 else "") for i in range(count)]


def compared_sheet(lines: Sequence[Line]) -> Sheet:
    """A section for each other method, a line for each metric."""
    rows: list[sheet.Line] = []
    for number, line in enumerate(lines):
        c = line.comparison
        first, other = (interval([side[seed] for seed in c.differences]).shown() for side in line.sides)
        metric = " ".join(filter(None, [line.metric, ARROWS[c.better] if c.better else "", line.unit]))
        apart = number > 0 and line.label != lines[number - 1].label
        cells = [metric, first, f"{c.names[1]}: {other}", _p(c.adjusted), c.text]
        rows.append(sheet.Line(cells, "told apart" if c.told_apart else "", apart))
    columns = ["metric", "A", "against", "p", "what the seeds show"]
    return Sheet(columns, rows, words=len(columns))


def notes(lines: Sequence[Line], left_out: Sequence[str]) -> list[str]:
    """What the numbers are."""
    said = [
        "± is the 95 % t-interval over the common seeds; a difference is A minus the other, seed by seed.",
        "p is that of the paired t-test.",
    ]
    if len(lines) > 1:
        said[1] = (
            f"p is that of the paired t-test, adjusted by Holm's method for all {len(lines)} comparisons made here; "
            "the intervals are those of each alone. Name the one metric that matters (--metric) to ask less of it."
        )
    if unknown := dict.fromkeys(line.metric for line in lines if line.comparison.better is None):
        said.append(
            f"Nobody declared which way {', '.join(unknown)} is better, so none is called so; --better says it."
        )
    return [*said, *(f"Left out: {what}." for what in left_out)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[place("outputs")], help="run folders, or what is above"
    )
    parser.add_argument(
        "--first", metavar="LABEL", help="a method, by experiment and changes: 'cub_rambo loss=triplet'"
    )
    parser.add_argument("--second", metavar="LABEL", nargs="+", help="what it is compared with (default: all others)")
    parser.add_argument("--metric", nargs="+", help="such as test/mae (default: every metric of the test split)")
    parser.add_argument("--selected", default="last", help="last, best_on_validation, best_on_test (default: last)")
    parser.add_argument("--better", choices=("higher", "lower"), help="overrides what the metrics declare")
    chosen = parser.parse_args(arguments)
    try:
        found = find_runs(chosen.folders)
        groups = group_by_method(found)
        first, others = choose(groups, chosen.first, chosen.second)
        check_comparable(groups, [first, *others])
        metrics = metrics_of(groups, [first, *others], chosen.selected, chosen.metric)
        lines, left_out = compare_all(groups, first, others, metrics, chosen.selected, chosen.better)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    named = zip(letters(len(others) + 1), [first, *others], strict=True)
    methods = [f"{letter}: {label}  ({_seeds(groups[label])})" for letter, label in named]
    stand_in = any(run.report["data"].get("fixture") for label in (first, *others) for run in groups[label])
    compared = replace(
        compared_sheet(lines),
        banner=runs.STAND_IN if stand_in else "",
        above=[*methods, f"selected: {chosen.selected.replace('_', ' ')}"],
        below=notes(lines, left_out),
    )
    sheet.show(compared)


def _seeds(members: Sequence[Run]) -> str:
    return "seeds " + ", ".join(str(run.report["seed"]) for run in members)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    main()
