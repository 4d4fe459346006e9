"""Writes a tiny copy of a data set's layout: python scripts/fixture.py cub [data/cub] -> data/cub_fixture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.record.composition import place
from rambo.datasets import fixture as retrieval
from rambo.detection import fixture as detection
from ranksim.datasets import fixture as regression

LAYOUTS = {**retrieval.LAYOUTS, **regression.LAYOUTS, **detection.LAYOUTS}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a tiny copy of a data set's layout, for trial runs.")
    parser.add_argument("data", choices=sorted(LAYOUTS), help="which layout")
    parser.add_argument("root", type=Path, nargs="?", help="written beside it as <root>_fixture (default: data/<name>)")
    chosen = parser.parse_args(arguments)
    root = chosen.root or place("data") / chosen.data
    try:
        print(LAYOUTS[chosen.data](root))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
