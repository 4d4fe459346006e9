"""All methods in one recipe, each with a search of its own, then tested once: python scripts/fair.py omniglot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.record import allowed, reuse
from harness.record.composition import CONFIGS, place
from harness.record.reproducibility import CODE
from harness.show import fair_page
from harness.study import fair
from harness.study.fair_file import Fair
from harness.study.jobs import Outputs, alternating
from harness.study.table_cells import check_alike

FEW = 2  # trials and seeds of stand-in data, unless they are given: enough to see it run


def main() -> None:
    arguments = parsed()
    try:
        raise SystemExit(make(arguments))
    except (ValueError, OSError, ImportError, reuse.InUseError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
        raise SystemExit(130) from None


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a file of configs/fair, such as omniglot")
    parser.add_argument("--trials", type=int, help="of every method; default: the file's")
    parser.add_argument("--seeds", type=int, help="of the final runs: 0, 1, ...; default: the file's")
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="only these; default: all")
    parser.add_argument("--scale", help="fixture: the same on tiny stand-in data; the numbers mean nothing")
    parser.add_argument("--at-once", type=int, help="runs beside each other; default: one a GPU, or one a core")
    parser.add_argument("--no-run", action="store_true", help="run nothing: say what would be run")
    parser.add_argument("--runs", type=Path, help="where runs are found and go; default: paths.outputs of the config")
    parser.add_argument("--out", type=Path, default=place("outputs") / "tables", help="where the files go")
    parser.add_argument("--files", type=Path, default=CONFIGS / "fair", help="the folder of the comparisons")
    parser.add_argument("--allow", **allowed.OPTION)
    return parser.parse_args()


def make(arguments: argparse.Namespace) -> int:
    """Searches, chooses, tests and shows; what is finished is not repeated.

    Returns:
        The exit code: 1 if a final run failed, or every trial of a method.
    """
    if arguments.at_once is not None and arguments.at_once < 1:
        raise ValueError(f"--at-once must be at least 1, got {arguments.at_once}")
    default = FEW if arguments.scale else None
    comparison = Fair.named(arguments.name, arguments.files).smaller(
        default if arguments.trials is None else arguments.trials,
        default if arguments.seeds is None else arguments.seeds,
        arguments.methods,
    )
    print(f"{comparison.name}: looking for what is there", flush=True)
    folder, short = (arguments.runs or CODE / place("outputs")).absolute(), bool(arguments.scale)
    outputs = Outputs(folder, arguments.at_once, short)
    searches = fair.located(fair.plan_search(comparison, arguments.scale, arguments.allow), outputs)
    jobs = [job for search in searches.values() for job in search.jobs]
    there, finals = sum(bool(job.finished) for job in jobs), len(searches) * comparison.seeds
    told = f"search: {len(jobs)} runs, {there} finished; then {finals} final runs"
    print("\n".join([told, *outputs.notes(jobs)]), flush=True)
    if arguments.no_run:
        return 0
    with reuse.held(outputs.folder / reuse.LOCKS / comparison.label):
        return made(comparison, searches, outputs, arguments)


def made(comparison: Fair, searches: Mapping[str, fair.Search], outputs: Outputs, arguments: argparse.Namespace) -> int:
    """The rest of `make`, for which no other process may do the same."""
    fair.run(alternating([search.jobs for search in searches.values()]), outputs)
    searches = fair.located(searches, outputs)
    searches = {key: fair.read_search(comparison, search) for key, search in searches.items()}
    check_alike([run for search in searches.values() for run in search.runs])
    tests = fair.plan_tests(comparison, searches, arguments.allow)
    if not tests:
        fault = next(fault for search in searches.values() for fault in search.faults.values())
        raise ValueError(f"every trial of every method failed; the first says: {fault}")

    jobs = outputs.locate(alternating(list(tests.values())))
    print(f"final: {len(jobs)} runs, {sum(bool(job.finished) for job in jobs)} finished", flush=True)
    fair.run(jobs, outputs)
    ended = {key: outputs.locate(tests.get(key, [])) for key in searches}
    results = {key: fair.read_tests(comparison, search, ended[key]) for key, search in searches.items()}
    shown = fair.outcome(comparison, results, stand_in=bool(arguments.scale))
    print()
    fair_page.show(shown)
    print(f"written: {', '.join(map(str, fair_page.write(shown, arguments.out)))}")
    return int(any(method.faults or method.searched.chosen is None for method in results.values()))


if __name__ == "__main__":
    main()
