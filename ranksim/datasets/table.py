"""Anybody's own images or numbers: a table with a target column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ranksim.datasets.fixture import write_own_images, write_own_numbers
from ranksim.datasets.imbalanced import TEST, TRAIN, VALIDATION, balanced_parts, random_parts
from ranksim.datasets.regression import RegressionData, Shared
from ranksim.datasets.samples import PARTS, Samples, check_targets

SPLITS = ("imbalanced", "random")
NUMBERED = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


class TableData(RegressionData):
    """Your own images or numbers: a CSV file (or .tsv, tab separated) with a header and a row for each sample.

    With `image`, that column holds paths of images relative to `root`, turned as their EXIF orientation says. Without,
    samples are rows of numbers: the columns `features`, or else all other columns that hold numbers. They are
    standardised by mean and standard deviation of the training rows, which `describe` tells.

    Who trains and who is evaluated is decided by the column `split_column` (train; val, validation or dev; test), where
    the table has it. Else by `split`: "imbalanced" makes validation and test balanced over the bins of the target and
    leaves all imbalance to training, as the DIR benchmarks were made from their data; "random" draws rows. Both draws
    depend on `split_seed` and, for images, on their paths, for numbers on the order of the rows, and never on the seed
    of the run.

    Args:
        root: Folder of the table and the images.
        table: The file, relative to `root` or absolute.
        target: Name of the column to be predicted.
        image: Name of the column of image paths; None for numbers.
        features: Names of the columns of numbers; None for all that there are.
        split_column: Name of the column that says the part; None to pass it over.
        split: "imbalanced" or "random", where no column decides.
        most: For "imbalanced", the largest number of samples of one bin in validation, and in the test.
        share: For "random", the share of the samples in validation, and in the test.
        split_seed: Another one gives another draw of the parts.

    Raises:
        FileNotFoundError: If there is no such table, or listed images are missing.
        ValueError: If a column is missing or does not hold what it should; names the line.
    """

    title = "table"
    remedy = "check data.root, data.table and the names of its columns"
    upright = True

    def __init__(
        self,
        root: str | Path,
        table: str | Path = "table.csv",
        target: str = "target",
        image: str | None = None,
        features: Sequence[str] | None = None,
        split_column: str | None = "split",
        split: str = "imbalanced",
        most: int = 30,
        share: float = 0.1,
        split_seed: int = 0,
        **shared: Unpack[Shared],
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if image is not None and features is not None:
            raise ValueError("samples are images or numbers: give data.image or data.features, not both")
        if features is not None and target in features:
            raise ValueError(f"the target {target!r} cannot be a feature as well; leave it out of data.features")
        self.target, self.image = target, image
        self.features = None if features is None else [str(name) for name in features]
        self.split_column, self.split = split_column, split
        self.most, self.share, self.split_seed = most, share, split_seed
        self.table = Path(table).name if shared.get("fixture") else table
        self.standardised: dict[str, dict[str, float]] = {}
        self.passed_over: list[str] = []
        super().__init__(root, **shared)

    def read(self, root: Path) -> dict[str, Samples]:
        """The three parts."""
        table = root / self.table  # an absolute path stays as it is
        if not table.is_file():
            raise FileNotFoundError(f"no table {table}; {self.remedy}")
        header, rows = read_table(table)
        wanted = [self.target, *([] if self.image is None else [self.image]), *(self.features or [])]
        for name in wanted:
            if name not in header:
                raise ValueError(f"{table} has no column {name!r}; its columns are {', '.join(header)}")
        numbers = None if self.image is not None else self._numbers(table, header, rows)
        everything = Samples(
            names=self._names(table, rows),
            targets=_numbers(table, self.target, rows),
            folder=None if self.image is None else root,
            columns={} if numbers is None else {"numbers": numbers},
        )
        check_targets(everything, str(table), self.lowest_target)
        parts = self._parts(table, header, rows, everything)
        if numbers is not None:
            self._standardise(numbers, parts == TRAIN)
        return {name: everything.where(parts == number) for name, number in NUMBERED.items()}

    def _names(self, table: Path, rows: Sequence[dict[str, str]]) -> list[str]:
        if self.image is None:
            return [f"row {number}" for number in range(1, len(rows) + 1)]
        first: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            path = row[self.image]
            if not path:
                raise ValueError(f"{table}, row {number} names no image; name one, or leave the row out")
            if path in first:
                raise ValueError(
                    f"{table} lists {path!r} in rows {first[path]} and {number}; leave one row for each image, so that"
                    " none is trained and tested on"
                )
            first[path] = number
        return list(first)

    def _numbers(self, table: Path, header: Sequence[str], rows: Sequence[dict[str, str]]) -> Tensor:
        """The features, float32 (rows, features), as they are."""
        names = self.features
        if names is None:
            free = [name for name in header if name not in (self.target, self.split_column)]
            names = [name for name in free if any(_is_number(row[name]) for row in rows)]
            self.passed_over = [name for name in free if name not in names]
        if not names:
            raise ValueError(
                f"{table} has no column of numbers beside the target; give data.features, or data.image for images"
            )
        self.standardised = {name: {} for name in names}
        columns = torch.stack([_numbers(table, name, rows) for name in names], dim=1)
        wrong = (~columns.isfinite()).nonzero().tolist()
        if wrong:
            row, column = wrong[0]
            raise ValueError(
                f"{table} has {len(wrong):,} features that are not finite numbers (the first in row {row + 1}, column"
                f" {names[column]!r}); fill them in, or leave these rows out"
            )
        return columns

    def _parts(self, table: Path, header: Sequence[str], rows: Sequence[dict[str, str]], everything: Samples) -> Tensor:
        """Which part each row belongs to, int64 (rows,)."""
        if self.split_column is not None and self.split_column in header:
            self.split = "column"
            return _listed_parts(table, self.split_column, [row[self.split_column] for row in rows])
        if self.split == "random":
            return random_parts(everything.names, self.share, self.split_seed)
        bins = self.binned(everything.targets)
        return balanced_parts(bins(everything.targets), everything.names, self.most, self.split_seed)

    def _standardise(self, numbers: Tensor, training: Tensor) -> None:
        """Brings each column, in place, to mean 0 and standard deviation 1 over the training rows."""
        exact = numbers.double()
        mean, deviation = exact[training].mean(dim=0), exact[training].std(dim=0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant column becomes 0
        numbers.copy_((exact - mean) / deviation)
        facts = zip(self.standardised, mean.tolist(), deviation.tolist(), strict=True)
        self.standardised = {name: {"mean": middle, "deviation": spread} for name, middle, spread in facts}

    def write_fixture(self, root: Path) -> Path:
        """90 rows with the columns that are asked for and no split."""
        table = str(self.table)
        if self.image is not None:
            return write_own_images(root, table, self.target, self.image)
        return write_own_numbers(root, table, self.target, self.features)

    def describe(self) -> dict[str, Any]:
        """What every data set tells, and how the rows were split and the features standardised."""
        made = {"most": self.most} if self.split == "imbalanced" else {"share": self.share}
        return {
            **super().describe(),
            "target": self.target,
            "split": self.split,
            **({**made, "split_seed": self.split_seed} if self.split in SPLITS else {}),
            "features": self.standardised,
            "passed_over": self.passed_over,
        }


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a table, blank lines left out, white space around values removed.

    Raises:
        ValueError: If it has no rows, a column twice, or a line of another length than the header.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix in (".tsv", ".tab") else ",")
        header = [name.strip() for name in next(reader, [])]
        twice = {name for name in header if header.count(name) > 1}
        if twice:
            raise ValueError(f"{path} has the column {min(twice)!r} more than once; give each its own name")
        rows = []
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num} has {len(values)} values and the header {len(header)}; quote"
                    " values that contain the separator"
                )
            rows.append({name: value.strip() for name, value in zip(header, values, strict=True)})
    if not rows:
        raise ValueError(f"{path} has no rows; it should have a header and a row for each sample")
    return header, rows


def _listed_parts(table: Path, column: str, values: Sequence[str]) -> Tensor:
    for number, value in enumerate(values, start=1):
        if value not in PARTS:
            raise ValueError(
                f"{table}, row {number}: {column} should be one of {', '.join(PARTS)}, got {value!r}; correct it, or"
                " set data.split_column=null"
            )
    named = [PARTS[value] for value in values]
    lacking = [part for part in NUMBERED if part not in named]
    if lacking:
        raise ValueError(
            f"the column {column!r} of {table} has no {' and no '.join(lacking)} rows; it needs all three parts, or set"
            " data.split_column=null to have them made"
        )
    return torch.tensor([NUMBERED[part] for part in named])


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _numbers(table: Path, column: str, rows: Sequence[dict[str, str]]) -> Tensor:
    """A column as float32 (rows,); nan and inf are numbers here."""
    values = []
    for number, row in enumerate(rows, start=1):
        if not _is_number(row[column]):
            raise ValueError(
                f"{table}, row {number}: {column} should be a number, got {row[column]!r}; correct it, or leave the row"
                " out"
            )
        values.append(float(row[column]))
    return torch.tensor(values)
