"""All methods in one recipe, each with a search of its own, then tested once: python scripts/fair.py omniglot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.device import cores
from harness.record import allowed, places, reuse, runs
from harness.record.composition import CONFIGS
from harness.show import fair_page
from harness.study import fair
from harness.study.fair_file import Fair, named
from harness.study.fair_outcome import check_alike, outcome, read_search, read_tests
from harness.study.table_runs import AtHand, Job, locate

ROOT = Path(__file__).resolve().parent.parent
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
    parser.add_argument("--out", type=Path, default=places.outputs() / "tables", help="where the files go")
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
    comparison = named(arguments.name, arguments.files).smaller(
        default if arguments.trials is None else arguments.trials,
        default if arguments.seeds is None else arguments.seeds,
        arguments.methods,
    )
    outputs = (arguments.runs or ROOT / places.outputs()).absolute()
    print(f"{comparison.name}: looking for what is there", flush=True)
    here = AtHand()
    planned = fair.plan_search(comparison, arguments.scale, CONFIGS, arguments.allow)
    searches = fair.located(planned, outputs, here)
    count = len(searches) * comparison.trials
    there = sum(bool(job.finished) for search in searches.values() for job in search.jobs)
    finals = len(searches) * comparison.seeds
    print(f"search: {count} runs, {there} finished; then {finals} final runs", flush=True)
    for line in here.notes([job for search in searches.values() for job in search.jobs]):
        print(line, flush=True)
    if arguments.no_run:
        return 0
    with reuse.held(outputs / reuse.LOCKS / f"fair-{comparison.name}"):
        return made(comparison, searches, outputs, arguments, here)


def made(
    comparison: Fair,
    searches: Mapping[str, fair.Search],
    outputs: Path,
    arguments: argparse.Namespace,
    here: AtHand,
) -> int:
    """The rest of `make`, for which no other process may do the same."""
    short = bool(arguments.scale)  # and too small to fill a GPU
    at_once = arguments.at_once or (cores() if short else None)

    def run(jobs: list[Job]) -> None:
        fair.run(jobs, ROOT / "train.py", outputs, at_once, here, short)

    run(fair.alternating([search.jobs for search in searches.values()]))
    searches = fair.located(searches, outputs, here)
    tried = [job for search in searches.values() for job in search.jobs]
    check_alike(tried)
    found = {key: read_search(comparison, search) for key, search in searches.items()}
    chosen = {key: search.chosen for key, search in found.items() if search.chosen is not None}
    if not chosen:
        fault = next(fault for search in found.values() for fault in search.faults.values())
        raise ValueError(f"every trial of every method failed; the first says: {fault}")

    index = runs.index(outputs)
    tests = fair.plan_tests(comparison, chosen, arguments.scale, CONFIGS, arguments.allow)
    planned = {key: locate(jobs, index, here) for key, jobs in tests.items()}
    jobs = fair.alternating(list(planned.values()))
    print(f"final: {len(jobs)} runs, {sum(bool(job.finished) for job in jobs)} finished", flush=True)
    run(jobs)
    index = runs.index(outputs)
    planned = {key: locate(own, index, here) for key, own in planned.items()}
    everything = [job for own in planned.values() for job in own]
    check_alike([*tried, *everything])
    results = {key: read_tests(comparison, search, planned.get(key, [])) for key, search in found.items()}
    shown = outcome(comparison, results, everything, stand_in=bool(arguments.scale))
    print()
    fair_page.show(shown)
    print(f"written: {', '.join(map(str, fair_page.write(shown, arguments.out)))}")
    return int(any(method.faults or method.searched.chosen is None for method in results.values()))


if __name__ == "__main__":
    main()
