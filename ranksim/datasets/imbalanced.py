"""Imbalanced training data with balanced validation and test data, made from any samples: the DIR construction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

TRAIN, VALIDATION, TEST = range(3)


def balanced_parts(bins: Tensor, names: Sequence[str], most: int, split_seed: int = 0) -> Tensor:
    """Which part each sample goes to, so that validation and test are balanced over the bins as far as they can be.

    Of the n samples of a bin, k = min(n // 3, most) go to validation, as many to the test, and the rest, with all its
    imbalance, to training. So a bin with fewer than three samples is in training alone, and no bin is in validation or
    test only. Samples are drawn in the order of the sha256 of "split <split_seed> <name>", which no library's generator
    decides, nor the order of the samples.

    Args:
        bins: Bin of the target of each sample, int64 (n,).
        names: What each sample is called; all different.
        most: Largest number of samples of one bin in validation, and in the test.
        split_seed: Another one gives another draw. Not the seed of a run: results are comparable on one draw only.

    Returns:
        int64 (n,): 0 training, 1 validation, 2 test.

    Raises:
        ValueError: If `most` is less than 1, names and bins differ in number, or no bin has three samples.

    Source: Yang et al. 2021 (DIR), section 4.1, and the official code: AgeDB `most` 30, IMDB-WIKI 150, by year of age.
    """
    if most < 1:
        raise ValueError(f"at least 1 sample of a bin must be allowed in validation and test, got {most}")
    order = _drawn(names, split_seed)
    if len(bins) != len(order):
        raise ValueError(f"bins must have a row for each of the {len(order)} names, got {len(bins)}")
    members: dict[int, list[int]] = {}
    bin_of = bins.tolist()
    for index in order:
        members.setdefault(bin_of[index], []).append(index)
    parts = torch.zeros(len(bins), dtype=torch.int64)
    for drawn in members.values():
        few = min(len(drawn) // 3, most)
        parts[drawn[:few]] = VALIDATION
        parts[drawn[few : 2 * few]] = TEST
    if not (parts == TEST).any():
        raise ValueError(
            f"no bin of the target has three samples ({len(bins)} samples in {len(members)} bins), so none can go to"
            " validation and test; use wider bins or more samples"
        )
    return parts


def random_parts(names: Sequence[str], share: float, split_seed: int = 0) -> Tensor:
    """Which part each sample goes to, whatever its target: validation and test are as imbalanced as training.

    Args:
        names: What each sample is called; all different.
        share: Of the samples, the share that goes to validation, and to the test.
        split_seed: Another one gives another draw.

    Returns:
        int64 (n,): 0 training, 1 validation, 2 test.

    Raises:
        ValueError: If `share` is not between 0 and 0.5, or leaves a part empty.
    """
    if not 0 < share < 0.5:
        raise ValueError(f"the share of validation, and of the test, must be between 0 and 0.5, got {share}")
    order = _drawn(names, split_seed)
    count = max(1, round(share * len(order)))
    if len(order) - 2 * count < 1:
        raise ValueError(f"{len(order)} samples are too few for training, validation and test; use more")
    parts = torch.zeros(len(order), dtype=torch.int64)
    parts[order[:count]] = VALIDATION
    parts[order[count : 2 * count]] = TEST
    return parts


def exponential_tail(count: int, high: float, decay: float) -> Tensor:
    """`count` values between 0 and `high` whose density falls as exp(-value / decay), in ascending order.

    They are the quantiles (i + 1/2) / count of that distribution: a long tail without chance. An infinite `decay`
    spaces them evenly.

    Returns:
        float32 (count,).

    Raises:
        ValueError: If an argument is not positive.
    """
    if not (count > 0 and high > 0 and decay > 0):
        raise ValueError(f"count, high and decay must be positive, got {count}, {high} and {decay}")
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if decay == float("inf"):
        return (high * levels).float()
    reach = torch.tensor(-high / decay, dtype=torch.float64).expm1()
    return (-decay * (levels * reach).log1p()).float()


def _drawn(names: Sequence[str], split_seed: int) -> list[int]:
    """The indices of the samples in an order that their names and `split_seed` decide."""
    if len(set(names)) != len(names):
        raise ValueError(f"{len(names)} samples have {len(set(names))} different names; give each its own")
    keys = [hashlib.sha256(f"split {split_seed} {name}".encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)
