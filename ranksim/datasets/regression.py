"""What every regression data set shares: bins and density of the targets, checks of them, batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.dataset import PartDataset, PartedData
from harness.data.loading import Batch, ShuffledBatches
from harness.data.spreadsheet import plain
from ranksim.bins import Bins, Density
from ranksim.datasets.samples import Samples, check_targets


class RegressionDataset(PartDataset[Samples]):
    """One part of a data set, with the density of the training targets, by which metrics tell shots."""

    density: Density | None = None
    several: Sequence[str] = ()
    """The names of the targets, where a sample has several."""
    target_scale: float | Sequence[float] = 1.0


class RegressionData(PartedData[Samples]):
    """A regression data set, with bins and density of its targets.

    Args:
        root: Folder of the data.
        bins: Bins of the target, in which the training samples are counted. A number stands for that many bins of equal
            width over the range of all targets: of the test's too, so that a target far from every training target has
            a bin of its own instead of the nearest one.
        batch_size: Samples in a training batch; the last one of an epoch may be smaller, as in the official code.
        target_scale: What the losses divide targets by, or, of several targets, one number for each: configs of models
            and losses refer to it. Here it weighs the targets in metrics over several.
        shared: As in `PartedData`.

    Raises:
        ValueError: If an argument or a target makes no sense.
    """

    target_names: Sequence[str] = ("target",)
    """What the targets of a sample are called; of several there are neither bins nor density, which are of one."""
    official_shots: Mapping[str, Sequence[int]] | None = None
    """Shot -> bins, where the official evaluation lists them instead of counting."""

    def __init__(
        self,
        root: str | Path,
        *,
        bins: Bins | int,
        batch_size: int = 64,
        target_scale: float | Sequence[float] = 1.0,
        **shared: Any,
    ) -> None:
        scales = list(target_scale) if isinstance(target_scale, Sequence) else [target_scale]
        if not scales or not all(0 < scale < float("inf") for scale in scales):
            raise ValueError(f"target_scale must be a positive number, got {target_scale}")
        if len(scales) not in (1, len(self.target_names)):
            raise ValueError(
                f"target_scale has {len(scales)} numbers for {len(self.target_names)} targets"
                f" ({', '.join(self.target_names)}); give one for all, or one for each"
            )
        self.target_scale, self._bins = scales if len(scales) > 1 else scales[0], bins
        shared.setdefault("evaluation_batch_size", 256)
        super().__init__(root, **shared)
        self.bins: Bins | None = None
        self.density: Density | None = None
        targets = torch.cat([samples.targets for samples in self.parts.values()])
        if self.several:
            for name, column in zip(self.several, targets.T, strict=True):
                self._check_varied(column, f"target {name!r}")
        else:
            self.bins = self.binned(targets)
            self.density = Density(self.parts["train"].targets, self.bins, self.official_shots)
        size = len(self.parts["train"])
        batches = ShuffledBatches(size, min(batch_size, 16) if self.fixture else batch_size, self.seed)
        self.open_loaders(batches)
        self._pass = self.epoch_loader(batches)

    @property
    def several(self) -> Sequence[str]:
        """The names of the targets, where a sample has several."""
        return self.target_names if len(self.target_names) > 1 else ()

    def dataset(self, part: str) -> RegressionDataset:
        """One part as the loaders read it."""
        dataset = RegressionDataset(self.parts[part], self.transform_of(part), self.seed, self.cache)
        dataset.density, dataset.several, dataset.target_scale = self.density, self.several, self.target_scale
        return dataset

    def binned(self, targets: Tensor) -> Bins:
        """The bins asked for: as given, or a number of them over the range of all `targets`, float32 (n,)."""
        if isinstance(self._bins, Bins):
            return self._bins
        low, high = self._check_varied(targets, "target")
        if self._bins < 1:
            raise ValueError(
                f"cannot lay {self._bins} bins over targets from {low:g} to {high:g}; give data.bins a positive number,"
                " or edges"
            )
        return Bins.uniform(low, high, (high - low) / self._bins)

    def _check_varied(self, targets: Tensor, called: str) -> tuple[float, float]:
        """The lowest and the highest of them; refuses targets, float32 (n,), that are all the same."""
        low, high = float(targets.min()), float(targets.max())
        if low == high:
            raise ValueError(
                f"every {called} of {self.title} in {self.root} is {low:g} (as float32): there is nothing to learn; "
                "check the column, or scale targets that differ by less than one part in 16 million"
            )
        return low, high

    def training_pass(self, epoch: int) -> Iterable[Batch]:
        """Every training sample once, augmented, in batches as large as training's, for statistics at epoch end.

        Drawn as for an epoch that training never reaches. Shuffled, as batch norm, in train mode, mixes what meets in a
        batch, and the samples may be sorted by target.
        """
        self._pass.set_epoch(-1 - epoch)
        return self._pass

    def check_rows(self, parts: Mapping[str, Samples]) -> None:
        """Refuses a part with too few samples."""
        for part, least in (("train", 2), ("validation", 1), ("test", 1)):
            if len(parts[part]) < least:
                raise ValueError(
                    f"{self.title} in {self.root}: the {part} part has {len(parts[part])} samples and needs {least};"
                    f" {self.remedy}"
                )

    def check(self, parts: Mapping[str, Samples]) -> None:
        """Looks at sizes and targets too."""
        self.check_rows(parts)
        for part, samples in parts.items():
            check_targets(samples, f"{self.title} in {self.root}: the {part} part")
        super().check(parts)

    def for_use(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """How pictures are read, the scale of the target, and the density of the training targets, if that is one."""
        density = {} if self.density is None else {"density": self.density.record()}
        return {**super().for_use(settings), "target_scale": self.target_scale, **density}

    def as_trained(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """And shots are those of its own training targets, and several targets weigh in metrics as its own did."""
        named = facts.get("target", self.target_names[0])
        own = [named] if isinstance(named, str) else list(named)
        if len(own) != len(self.target_names):
            raise ValueError(
                f"the model predicts {len(own)} numbers ({', '.join(own)}), and {self.title} in {self.root} has"
                f" {len(self.target_names)} ({', '.join(self.target_names)}); name as many columns, in the model's"
                " order, in data.target"
            )
        places = {plain(name): place for place, name in enumerate(own)}
        for place, name in enumerate(self.target_names):  # columns that are called otherwise may hold the same
            if places.get(plain(name), place) != place:
                raise ValueError(
                    f"the model predicts {', '.join(own)}, and data.target has {name!r} at another place"
                    f" ({', '.join(self.target_names)}); name the columns in the model's order"
                )
        super().as_trained(facts, settings)
        for loader in self.evaluation.values():
            dataset: Any = loader.dataset
            if facts.get("density"):
                dataset.density = Density.recorded(facts["density"])
            if self.several:
                dataset.target_scale = facts.get("target_scale", self.target_scale)

    def describe(self) -> dict[str, Any]:
        """What every data set tells, the number of bins and the scale."""
        bins = {} if self.bins is None else {"bins": self.bins.count}
        return {**super().describe(), **bins, "target_scale": self.target_scale}
