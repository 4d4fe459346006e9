"""How to repeat a run, or what differs between two: python scripts/provenance.py RUN [OTHER]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness import words
from harness.record import repeat, reproducibility, runs
from harness.record.allowed import OPTION, NotAllowedError
from harness.record.difference import Compared, difference
from harness.record.repeat import Recorded

SHOWN = 6  # differences of a section, so that two runs fit one screen
DECIDES_BITS = ("processor", "instructions", "gpus", "cuda", "cudnn", "platform")
Part = tuple[str, list[str], list[str]]  # heading, commands, remarks


def how_to_repeat(run: Recorded, here: Mapping[str, Any], allow: Sequence[str]) -> Iterator[Part]:
    """What to do, in order, each with what is known about it; `here` is the provenance of this process."""
    yield code_part(run, here)
    yield packages_part(run, here)
    commands, remark = repeat.data_steps(run)
    yield "Data", commands, [remark]
    yield command_part(run, allow)
    yield bits_part(run, here)


def code_part(run: Recorded, here: Mapping[str, Any]) -> Part:
    commands, remark = repeat.code_steps(run)
    remarks = [remark] if remark else []
    code = run.report.get("code") or {}
    if code.get("revision") and code == here["code"]:
        remarks.append("The code here is the same.")
    elif code.get("revision") and "revision" in here["code"]:
        same = code["revision"] == here["code"]["revision"]
        way = "the same revision with other uncommitted changes" if same else "another revision"
        remarks.append(f"The code here is of {way} ({here['code']['revision'][:12]}).")
    if began := run.report.get("began"):
        remarks.append(
            f"The run was interrupted and went on with another {', '.join(began)}: no one setting repeats it."
        )
    return "Code", commands, remarks


def packages_part(run: Recorded, here: Mapping[str, Any]) -> Part:
    pins = repeat.constraints(run)
    if not pins:
        return "Packages", [], ["No versions are on record."]
    then, now = ({"python": of["python"], **of["packages"]} for of in (run.report, here))
    other = [f"{name} {now.get(name, 'is missing')} (was {version})" for name, version in then.items()
             if now.get(name) != version]  # fmt: skip
    commands = [
        f"{words.line(['python', 'scripts/provenance.py', str(run.folder), '--constraints'])} > constraints.txt",
        'pip install --requirement constraints.txt --editable ".[train]"',
    ]
    remark = f"Here differ: {', '.join(other)}." if other else f"Here all {len(pins)} versions are the same."
    return f"Packages, under Python {run.report['python']}", commands, [remark]


def command_part(run: Recorded, allow: Sequence[str] = ()) -> Part:
    """The command, and whether this checkout makes the same config of it."""
    words = repeat.arguments(run)
    if words is None:
        return (
            "Command",
            [],
            [f"The command is not on record; {run.folder / 'config.yaml'} holds all that it composed."],
        )
    try:
        other = repeat.composes_otherwise(run, words, allow=allow)
    except NotAllowedError as error:
        return "Command", [], [f"Not shown, as it should not be run unseen. {error}"]
    except (ValueError, ImportError) as error:
        return "Command", [repeat.command(words)], [f"It does not compose here: {error}"]
    if not other:
        return "Command", [repeat.command(words)], [f"Here it is the same run, {runs.fingerprint(run.config)}."]
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    return "Command", [repeat.command(words)], [f"Here it is another run: {'; '.join(other[:3])}{more}."]


def bits_part(run: Recorded, here: Mapping[str, Any]) -> Part:
    """On what the numbers are the same to the last bit."""
    hardware = run.report.get("hardware") or {}
    if not hardware:
        return "Bits", [], ["The hardware is not on record."]
    device = run.report.get("device", "device not on record")
    known = [str(hardware[key]) for key in ("processor", "instructions", "platform") if hardware.get(key)]
    remarks = [f"{device}, {_threads(hardware.get('threads'))}, {', '.join([*known, *hardware.get('gpus', [])])}."]
    if not run.config.get("deterministic", True):
        remarks.append("Deterministic algorithms were off: last bits may differ from run to run.")
    elif str(device).startswith("cuda"):
        remarks.append("On a GPU the bits repeat as far as its operations have deterministic algorithms.")
    other = [key for key in DECIDES_BITS if key in hardware and hardware[key] != here["hardware"].get(key)]
    remarks.append(f"Here differ: {', '.join(other)}; expect other last bits." if other else "Here it is all the same.")
    return "Bits are the same on", [], remarks


def _threads(count: Any) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def print_steps(run: Recorded, console: Console, allow: Sequence[str] = ()) -> None:
    console.print(f"[bold]{escape(run.name)}[/bold]  {escape(str(run.folder))}", highlight=False, soft_wrap=True)
    here = reproducibility.provenance()
    for number, (heading, commands, remarks) in enumerate(how_to_repeat(run, here, allow), start=1):
        console.print(f"\n[bold]{number}. {heading}[/bold]", highlight=False)
        for line in commands:  # not wrapped, so that they can be copied
            console.print(f"   {line}", style="green", markup=False, highlight=False, soft_wrap=True)
        for remark in remarks:
            console.print(f"   {remark}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nAfterwards, python scripts/provenance.py RUN OTHER says whether it did repeat.")


def print_difference(first: Recorded, second: Recorded, console: Console, everything: bool) -> None:
    found = difference(first, second)
    for name, run in (("A", first), ("B", second)):
        console.print(f"{name}: {escape(run.name)}  {escape(str(run.folder))}", highlight=False, soft_wrap=True)
    console.print(f"[bold]{found.verdict()}[/bold]", highlight=False)
    if found.differing:
        console.print(table(found, len(max(found.differing.values(), key=len)) if everything else SHOWN))
    for line in summary(found, first, second):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def table(found: Compared, most: int) -> Table:
    """Differences by section, at most `most` of each."""
    shown = Table()
    for name, wraps in (("", False), ("what", True), ("A", True), ("B", True), ("B - A", False)):
        shown.add_column(name, overflow="fold", no_wrap=not wraps, justify="right" if name == "B - A" else "left")
    for section, differences in found.differing.items():
        shown.add_section()
        for number, one in enumerate(differences[:most]):
            shown.add_row("" if number else section, *map(escape, (one.what, one.first, one.second, one.gap)))
        if len(differences) > most:
            shown.add_row("", f"and {len(differences) - most} more (--all)", "", "", "")
    return shown


def summary(found: Compared, first: Recorded, second: Recorded) -> Iterator[str]:
    """What is equal, what is not known, and where to look further."""
    if found.same:
        yield "same: " + ", ".join(f"{section} ({count})" for section, count in found.same.items())
    if found.unknown:
        yield f"not on record in one or both: {', '.join(found.unknown)}"
    if found.changes_nothing:
        yield f"different, but shapes no number: {', '.join(found.changes_nothing)}"
    one, other = (str((run.report.get("code") or {}).get("revision", "")) for run in (first, second))
    if one and other and one != other:
        yield words.line(["git", "diff", one[:12], other[:12], "--", "*.py", "*.yaml"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder, finished or not")
    parser.add_argument("other", type=Path, nargs="?", help="a second one: what differs is shown")
    parser.add_argument("--constraints", action="store_true", help="print the versions for pip, and nothing else")
    parser.add_argument("--all", action="store_true", help=f"every difference, also beyond {SHOWN} of a kind")
    parser.add_argument("--allow", **OPTION)
    chosen = parser.parse_args(arguments)
    try:
        run = repeat.read(chosen.run)
        other = repeat.read(chosen.other) if chosen.other else None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    if chosen.constraints:
        print("\n".join(repeat.constraints(run)))
    elif other is not None:
        print_difference(run, other, Console(), chosen.all)
    else:
        print_steps(run, Console(), chosen.allow)


if __name__ == "__main__":
    main()
