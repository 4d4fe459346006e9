"""Samples: what a part of a data set holds and which target each has, and the questions asked of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.rows import Rows
from harness.data.spreadsheet import PARTS, read_spreadsheet

log = logging.getLogger(__name__)
FARTHEST, NEAREST = 10.0, 0.01  # times their scale, where magnitudes of targets begin to be too large, or too small


@dataclass(frozen=True)
class Samples(Rows):
    """One part of a data set: n inputs and their targets.

    Attributes:
        targets: float32 (n,), or (n, k) where each sample has several.
        inputs: Anything else that a sample brings to its batch: name of the batch entry -> n values.
    """

    targets: Tensor
    _: KW_ONLY
    inputs: Mapping[str, Sequence[Any] | Tensor] = field(default_factory=dict)

    columns = (*Rows.columns, "targets", "inputs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets.dim() not in (1, 2) or self.targets.dtype != torch.float32:
            raise ValueError(
                f"targets must be float32 (n,) or (n, k), got {self.targets.dtype} {tuple(self.targets.shape)}"
            )

    def entries(self, index: int) -> dict[str, Any]:
        """The target and the inputs."""
        return {"target": self.targets[index], **{name: column[index] for name, column in self.inputs.items()}}

    def described(self) -> Iterator[object]:
        """Names and targets, then each input."""
        yield len(self)
        yield from zip(self.names, self.targets.tolist(), strict=True)
        for name, column in sorted(self.inputs.items()):
            yield name
            yield from column.tolist() if isinstance(column, Tensor) else column

    def describe(self) -> dict[str, Any]:
        """Counts of the targets for the run record: how many, how many different ones, their range, the commonest.

        Of several a sample, the range is that of each, and none is the commonest.
        """
        if self.targets.dim() == 2:
            ends = {"lowest": self.targets.amin(dim=0).tolist(), "highest": self.targets.amax(dim=0).tolist()}
            return {"samples": len(self), "different": len(torch.unique(self.targets, dim=0)), **ends}
        values, counts = torch.unique(self.targets, return_counts=True)
        return {
            "samples": len(self),
            "different": len(values),
            "lowest": float(values[0]),
            "highest": float(values[-1]),
            "commonest": float(values[counts.argmax()]),
            "largest_count": int(counts.max()),
        }


def read_split(table: Path) -> dict[str, Samples]:
    """The parts of a published split of faces: a table of age, path below its folder, and split."""
    sheet = read_spreadsheet(table)
    paths, ages = [row["path"] for row in sheet.rows], torch.tensor(sheet.numbers("age"))
    return Samples(paths, ages, folder=table.parent).parted([PARTS[row["split"]] for row in sheet.rows])


def check_targets(samples: Samples, where: str, lines: Sequence[int] | None = None) -> None:
    """Refuses targets that are not finite; the ValueError says how many, and names the first samples.

    `lines` are those of a table that the samples are from.
    """
    finite = samples.targets.isfinite().reshape(len(samples), -1)
    wrong = (~finite.all(dim=1)).nonzero()[:, 0].tolist()
    if wrong:
        names = {row: samples.names[row] + (f", line {lines[row]}" if lines else "") for row in wrong[:3]}
        held = {row: " ".join(f"{one:g}" for one in samples.targets[row].reshape(-1).tolist()) for row in names}
        first = "; ".join(f"{name}: {held[row]}" for row, name in names.items())
        raise ValueError(
            f"{where} has {len(wrong):,} of {len(samples):,} targets that are not a finite number"
            f" ({first}{'; ...' if len(wrong) > 3 else ''}); correct these rows, or leave them out"
        )


def warn_of_scale(targets: Tensor, scale: float | Sequence[float], names: Sequence[str]) -> None:
    """Says of which training targets a network can hardly learn, as they are far from 1 once divided by their scale.

    A network begins with answers round 0 and of size 1, which every step moves by about the learning rate: far ones are
    not reached, and near ones lost in the steps. Far is a median beyond `FARTHEST`, near a 90th percentile below
    `NEAREST`, both of magnitudes.

    Args:
        targets: float32 (samples,), or (samples, targets).
        scale: What they are divided by, one number or one for each target.
        names: Of the targets.
    """
    sizes = targets.reshape(len(targets), -1).abs().double().sort(dim=0).values
    scales = list(scale) if isinstance(scale, Sequence) else [scale] * len(names)
    better, wrong = [f"{one:g}" for one in scales], []
    for column, name in enumerate(names):
        middle, most = (float(sizes[int(share * (len(sizes) - 1)), column]) for share in (0.5, 0.9))
        if most > 0 and (middle > FARTHEST * scales[column] or most < NEAREST * scales[column]):
            power = math.ceil(math.log10(most))
            better[column] = str(10**power) if power >= 0 else f"1e{power}"
            wrong.append(f"{name} is {middle:g} in the median, where data.target_scale is {scales[column]:g}")
    if wrong:
        log.warning(
            "%s, and a network hardly learns targets so far from 1 once divided by it; set data.target_scale=%s",
            "; ".join(wrong),
            f"[{','.join(better)}]" if len(better) > 1 else better[0],
        )
