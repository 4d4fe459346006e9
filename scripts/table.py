"""Tables of the papers beside our numbers: python scripts/table.py cub. What is not run yet is run first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.record import allowed
from harness.record.composition import CONFIGS, place
from harness.record.reproducibility import CODE
from harness.show import sheet, table_page
from harness.study.jobs import Job, Outputs, plan, to_do
from harness.study.table_cells import fill
from harness.study.tables import Table


def main() -> None:
    arguments = parsed()
    try:
        raise SystemExit(make(arguments))
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
        raise SystemExit(130) from None


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a file of configs/table, such as cub")
    parser.add_argument("--all", action="store_true", help="every table")
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ... (default: 3)")
    parser.add_argument("--scale", help="fixture: the same on tiny stand-in data; the numbers mean nothing")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="run these rows only, and show all")
    parser.add_argument("--no-run", action="store_true", help="run nothing: show what is there")
    parser.add_argument("--at-once", type=int, help="runs beside each other; default: one a GPU, or one a core")
    parser.add_argument("--runs", type=Path, help="where runs are found and go; default: paths.outputs of the config")
    parser.add_argument("--out", type=Path, default=place("outputs") / "tables", help="where the files go")
    parser.add_argument(
        "--formats", nargs="+", default=list(table_page.FILES), help="of the files (default: all), or none"
    )
    parser.add_argument("--tables", type=Path, default=CONFIGS / "table", help="the folder of the tables")
    parser.add_argument("--allow", **allowed.OPTION)
    return parser.parse_args()


def make(arguments: argparse.Namespace) -> int:
    """Runs what is missing, shows every table and writes its files.

    Returns:
        The exit code: 1 if anything failed that was asked for.
    """
    for option, value in (("--seeds", arguments.seeds), ("--at-once", arguments.at_once)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    formats = [] if arguments.formats == ["none"] else arguments.formats
    table_page.check_formats(formats)
    folder, short = (arguments.runs or CODE / place("outputs")).absolute(), bool(arguments.scale)
    outputs = Outputs(folder, arguments.at_once, short)
    if arguments.no_run and arguments.runs and not outputs.found:
        raise ValueError(f"no run below {arguments.runs}; without --no-run, what is missing is run into it")

    plans, code = planned(arguments, outputs)
    jobs = [job for _, own in plans for job in own]
    rows = dict.fromkeys(job.row for job in jobs)
    if unknown := [row for row in arguments.only if row not in rows]:
        raise ValueError(f"--only {unknown[0]}: no such row can be run; there are {', '.join(rows)}")
    asked = [job for job in jobs if not arguments.only or job.row in arguments.only]
    failed = {} if arguments.no_run else outputs.run(to_do(asked))

    for table, own in plans:
        filled = fill(table, outputs.locate(own), arguments.seeds, arguments.scale, failed)
        print()
        sheet.show(table_page.table_sheet(filled))
        if filled.faults and not any(line.folders for line in filled.lines):
            print("nothing written: no run of this table is there")  # a page that is there may have had them
        elif paths := table_page.write(filled, arguments.out, formats):
            print(f"written: {', '.join(map(str, paths))}")
        code = code or int(bool(filled.faults))
    return code


def planned(arguments: argparse.Namespace, outputs: Outputs) -> tuple[list[tuple[Table, list[Job]]], int]:
    """Every table that was asked for with its runs; of several, one that is faulty is told and costs only itself."""
    there = sorted(path.stem for path in arguments.tables.glob("*.yaml"))
    names = there if arguments.all else arguments.names
    if not names:
        known = ", ".join(there) or f"none in {arguments.tables}"
        raise ValueError(f"which table? name one or more, or --all; there are {known}")
    plans, code = [], 0
    for name in names:
        try:
            table = Table.named(name, arguments.tables)
            jobs = outputs.locate(plan(table, arguments.seeds, arguments.scale, arguments.allow))
        except ValueError as error:
            if len(names) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)
            code = 1
            continue
        if arguments.scale and not jobs:
            print(f"{table.name}: published numbers only, so nothing to run on stand-in data", flush=True)
            continue
        finished = sum(bool(job.finished) for job in jobs)
        begun = sum(bool(job.interrupted and not job.finished) for job in jobs)
        counts = f"{finished} finished, {begun} interrupted, {len(jobs) - finished - begun} missing"
        print("\n".join([f"{table.name}: {len(jobs)} runs: {counts}", *outputs.notes(jobs)]), flush=True)
        plans.append((table, jobs))
    return plans, code


if __name__ == "__main__":
    main()
