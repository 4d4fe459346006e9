"""From inputs to (prediction, features): an encoder, an optional feature smoothing, a linear layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness import distributed
from harness.data.backbones import build_backbone, colours, features_of, register_colours
from harness.data.loading import PADDING
from harness.device import to_device
from rambo.ranking.exact import one_of
from ranksim.bins import of_one_target
from ranksim.datasets.regression import RegressionData
from ranksim.inputs import register_scale
from ranksim.smoothing import FeatureSmoothing


class Regressed(NamedTuple):
    """What a regression model makes of a batch of n samples.

    Attributes:
        prediction: In the unit of the target, (n,); (n, outputs) for vector targets.
        features: What the encoder returned, (n, dimensions).
        smoothed: What the linear layer saw; `features` itself where no smoothing is on.
    """

    prediction: Tensor
    features: Tensor
    smoothed: Tensor


class Regressor(nn.Module):
    """Encoder, feature smoothing while training (if asked for), linear layer.

    Args:
        encoder: Maps a batch to features (n, `num_features`), with `num_features` as an attribute.
        smoothing: Called with `features=num_features`; returns a `ranksim.smoothing.FeatureSmoothing`. A partial with
            `bins=None` takes the bins of the data, in `prepare`.
        outputs: Numbers predicted for each sample; None: as many as the data have targets, told by `prepare`, else 1.
        dropout: Probability of dropping a feature before the linear layer.
        target_scale: What the linear layer's output is multiplied by: 5 lets it learn scores of 0 to 5 on 0 to 1. Or
            one number for each output.
        statistics_of: Whether the statistics of the smoothing are those of the `"raw"` features, or of the
            `"smoothed"` ones, as in the official code, which smooths in place.

    Raises:
        ValueError: If a value is outside its range; shown.

    Source: Yang et al. 2021, arXiv:2102.09554, section 3.2 (where the smoothing stands).
    """

    task = "regression"
    target_scale: float | Tensor

    def __init__(
        self,
        encoder: nn.Module,
        smoothing: Callable[..., FeatureSmoothing] | None = None,
        outputs: int | None = None,
        dropout: float = 0.0,
        target_scale: float | Sequence[float] = 1.0,
        statistics_of: str = "raw",
    ) -> None:
        super().__init__()
        if outputs is not None and outputs < 1:
            raise ValueError(f"outputs must be at least 1, got {outputs}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        one_of("statistics_of", statistics_of, ("raw", "smoothed"))
        self.encoder, self.outputs, self.statistics_of = encoder, outputs or 1, statistics_of
        self._given_outputs = outputs
        register_scale(self, "target_scale", target_scale)
        size = int(encoder.num_features)  # type: ignore[arg-type]
        self._smoothing = None if smoothing is None else partial(smoothing, features=size)
        needs_data = getattr(smoothing, "keywords", {}).get("bins", 0) is None
        self.smoothing: FeatureSmoothing | None = None if self._smoothing is None or needs_data else self._smoothing()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, self.outputs)

    def prepare(self, data: RegressionData) -> None:
        """Lets encoder, linear layer and smoothing see the data (vocabulary, number of targets, bins).

        To be called before the optimizer is built.

        Raises:
            ValueError: If the data do not suit the encoder, have another number of targets than there are outputs, or
                do not suit the smoothing: several targets, or all of one in one of its buckets.
        """
        prepare = getattr(self.encoder, "prepare", None)
        if prepare is not None:
            prepare(data)
        several = getattr(data, "several", ())
        if several and self.outputs != len(several):
            if self._given_outputs is not None:
                raise ValueError(
                    f"model.outputs is {self.outputs}, and data.target names {len(several)} columns"
                    f" ({', '.join(several)}); leave model.outputs out"
                )
            self.outputs = len(several)
            self.head = nn.Linear(self.head.in_features, self.outputs)
        if self._smoothing is None:
            return
        density = of_one_target(data.density, "feature smoothing", "set fds=none")
        if self.smoothing is None:
            self.smoothing = self._smoothing(bins=density.bins)
        filled = self.smoothing.bins(density.targets)
        if bool((filled == filled[0]).all()):
            raise ValueError(
                f"all training targets are in one of the buckets of the feature smoothing, {self.smoothing.bins}; set "
                "smoothing.bins to the range of the target, or to null for the bins of the data"
            )

    def without_data(self) -> dict[str, Any]:
        """The settings by which it is built again when its weights are at hand, to predict: without smoothing."""
        own = getattr(self.encoder, "without_data", None)
        outputs = {"outputs": self.outputs} if self.outputs > 1 else {}
        return {"smoothing": None, "encoder": {} if own is None else own(), **outputs}

    @property
    def needs_whole_batch(self) -> str | None:
        """Why a sample's output depends on the rest of its batch, if it does."""
        if self.smoothing is None or self.smoothing.out_of_range == "clamp":
            return None
        return "smoothing.out_of_range=official looks at the targets of the whole batch; use clamp"

    def forward(self, batch: Mapping[str, Any]) -> Regressed:
        """Predictions and features; smoothing needs `batch["target"]` and happens in training mode only."""
        features: Tensor = self.encoder(batch)
        smoothed = features
        if self.smoothing is not None and self.training:
            with torch.autocast(features.device.type, enabled=False):
                smoothed = self.smoothing(_single(features), batch["target"])
        prediction = _single(self.head(self.dropout(smoothed))) * self.target_scale
        return Regressed(prediction.squeeze(1) if self.outputs == 1 else prediction, features, smoothed)

    def end_of_epoch(self, model: nn.Module, data: RegressionData, epoch: int) -> dict[str, float]:
        """Brings the statistics of the smoothing up to date by one more pass over the training data.

        In training mode, as in the official code: with augmentation and dropout, and batch norm keeps learning its
        statistics. In float32, whatever the precision of training. Returns the health of the smoothing, for the log.
        """
        if self.smoothing is None:
            return {}
        self.train()
        device = next(self.parameters()).device
        with torch.no_grad():
            for batch in data.training_pass(epoch) if self.smoothing.collecting else []:
                moved = to_device(batch, device)
                output = self(moved)
                features = output.features if self.statistics_of == "raw" else output.smoothed
                padding = PADDING in batch
                everyone = (distributed.gather(part, padding).rows for part in (_single(features), moved["target"]))
                self.smoothing.observe(*everyone)
        self.smoothing.finish_epoch()
        return {f"smoothing/{name}": value for name, value in self.smoothing.health.items()}


def _single(tensor: Tensor) -> Tensor:
    """In single precision, or double where it is that."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class ImageEncoder(nn.Module):
    """A backbone on images, average-pooled.

    Args:
        backbone: The name of any timm model, or a module that maps (images, 3, height, width) to feature maps or to
            features, with `num_features` as an attribute.
        weights: `"none"` (as the papers, which train from scratch), `"hub"`, `"packaged"` or the path of a state dict.
        mean, std: Of the colour channels, scaled to [0, 1]: subtracted, and then divided by.
        backbone_options: Further arguments of `timm.create_model`.

    Raises:
        ValueError: If a value is out of range, the backbone is unknown, or the weights do not fit it.
        FileNotFoundError: If `weights` names a file that does not exist.
        ModuleNotFoundError: If timm, or the package that carries the weights, is not installed.
        ConnectionError: If the hub cannot be reached.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str | nn.Module,
        weights: str | Path = "none",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, weights, dict(backbone_options or {}))
        self.num_features = int(self.backbone.num_features)  # type: ignore[arg-type]
        register_colours(self, self.backbone, mean, std)

    def prepare(self, data: RegressionData) -> None:
        """Refuses data without images."""
        if not data.parts["train"].pictured:
            raise ValueError(
                f"this model is for images, and the samples of {data.title} are none; choose another: model=perceptron "
                "for rows of numbers, model=bilstm for sentences"
            )

    def without_data(self) -> dict[str, Any]:
        """As of the whole model."""
        return {"weights": "none", **colours(self)}

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Features (images, num_features) of `batch["image"]`, uint8 (images, 3, height, width)."""
        features = features_of(self.backbone, batch["image"], self.mean, self.std, "model.encoder")
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features


class NumbersEncoder(nn.Module):
    """A multi-layer perceptron on rows of numbers.

    Args:
        columns: Numbers in a row; None asks the data, in `prepare`.
        hidden: Width of each hidden layer; the last is the width of the features.

    Raises:
        ValueError: If a width is not positive or there is none.
    """

    def __init__(self, columns: int | None = None, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1 or (columns is not None and columns < 1):
            raise ValueError(f"columns and every hidden width must be at least 1, got {columns} and {list(hidden)}")
        self.hidden, self.num_features = list(hidden), int(hidden[-1])
        self.layers = nn.Sequential()
        self.columns = 0
        if columns is not None:
            self._build(columns)

    def _build(self, columns: int) -> None:
        self.columns = columns
        for before, after in itertools.pairwise([columns, *self.hidden]):
            self.layers.extend([nn.Linear(before, after), nn.ReLU()])

    def prepare(self, data: RegressionData) -> None:
        """Learns from the training part how many numbers a row has; to be called before the optimizer is built."""
        numbers = data.parts["train"].inputs.get("numbers")
        if numbers is None:
            raise ValueError(
                f"this model is for rows of numbers, and the samples of {data.title} have none; choose another: "
                "model=resnet50_regression for images, model=bilstm for sentences"
            )
        if not self.columns:
            self._build(len(numbers[0]))

    def without_data(self) -> dict[str, Any]:
        """As of the whole model."""
        return {"columns": self.columns}

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Features (n, num_features) of `batch["numbers"]`, float32 (n, columns)."""
        numbers: Tensor = batch["numbers"]
        if numbers.ndim != 2 or numbers.shape[1] != self.columns:
            raise ValueError(
                f"the model was built for {self.columns} columns, got numbers of shape {tuple(numbers.shape)}; "
                "set model.encoder.columns"
            )
        features: Tensor = self.layers(numbers)
        return features
