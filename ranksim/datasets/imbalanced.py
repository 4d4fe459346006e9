"""Imbalanced training data with balanced validation and test data, made from any samples: the DIR construction."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from harness.data.spreadsheet import PARTS, Spreadsheet, part_named
from harness.seeds import fixed_order


def balanced_parts(bins: Tensor, names: Sequence[str], most: int, split_seed: int = 0) -> list[str]:
    """Which part each sample goes to, so that validation and test are balanced over the bins as far as they can be.

    Of the n samples of a bin, k = min(n // 3, most) go to validation, as many to the test, and the rest, with all its
    imbalance, to training. So a bin with fewer than three samples is in training alone, and no bin is in validation or
    test only. Samples are drawn in the order of the sha256 of "split <split_seed> <name>", whatever their order.

    Args:
        bins: Bin of the target of each sample, int64 (n,).
        names: What each sample is called; all different.
        most: Largest number of samples of one bin in validation, and in the test.
        split_seed: Another one gives another draw. Not the seed of a run: results are comparable on one draw only.

    Raises:
        ValueError: If `most` is less than 1, or no bin has three samples.

    Source: Yang et al. 2021 (DIR), section 4.1, and the official code: AgeDB `most` 30, IMDB-WIKI 150, by year of age.
    """
    if most < 1:
        raise ValueError(f"at least 1 sample of a bin must be allowed in validation and test, got {most}")
    bin_of = dict(zip(names, bins.tolist(), strict=True))
    members: dict[int, list[str]] = {}
    for name in fixed_order(names, f"split {split_seed}"):
        members.setdefault(bin_of[name], []).append(name)
    parts = dict.fromkeys(names, "train")
    for drawn in members.values():
        _hold_out(parts, drawn, min(len(drawn) // 3, most))
    if "test" not in parts.values():
        raise ValueError(
            f"no bin of the target has three samples ({len(names)} samples in {len(members)} bins), so none can go to"
            " validation and test; use wider bins or more samples"
        )
    return list(parts.values())


def random_parts(names: Sequence[str], share: float, split_seed: int = 0) -> list[str]:
    """Which part each sample goes to, whatever its target: validation and test are as imbalanced as training.

    Args:
        names: What each sample is called; all different.
        share: Of the samples, the share that goes to validation, and to the test.
        split_seed: Another one gives another draw.

    Raises:
        ValueError: If `share` is not between 0 and 0.5, or leaves a part empty.
    """
    if not 0 < share < 0.5:
        raise ValueError(f"the share of validation, and of the test, must be between 0 and 0.5, got {share}")
    count = max(1, round(share * len(names)))
    if len(names) - 2 * count < 1:
        raise ValueError(f"{len(names)} samples are too few for training, validation and test; use more")
    parts = dict.fromkeys(names, "train")
    _hold_out(parts, fixed_order(names, f"split {split_seed}"), count)
    return list(parts.values())


def _hold_out(parts: dict[str, str], drawn: list[str], count: int) -> None:
    parts.update(dict.fromkeys(drawn[:count], "validation"))
    parts.update(dict.fromkeys(drawn[count : 2 * count], "test"))


def listed_parts(sheet: Spreadsheet, column: str) -> list[str]:
    """The part of each row of a table, as a column says it; a ValueError names the row where it does not."""
    parts = []
    for number, row in enumerate(sheet.rows, start=1):
        part = part_named(row[column])
        if part is None:
            raise ValueError(
                f"{sheet.path}, row {number}: {column} should be one of {', '.join(PARTS)}, got {row[column]!r};"
                " correct it, or name another column in data.split_column"
            )
        parts.append(part)
    if "train" not in parts:
        raise ValueError(f"the column {column!r} of {sheet.path} has no training rows; mark some as train")
    return parts
