"""What every regression data set shares: bins and density of the targets, checks of them, batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.dataset import PartDataset, PartedData
from harness.data.loading import Batch, ShuffledBatches
from ranksim.bins import Bins, Density
from ranksim.datasets.samples import Samples, check_targets


class RegressionDataset(PartDataset[Samples]):
    """One part of a data set, with the density of the training targets, by which metrics tell shots."""

    density: Density | None = None


class RegressionData(PartedData[Samples]):
    """A regression data set, with bins and density of its targets.

    Args:
        root: Folder of the data.
        bins: Bins of the target, in which the training samples are counted. A number stands for that many bins of equal
            width over the range of all targets: of the test's too, so that a target far from every training target has
            a bin of its own instead of the nearest one.
        batch_size: Samples in a training batch; the last one of an epoch may be smaller, as in the official code.
        target_scale: What the losses divide targets by. Nothing here uses it: configs of models and losses refer to it.
        shared: As in `PartedData`.

    Raises:
        ValueError: If an argument or a target makes no sense.
    """

    official_shots: Mapping[str, Sequence[int]] | None = None
    """Shot -> bins, where the official evaluation lists them instead of counting."""

    def __init__(
        self,
        root: str | Path,
        *,
        bins: Bins | int,
        batch_size: int = 64,
        target_scale: float = 1.0,
        **shared: Any,
    ) -> None:
        if not 0 < target_scale < float("inf"):
            raise ValueError(f"target_scale must be a positive number, got {target_scale}")
        self.target_scale, self._bins = target_scale, bins
        shared.setdefault("evaluation_batch_size", 256)
        super().__init__(root, **shared)
        self.bins = self.binned(torch.cat([samples.targets for samples in self.parts.values()]))
        self.density = Density(self.parts["train"].targets, self.bins, self.official_shots)
        size = len(self.parts["train"])
        batches = ShuffledBatches(size, min(batch_size, 16) if self.fixture else batch_size, self.seed)
        self.open_loaders(batches)
        self._pass = self.epoch_loader(batches)

    def dataset(self, part: str) -> RegressionDataset:
        """One part as the loaders read it."""
        dataset = RegressionDataset(self.parts[part], self.transform_of(part), self.seed, self.cache)
        dataset.density = self.density
        return dataset

    def binned(self, targets: Tensor) -> Bins:
        """The bins asked for: as given, or a number of them over the range of all `targets`, float32 (n,)."""
        if isinstance(self._bins, Bins):
            return self._bins
        low, high = float(targets.min()), float(targets.max())
        if low == high:
            raise ValueError(
                f"every target of {self.title} in {self.root} is {low:g} (as float32): there is nothing to learn; "
                "check the column, or scale targets that differ by less than one part in 16 million"
            )
        if self._bins < 1:
            raise ValueError(
                f"cannot lay {self._bins} bins over targets from {low:g} to {high:g}; give data.bins a positive number,"
                " or edges"
            )
        return Bins.uniform(low, high, (high - low) / self._bins)

    def training_pass(self, epoch: int) -> Iterable[Batch]:
        """Every training sample once, augmented, in batches as large as training's, for statistics at epoch end.

        Drawn as for an epoch that training never reaches. Shuffled, as batch norm, in train mode, mixes what meets in a
        batch, and the samples may be sorted by target.
        """
        self._pass.set_epoch(-1 - epoch)
        return self._pass

    def check(self, parts: Mapping[str, Samples]) -> None:
        """Looks at sizes and targets too."""
        for part, least in (("train", 2), ("validation", 1), ("test", 1)):
            if len(parts[part]) < least:
                raise ValueError(
                    f"{self.title} in {self.root}: the {part} part has {len(parts[part])} samples and needs {least};"
                    f" {self.remedy}"
                )
        for part, samples in parts.items():
            check_targets(samples, f"{self.title} in {self.root}: the {part} part")
        super().check(parts)

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """How pictures are read, the scale of the target, and the density of the training targets."""
        return {**super().for_use(settings), "target_scale": self.target_scale, "density": self.density.record()}

    def as_trained(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """And shots are those of its own training targets."""
        super().as_trained(facts, settings)
        if facts.get("density"):
            for loader in self.evaluation.values():
                dataset: Any = loader.dataset
                dataset.density = Density.recorded(facts["density"])

    def describe(self) -> dict[str, Any]:
        """What every data set tells, the number of bins and the scale."""
        return {**super().describe(), "bins": self.bins.count, "target_scale": self.target_scale}
