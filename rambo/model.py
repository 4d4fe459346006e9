"""From images to points on the unit sphere: a backbone, a pooling, a linear embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.data.backbones import build_backbone, colours, features_of, register_colours
from rambo.ranking import unit_vectors
from rambo.ranking.exact import one_of

Pooling = Literal["average", "max", "gem", "average+max", "backbone"]


class RetrievalModel(nn.Module):
    """Maps a batch of images to embeddings of unit length.

    Args:
        backbone: The name of any timm model, or a module that maps (images, 3, height, width) to feature maps (images,
            `num_features`, height, width) or to features (images, `num_features`), with `num_features` as an attribute.
        embedding_size: Dimensions of an embedding.
        pooling: How a feature map becomes one vector: `"average"`, `"max"`, `"gem"` (generalised mean with a learned
            exponent, Radenovic et al. 2018, eq. 4), `"average+max"` (their sum), or `"backbone"`, whatever the timm
            model does itself. For transformers the first four pool patch tokens and `"backbone"` gives the class token
            where there is one.
        layer_norm: Whether the pooled features are normalised (without learned scale) before the embedding.
        weights: `"hub"` downloads those timm knows, `"packaged"` takes those of an installed package, `"none"` starts
            from scratch; anything else is the path of a state dict.
        freeze_batch_norm: Whether batch norm keeps its running statistics in training too; its scale and shift still
            learn.
        embedding_learning_rate_factor: How much faster than the backbone the embedding learns.
        mean: Of the colour channels, subtracted after scaling to [0, 1]; None takes what the backbone was trained with,
            or ImageNet's.
        std: Of the colour channels, by which they are then divided; None as above.
        backbone_options: Further arguments of `timm.create_model`.

    Raises:
        ValueError: If a value is out of range, the backbone is unknown, or the weights do not fit it.
        FileNotFoundError: If `weights` names a file that does not exist.
        ModuleNotFoundError: If timm, or the package that carries the weights, is not installed.
        ConnectionError: If the hub cannot be reached.

    Source: Rolinek et al. 2020, section 5.1 (ResNet-50, average pooling, 512 dimensions, unit length).
    """

    task = "retrieval"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str | nn.Module,
        embedding_size: int = 512,
        pooling: Pooling = "average",
        layer_norm: bool = False,
        weights: str | Path = "hub",
        freeze_batch_norm: bool = True,
        embedding_learning_rate_factor: float = 1.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if embedding_size < 1:
            raise ValueError(f"embedding_size must be at least 1, got {embedding_size}")
        one_of("pooling", pooling, get_args(Pooling))
        if not embedding_learning_rate_factor > 0:  # also refuses nan
            raise ValueError(f"embedding_learning_rate_factor must be > 0, got {embedding_learning_rate_factor}")
        self.backbone = build_backbone(backbone, weights, dict(backbone_options or {}))
        self.pooling, self.freeze_batch_norm = pooling, freeze_batch_norm
        features = int(self.backbone.num_features)  # type: ignore[arg-type]
        if pooling == "backbone":
            features = int(getattr(self.backbone, "head_hidden_size", features))  # some widen in the head
        self.exponent = nn.Parameter(torch.tensor(3.0)) if pooling == "gem" else None
        self.layer_norm = nn.LayerNorm(features, elementwise_affine=False) if layer_norm else nn.Identity()
        self.embedding = nn.Linear(features, embedding_size)
        self.embedding_learning_rate_factor = embedding_learning_rate_factor
        register_colours(self, self.backbone, mean, std)
        self.train()

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Embeddings, float32 (images, embedding_size), of `batch["image"]`, uint8 (images, 3, height, width)."""
        features = features_of(self._features, batch["image"], self.mean, self.std, "model")
        embedded: Tensor = self.embedding(self.layer_norm(features))
        with torch.autocast(embedded.device.type, enabled=False):  # half precision would leave the sphere
            return unit_vectors(embedded.float())

    def _features(self, image: Tensor) -> Tensor:
        """One vector for each image, (images, features)."""
        if self.pooling == "backbone":
            return self.backbone(image)  # type: ignore[no-any-return]
        make = getattr(self.backbone, "forward_features", self.backbone)
        features: Tensor = make(image)
        if features.ndim == 2:  # pooled already
            return features
        if features.ndim == 3:  # tokens: (images, tokens, features)
            features = features[:, int(getattr(self.backbone, "num_prefix_tokens", 0)) :].transpose(1, 2)
        elif getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        places = features.flatten(2)
        if self.exponent is not None:
            with torch.autocast(places.device.type, enabled=False):
                powers = places.float().clamp(min=1e-6) ** self.exponent
                return powers.mean(dim=2) ** (1 / self.exponent)
        if self.pooling == "average":
            return places.mean(dim=2)
        highest = places.amax(dim=2)
        return highest if self.pooling == "max" else highest + places.mean(dim=2)

    def without_data(self) -> dict[str, Any]:
        """The settings by which it is built again when its weights are at hand, and no other file."""
        return {"weights": "none", **colours(self)}

    def train(self, mode: bool = True) -> RetrievalModel:
        """As usual, but frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Backbone and embedding, each with its learning-rate factor, for the optimizer."""
        backbone = list(self.backbone.parameters())
        own = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in own]
        return [
            {"params": backbone, "name": "backbone", "learning_rate_factor": 1.0},
            {"params": rest, "name": "embedding", "learning_rate_factor": self.embedding_learning_rate_factor},
        ]
