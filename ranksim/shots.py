"""Many, medium and few shot: which targets had how many training samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ranksim.bins import SHOTS, Density

SHOT_RULES = ("counts", "official_bins")


def shots_of(targets: Tensor, density: Density, rule: str = "counts", many: int = 100, few: int = 20) -> Tensor:
    """The shot of each target, as its position in `SHOTS`: 0 many, 1 medium, 2 few; int64 (samples,).

    Args:
        targets: (samples,).
        density: Of the training targets.
        rule: `counts`: by the training samples in the bin of the target. `official_bins`: by the lists of bins that the
            data set comes with, `density.official_shots`; bins in none of them are few.
        many: More training samples than this are many.
        few: Fewer training samples than this are few; from `few` to `many` is medium.

    Raises:
        ValueError: If the rule is unknown, `few` is larger than `many`, or the data set has no lists.

    Source: Yang et al. 2021, section 4; the lists for STS-B-DIR are in the official code only.
    """
    return bin_shots(density, rule, many, few)[density.bins(targets.cpu())]


def bin_shots(density: Density, rule: str = "counts", many: int = 100, few: int = 20) -> Tensor:
    """The shot of each bin by the rules of `shots_of`, int64 (bins,)."""
    check_shot_rule(rule, many, few)
    if rule == "counts":
        return 1 + (density.counts < few).long() - (density.counts > many).long()
    if density.official_shots is None:
        raise ValueError("this data set has no official lists of shots; use shot_rule counts")
    shots = torch.full_like(density.counts, SHOTS.index("few"))
    for name, bins in density.official_shots.items():
        shots[list(bins)] = SHOTS.index(name)
    return shots


def shot_groups(
    targets: Tensor, density: Density, rule: str = "counts", many: int = 100, few: int = 20
) -> dict[str, Tensor]:
    """Which targets belong to each shot and to each kind of zero-shot, bool (samples,) by name."""
    shots = shots_of(targets, density, rule, many, few)
    unseen = density.counts[density.bins(targets.cpu())] == 0
    inside = (targets >= density.lowest) & (targets <= density.highest)
    groups = {name: shots == place for place, name in enumerate(SHOTS)}
    return {**groups, "zero_interpolation": unseen & inside, "zero_extrapolation": unseen & ~inside}


def check_shot_rule(rule: str, many: int, few: int) -> None:
    """Refuses what is no rule.

    Raises:
        ValueError: If the rule is unknown or `few` is larger than `many`.
    """
    if rule not in SHOT_RULES:
        raise ValueError(f"shot_rule must be one of {', '.join(SHOT_RULES)}, got {rule!r}")
    if not 0 <= few <= many:
        raise ValueError(f"shots need 0 <= few <= many, got few={few} and many={many}")
