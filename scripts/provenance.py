"""How to repeat a run, or what differs between two: python scripts/provenance.py RUN [OTHER]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from rich.console import Console

from harness import words
from harness.record import repeat, reproducibility
from harness.record.allowed import OPTION, NotAllowedError
from harness.record.composition import composed
from harness.record.config import changes, fingerprint, shaping
from harness.record.repeat import Compared, Recorded, compared
from harness.show.sheet import Line, Sheet, show

SHOWN = 6  # differences of a section, so that two runs fit one screen
DECIDES_BITS = ("processor", "instructions", "gpus", "cuda", "cudnn", "platform")
Step = tuple[str, list[str], list[str]]  # heading, commands, remarks


def steps(run: Recorded, allow: Sequence[str]) -> Iterator[Step]:
    """What to do to repeat `run`, in order, each with what is otherwise in this process."""
    here, _ = reproducibility.provenance()
    yield code_step(run, here)
    yield packages_step(run, here)
    commands, remark = repeat.data_steps(run)
    yield "Data", commands, [remark]
    yield "Command", *command_step(run, allow)
    yield bits_step(run, here)


def code_step(run: Recorded, here: Mapping[str, Any]) -> Step:
    code, now = run.report["code"], here["code"]
    commands, remark = repeat.code_steps(run)
    remarks = [remark] if remark else []
    if code and code == now:
        remarks.append("The code here is the same.")
    elif code and now:
        same = code.get("revision") == now["revision"]
        way = "the same revision with other uncommitted changes" if same else "another revision"
        remarks.append(f"The code here is of {way} ({now['revision'][:12]}).")
    if began := run.report.get("began"):
        remarks.append(
            f"The run was interrupted and went on with another {', '.join(began)}: no one setting repeats it."
        )
    return "Code", commands, remarks


def packages_step(run: Recorded, here: Mapping[str, Any]) -> Step:
    then, now = ({"python": of["python"], **of["packages"]} for of in (run.report, here))
    other = [f"{n} {now.get(n, 'is missing')} (was {v})" for n, v in then.items() if now.get(n) != v]
    commands = [
        f"{words.line(['python', 'scripts/provenance.py', str(run.folder), '--constraints'])} > constraints.txt",
        'pip install --requirement constraints.txt --editable ".[train]"',
    ]
    remark = f"Here differ: {', '.join(other)}." if other else f"Here all {len(then) - 1} versions are the same."
    return f"Packages, under Python {then['python']}", commands, [remark]


def command_step(run: Recorded, allow: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command, and whether this checkout makes the same config of it."""
    command = run.report["command"]
    try:
        other = changes(shaping(run.config), shaping(composed(repeat.arguments(command) or [], allow=allow)))
    except NotAllowedError as error:
        return [], [f"Not shown, as it should not be run unseen. {error}"]
    except (ValueError, ImportError) as error:
        return [words.line(command)], [f"It does not compose here: {error}"]
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    another = f"Here it is another run: {'; '.join(other[:3])}{more}."
    return [words.line(command)], [another if other else f"Here it is the same run, {fingerprint(run.config)}."]


def bits_step(run: Recorded, here: Mapping[str, Any]) -> Step:
    """On what the numbers are the same to the last bit."""
    hardware, device = run.report["hardware"], run.report["device"]
    known = [str(hardware[key]) for key in ("processor", "instructions", "platform") if hardware.get(key)]
    remarks = [f"{device}, threads: {hardware.get('threads')}, {', '.join([*known, *hardware.get('gpus', [])])}."]
    if not run.config.get("deterministic", True):
        remarks.append("Deterministic algorithms were off: last bits may differ from run to run.")
    elif device.startswith("cuda"):
        remarks.append("On a GPU the bits repeat as far as its operations have deterministic algorithms.")
    other = [key for key in DECIDES_BITS if hardware.get(key) != here["hardware"].get(key)]
    remarks.append(f"Here differ: {', '.join(other)}; expect other last bits." if other else "Here it is all the same.")
    return "Bits are the same on", [], remarks


def print_steps(run: Recorded, allow: Sequence[str]) -> None:
    """Every step with its number; lines are not wrapped, so that they can be copied."""
    repeat.check(run)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"{run.name}  {run.folder}")
    for number, (heading, commands, remarks) in enumerate(steps(run, allow), start=1):
        console.print(f"\n{number}. {heading}", style="bold")
        for line in commands:
            console.print(f"   {line}", style="green")
        for remark in remarks:
            console.print(f"   {remark}")
    console.print("\nAfterwards, python scripts/provenance.py RUN OTHER says whether it did repeat.")


def print_comparison(first: Recorded, second: Recorded, everything: bool) -> None:
    """What to make of two runs, then what differs, then what does not."""
    found = compared(first, second)
    for name, run in (("A", first), ("B", second)):
        print(f"{name}: {run.name}  {run.folder}")
    sheets = [differences(found, sys.maxsize if everything else SHOWN)] if found.differing else []
    show(*sheets, title=found.verdict(), notes=remarks(found))


def remarks(found: Compared) -> list[str]:
    """What is equal, what is not known, and where to look further."""
    said = []
    if found.same:
        said.append("same: " + ", ".join(f"{section} ({count})" for section, count in found.same.items()))
    if found.unknown:
        said.append(f"not on record in one or both: {', '.join(found.unknown)}")
    if found.changes_nothing:
        said.append(f"different, though not what makes a run another one: {', '.join(found.changes_nothing)}")
    if "revision" in found.differing.get("code", {}):
        revisions = [str(revision)[:12] for revision in found.differing["code"]["revision"]]
        said.append(words.line(["git", "diff", *revisions, "--", "*.py", "*.yaml"]))
    return said


def differences(found: Compared, most: int) -> Sheet:
    """What differs by section, at most `most` of each."""
    lines: list[Line] = []
    for section, values in found.differing.items():
        rows = []
        for key, (one, other) in values.items():
            numbers = section == "results" and isinstance(one, int | float) and isinstance(other, int | float)
            gap = f"{other - one:+.2g}" if numbers else ""  # also where they look alike when rounded
            rows.append(["", key, as_text(one), as_text(other), gap])
        rows[0][0] = section
        if len(rows) > most:
            rows[most:] = [["", f"and {len(rows) - most} more (--all)", "", "", ""]]
        lines += [Line(row, apart=bool(row[0] and lines)) for row in rows]
    return Sheet(["", "what", "A", "B", "B - A"], lines, words=4)


def as_text(value: Any) -> str:
    """A value in a cell; of a sha256 or a revision the beginning."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:12]}..." if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else text


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
        if chosen.constraints:
            print("\n".join(repeat.constraints(run)))
        elif chosen.other:
            print_comparison(run, repeat.read(chosen.other), chosen.all)
        else:
            print_steps(run, chosen.allow)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
