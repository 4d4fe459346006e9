"""Anybody's own images or numbers: a table with a target column."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from harness.data.images import check_same_files
from harness.data.spreadsheet import Spreadsheet, is_missing, plain, read_spreadsheet
from ranksim.datasets.fixture import write_own
from ranksim.datasets.imbalanced import balanced_parts, listed_parts, random_parts
from ranksim.datasets.reading import Numbers
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.samples import Samples, check_targets, warn_of_scale
from ranksim.metrics import name_in_metrics

log = logging.getLogger(__name__)


class TableData(RegressionData):
    """Your own images or numbers: a table with a row for each sample.

    With `image`, that column holds paths of images relative to `root`, turned as their EXIF orientation says; a column
    `crop`, or `left`, `top`, `right` and `bottom`, tells what part of a picture is looked at. Without,
    samples are rows of numbers: the columns `features`, or else all other columns that hold numbers. They are
    standardised by mean and standard deviation of the training rows, which `describe` tells. Columns of texts that
    `categories` names become a feature of 0 and 1 for each text that a training row has.

    The column `split_column`, where the table has it, decides who trains and who is evaluated; a table with another
    column that looks like one is refused. Validation or test rows that it lacks are drawn from its training rows.
    Without such a column all are drawn, by `split`: "imbalanced" as in `balanced_parts`, "random" as in `random_parts`.
    Both draws depend on `split_seed` and, for images, on their paths, for numbers on the order of the rows, and never
    on the seed of the run.

    Args:
        root: Folder of the table and the images.
        table: The file, relative to `root` or absolute.
        target: Name of the column to be predicted, or of several: then targets are (n, targets), parts are not drawn
            balanced, and there are neither bins nor shots, which are of one number.
        image: Name of the column of image paths; None for numbers.
        features: Names of the columns of numbers; None for all that there are.
        missing: What stands for missing numbers of a feature: "mean" or "median" of its training rows; None: refused.
        categories: Names of columns whose texts become features of 0 and 1; a missing or new text is 0 in all of them.
        split_column: Name of the column that says the part; None to pass it over, so that its test rows may be trained
            on.
        split: "imbalanced" or "random", for parts that no column decides.
        most: For "imbalanced", the largest number of samples of one bin in validation, and in the test.
        share: For "random", the share of the samples in validation, and in the test.
        split_seed: Another one gives another draw of the parts.

    Raises:
        FileNotFoundError: If there is no such table, or listed images are missing.
        ValueError: If a column is missing or does not hold what it should; names the line.
    """

    title = "table"
    remedy = "check data.root, data.table and the names of its columns"

    def __init__(
        self,
        root: str | Path,
        table: str | Path = "table.csv",
        target: str | Sequence[str] = "target",
        image: str | None = None,
        features: Sequence[str] | None = None,
        missing: str | None = None,
        categories: Sequence[str] | None = None,
        split_column: str | None = "split",
        split: str = "imbalanced",
        most: int = 30,
        share: float = 0.1,
        split_seed: int = 0,
        **shared: Any,
    ) -> None:
        if split not in ("imbalanced", "random"):
            raise ValueError(f"split must be one of imbalanced, random, got {split!r}")
        if image is not None and (features is not None or categories):
            raise ValueError(
                "samples are images or numbers: give data.image or data.features, not both (nor categories)"
            )
        if missing not in (None, "mean", "median"):
            raise ValueError(f"missing must be mean, median or null, got {missing!r}")
        self.target_names, self.image = [target] if isinstance(target, str) else [str(name) for name in target], image
        if not self.target_names:
            raise ValueError(f"data.target must name one column, or several different ones, got {target}")
        self.features = None if features is None else [str(name) for name in features]
        self.missing, self.categories = missing, [] if shared.get("fixture") else [str(n) for n in categories or []]
        self.split_column, self.split = split_column, split
        self._check_used_once()
        self.most, self.share, self.split_seed = most, share, split_seed
        self.table = Path(table).name if shared.get("fixture") else table
        self.standardised: dict[str, dict[str, Any]] = {}
        self.passed_over, self.drawn = list[str](), list[str]()
        super().__init__(root, **shared)
        if not self.fixture:
            warn_of_scale(self.parts["train"].targets, self.target_scale, self.target_names)

    def read(self, root: Path) -> dict[str, Samples]:
        """The three parts."""
        table = root / self.table  # an absolute path stays as it is
        if not table.is_file():
            raise FileNotFoundError(f"no table {table}; {self.remedy}")
        sheet = read_spreadsheet(table)
        self.target_names = [sheet.needed(name) for name in self.target_names]
        self.image = None if self.image is None else sheet.needed(self.image)
        self.features = None if self.features is None else [sheet.needed(name) for name in self.features]
        self.categories = [sheet.needed(name) for name in self.categories]
        self._check_used_once()  # names that differ by capitals, spaces or signs may be one column
        self.split_column = self._split_column(sheet)
        columns = [torch.tensor(sheet.numbers(name)) for name in self.target_names]
        targets = columns[0] if len(columns) == 1 else torch.stack(columns, dim=1)
        if self.image is None:
            numbers = self._numbers(sheet)
            everything = Samples([f"row {number}" for number in range(1, len(sheet.rows) + 1)], targets)
        else:
            crops = sheet.crops(self.target_names)
            paths = sheet.paths(self.image, crops)
            everything = Samples(paths, targets, folder=root, upright=True, crops=crops)
            check_same_files(root, everything.names)
        check_targets(everything, str(table), sheet.lines)
        parts = self._parts(sheet, everything)
        if self.image is None:
            training = torch.tensor([part == "train" for part in parts])
            features = [self._standardise(sheet, numbers, training), *self._encode(sheet, training)]
            everything = replace(everything, inputs={"numbers": torch.cat(features, dim=1)})
        return everything.parted(parts)

    def _check_used_once(self) -> None:
        """Refuses a column that is named twice: a target that is a feature would be told to the network."""
        targets, features, categories = self.target_names, self.features or [], self.categories
        if len(set(targets)) != len(targets):
            raise ValueError(f"data.target must name one column, or several different ones, got {targets}")
        if len({name_in_metrics(name) for name in targets}) != len(targets):
            raise ValueError(f"metrics write a slash as a stroke below, in which targets {targets} are one; rename one")
        if twice := {*targets, *features} & set(categories):
            raise ValueError(f"{min(twice)!r} cannot be one of data.categories and the target or a feature as well")
        if twice := set(targets) & set(features):
            raise ValueError(f"the target {min(twice)!r} cannot be a feature as well; leave it out of data.features")
        for what, names in (("features", features), ("categories", categories)):
            if len(set(names)) != len(names):
                raise ValueError(f"data.{what} names a column twice, got {names}; leave one out")

    def _split_column(self, sheet: Spreadsheet) -> str | None:
        """The column that says the part, if there is one; asks about others that may."""
        named = self.split_column
        alike = sheet.like_split([*self.target_names, self.image, *(self.features or []), *self.categories])
        if named is None:
            for name in alike:
                log.warning(
                    "data.split_column=null: the column %r of %s decides nothing, and rows that it keeps for the test"
                    " may be trained on",
                    name,
                    sheet.path,
                )
            return None
        found = sheet.column(named) if plain(named) == "split" else sheet.needed(named)
        if found is None and alike:
            raise ValueError(
                f"{sheet.path} has the column {alike[0]!r}, which may say who trains and who is tested; set"
                f" data.split_column={alike[0]!r} if it does, or data.split_column=null to pass it over"
            )
        return found

    def _numbers(self, sheet: Spreadsheet) -> Tensor:
        """The features, float32 (rows, features), as they are; missing ones are nan."""
        if self.features is None:
            taken = (*self.target_names, self.split_column, *self.categories)
            no_features = sheet.like_split(taken)
            free = [name for name in sheet.header if name not in taken]
            self.features = [
                n for n in free if sheet.numeric(n) and n not in no_features and not n.lower().startswith("unnamed")
            ]
            self.passed_over = [name for name in free if name not in self.features]
        if not self.features and not self.categories:
            raise ValueError(
                f"{sheet.path} has no column of numbers beside the target; give data.features, or data.image for images"
            )
        if self.passed_over:
            log.info("columns of %s passed over, as no features: %s", sheet.path, ", ".join(self.passed_over))
        held = [sheet.numbers(name, self.missing is not None) for name in self.features]
        columns = torch.tensor(held).reshape(len(held), len(sheet.rows)).T.contiguous()
        refused = ~columns.isfinite() if self.missing is None else columns.isinf()
        wrong = refused.nonzero().tolist()
        if wrong:
            row, column = wrong[0]
            raise ValueError(
                f"{sheet.path} has {len(wrong):,} features that are not finite numbers (the first in row {row + 1},"
                f" column {self.features[column]!r}); fill them in, or leave these rows out"
                + " (data.missing=median fills in what is missing)"
                * (self.missing is None)
            )
        return columns

    def _standardise(self, sheet: Spreadsheet, numbers: Tensor, training: Tensor) -> Tensor:
        """Fills in what is missing, and brings each column to mean 0 and deviation 1 over the training rows."""
        exact, filled = numbers.double(), {}
        for place, name in enumerate(self.features or [] if self.missing is not None else []):
            column = exact[:, place]
            known = column[training & ~column.isnan()].tolist()
            if not known:
                raise ValueError(
                    f"no training row of {sheet.path} has a number in {name!r}; leave it out of data.features"
                )
            fill = fmean(known) if self.missing == "mean" else median(known)
            filled[name] = {"fill": fill, "missing": int(column.isnan().sum())}
            column[column.isnan()] = fill
        mean, deviation = exact[training].mean(dim=0), exact[training].std(dim=0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant column becomes 0
        for name, middle, spread in zip(self.features or [], mean.tolist(), deviation.tolist(), strict=True):
            self.standardised[name] = {"mean": middle, "deviation": spread, **filled.get(name, {})}
        return ((exact - mean) / deviation).float()

    def _encode(self, sheet: Spreadsheet, training: Tensor) -> list[Tensor]:
        """Of each column of texts, which of those of the training rows a row has, float32 (rows, texts)."""
        encoded = []
        for name in self.categories:
            texts = [row[name] for row in sheet.rows]
            held = [text for text, trained in zip(texts, training.tolist(), strict=True) if trained]
            known = sorted(text for text in set(held) if not is_missing(text))
            new = sum(not is_missing(text) and text not in known for text in texts)
            if new:
                log.warning(
                    "%d rows of %s have a %s that no training row has, and count as without", new, sheet.path, name
                )
            for text in known:
                self.standardised[f"{name}={text}"] = {"mean": 0.0, "deviation": 1.0, "column": name, "text": text}
            encoded.append(torch.tensor([[float(text == one) for one in known] for text in texts]))
        return encoded

    def _parts(self, sheet: Spreadsheet, everything: Samples) -> list[str]:
        """The part of each row: that of the column; where the column lacks a part, drawn from its training rows."""
        parts = ["train"] * len(everything) if self.split_column is None else listed_parts(sheet, self.split_column)
        self.drawn = [name for name in ("validation", "test") if name not in parts]
        if not self.drawn:
            return parts
        training = [row for row, part in enumerate(parts) if part == "train"]
        names = [key for key, part in zip(everything.keys(), parts, strict=True) if part == "train"]
        if self.split != "random" and len(self.target_names) > 1:
            raise ValueError(
                "data.split=imbalanced balances the parts over one target, and data.target names"
                f" {len(self.target_names)}; set data.split=random, or mark validation and test rows in a column split"
            )
        try:
            if self.split == "random":
                drawn = random_parts(names, self.share, self.split_seed)
            else:
                bins = self.binned(everything.targets)(everything.targets[training])
                drawn = balanced_parts(bins, names, self.most, self.split_seed)
        except ValueError as error:
            raise ValueError(f"{sheet.path}: {error}") from error
        for row, part in zip(training, drawn, strict=True):
            if part in self.drawn:
                parts[row] = part
        if self.split_column is not None:
            log.warning(
                "the column %r of %s has no %s rows: %d of its %d training rows are kept for that (data.split=%s)",
                self.split_column,
                sheet.path,
                " and no ".join(self.drawn),
                len(training) - parts.count("train"),
                len(training),
                self.split,
            )
        return parts

    @property
    def _named(self) -> str | list[str]:
        """The targets as `target` names them; one alone is a name and no list."""
        return list(self.target_names) if len(self.target_names) > 1 else self.target_names[0]

    def write_fixture(self, root: Path) -> Path:
        """90 rows with the columns that are asked for and no split."""
        return write_own(root, str(self.table), self.target_names, self.image, self.features)

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the column of the target is called, too, and how numbers are standardised."""
        numbers = {"_target_": "ranksim.datasets.reading.Numbers", "features": self.standardised}
        reader = {"reader": numbers} if self.image is None else {}
        return {**super().for_use(settings), **reader, "target": self._named}

    def as_trained(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """And numbers are read as its own were: gaps, texts, means and deviations are those of its training rows."""
        wanted = (facts.get("reader") or {}).get("features") or {}
        if self.image is None and self.standardised != wanted:
            reader, columns = Numbers(wanted), [*(self.features or []), *self.categories]
            if reader.features != columns:
                raise ValueError(
                    f"{self.table} has the features {', '.join(columns)}, and the model takes"
                    f" {', '.join(reader.features) or 'none'}; name them in data.features"
                )
            entries = reader.listed(self.root / self.table)
            read = {f"row {number}": reader.read(entry)["numbers"] for number, entry in enumerate(entries, start=1)}
            for rows in self.parts.values():
                inputs: Any = rows.inputs
                inputs["numbers"] = torch.stack([read[name] for name in rows.names])
            self.standardised = dict(wanted)
        super().as_trained(facts, settings)

    def describe(self) -> dict[str, Any]:
        """What every data set tells, and how the rows were split and the features standardised."""
        made = {"most": self.most} if self.split == "imbalanced" else {"share": self.share}
        by_column = {} if self.split_column is None else {"drawn": self.drawn}
        return {
            **super().describe(),
            "target": self._named,
            "split": self.split if self.split_column is None else "column",
            **by_column,
            **({**made, "split_seed": self.split_seed} if self.drawn else {}),
            "features": self.standardised,
            "passed_over": self.passed_over,
        }
