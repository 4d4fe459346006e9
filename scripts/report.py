"""A table of finished runs: python scripts/report.py outputs/cub_rambo."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.results import find_runs, markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("outputs")], help="run folders, or what is above"
    )
    parser.add_argument("--metrics", nargs="+", help="columns; default: every metric of the test split")
    parser.add_argument(
        "--selected",
        nargs="+",
        default=["untrained", "last", "best_on_validation", "best_on_test"],
        help="rows of each method: untrained, last, best_on_validation, best_on_test (as the papers select)",
    )
    arguments = parser.parse_args()
    try:
        found = find_runs(arguments.folders)
        tested = [
            name for run in found for name in run.report["results"]["last"]["metrics"] if name.startswith("test/")
        ]
        print(markdown(found, arguments.selected, arguments.metrics or list(dict.fromkeys(tested))))
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
