"""Whether tables put the same methods in the same order: python scripts/agreement.py FIRST.csv SECOND.csv."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.show.sheet import Line, Sheet, show
from harness.study.uncertainty import LEVEL

Means = Mapping[str, tuple[float, float, int]]  # of a method: mean and half-width over seeds, and how many there are
DRAWS = 10_000


def means(path: Path, column: str) -> Means:
    """What a table's CSV says of one column, by row, without rows of untrained networks, high values being better.

    Raises:
        ValueError: If the file is no table's CSV, lacks the column, or no row of it has two seeds.
    """
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or not {"row", "selection", "column", "better", "ours", "half_width", "seeds"} <= lines[0].keys():
        raise ValueError(f"{path} is not a table's CSV, as scripts/table.py writes it")
    there = {line["column"] for line in lines}
    if column not in there:
        raise ValueError(f"{path} has no column {column}; it has {', '.join(sorted(there))}")
    own = [line for line in lines if line["column"] == column and line["selection"] != "untrained"]
    sign = {"higher": 1, "lower": -1}
    found = {
        line["row"]: (sign[line["better"]] * float(line["ours"]), float(line["half_width"]), int(line["seeds"]))
        for line in own
        if line["half_width"]
    }
    if not found:
        raise ValueError(f"{path} has no row with two seeds in {column}")
    return found


def drawn(means: Means, rows: Sequence[str], generator: np.random.Generator) -> np.ndarray:
    """(DRAWS, rows): where the means over all seeds may lie, by the t distribution behind their intervals."""
    columns = []
    for row in rows:
        mean, half, seeds = means[row]
        error = half / stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
        columns.append(mean + error * generator.standard_t(seeds - 1, DRAWS))
    return np.stack(columns, axis=1)


def agreement(first: Means, second: Means, rows: Sequence[str]) -> tuple[float, float, float, float]:
    """Spearman's correlation of the two orders, the 95 % range that the seeds leave it, and its p-value.

    The range is that of the correlation when each mean is drawn from the distribution behind its interval; it says
    nothing of other losses or data. The p-value is that of a permutation test: the chance of a correlation at least as
    far from 0 between orders that have nothing to do with each other.
    """
    one, other = ([means[row][0] for row in rows] for means in (first, second))

    def correlation(values: Sequence[float]) -> float:
        return float(stats.spearmanr(values, other).statistic)

    generator = np.random.default_rng(0)
    ranks = [stats.rankdata(drawn(means, rows, generator), axis=1) for means in (first, second)]
    centred = [r - r.mean(axis=1, keepdims=True) for r in ranks]
    found = (centred[0] * centred[1]).sum(1) / np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    test = stats.permutation_test(
        (one,), correlation, permutation_type="pairings", n_resamples=DRAWS, rng=np.random.default_rng(0)
    )
    return correlation(one), float(low), float(high), float(test.pvalue)


def compared(tables: Mapping[str, Means], column: str) -> Sheet:
    """The order of the methods that all tables have, side by side, and how far each two tables agree.

    Raises:
        ValueError: Under three methods in common.
    """
    common = [row for row in next(iter(tables.values())) if all(row in other for other in tables.values())]
    if len(common) < 3:
        raise ValueError(f"the tables have {len(common)} methods with two seeds in common ({common}), wanted 3 or more")
    order = {name: stats.rankdata([-own[row][0] for row in common]) for name, own in tables.items()}
    placed = [
        Line([row, *(f"{order[n][i]:g}: {abs(own[row][0]):.1f} ± {own[row][1]:.1f}" for n, own in tables.items())])
        for i, row in sorted(enumerate(common), key=lambda item: sum(order[n][item[0]] for n in tables))
    ]
    notes = []
    for one, other in combinations(tables, 2):
        rho, low, high, p_value = agreement(tables[one], tables[other], common)
        told = f"rank correlation {rho:.2f}, from {low:.2f} to {high:.2f} by the seeds, p = {p_value:.3f}"
        notes.append(f"{one} and {other}: {told} ({len(common)} methods, {math.factorial(len(common))} orders).")
    title = f"Place by {column}: mean ± half of the 95 % interval"
    return Sheet(["method", *tables], placed, title=title, below=notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path, help="two or more CSV files that scripts/table.py wrote")
    parser.add_argument("--column", default="MAP@R", help="by which the methods are put in order")
    arguments = parser.parse_args()
    try:
        if len(arguments.tables) < 2:
            raise ValueError("comparing takes two tables or more")
        tables = {path.stem: means(path, arguments.column) for path in arguments.tables}
        show(compared(tables, arguments.column))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
