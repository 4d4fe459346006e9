"""Feature maps for a detector: any timm backbone under a feature pyramid network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from harness.data.backbones import build_backbone
from rambo.detection.heads import at_least_single


class TimmPyramid(nn.Module):
    """A timm backbone whose feature maps of several strides are brought to one width by a feature pyramid network.

    Arguments are as in `FasterRCNN`, `channels` the width of the pyramid's maps.

    Attributes:
        strides: Of the maps that `forward` returns, the extra one included.
        pooled: Names of the maps that regions are pooled from: all but the extra one.
        out_channels: Width of the maps.

    Source: Lin et al. 2017, arXiv:1612.03144, section 3.
    """

    def __init__(
        self,
        backbone: str,
        levels: Sequence[int] = (1, 2, 3, 4),
        channels: int = 256,
        extra_level: bool = True,
        weights: str | Path = "hub",
        frozen_stages: int | None = 1,
        freeze_batch_norm: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels of the pyramid must be at least 1, got {channels}")
        body: Any = feature_maps_of(backbone, levels, weights, dict(options or {}))
        self.body: nn.Module = body
        widths = [int(width) for width in body.feature_info.channels()]
        strides = [int(stride) for stride in body.feature_info.reduction()]
        if any(after != 2 * before for before, after in itertools.pairwise(strides)):
            raise ValueError(
                f"levels {list(levels)} of {backbone} have strides {strides}, where each must be twice the one before; "
                "choose neighbouring levels of a backbone that halves its maps"
            )
        self.out_channels, self.freeze_batch_norm = channels, freeze_batch_norm
        self.pooled = [str(place) for place in range(len(widths))]
        self.strides = [*strides, 2 * strides[-1]] if extra_level else strides
        self._channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
        extra = LastLevelMaxPool() if extra_level else None
        self.pyramid = FeaturePyramidNetwork(widths, channels, extra_blocks=extra)
        self._frozen = [] if frozen_stages is None else first_stages(body, frozen_stages)
        for module in self._frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name, finest first, float32 (images, channels, height / stride, width / stride)."""
        maps: list[Tensor] = self.body(images)
        if self._channels_last:
            maps = [part.permute(0, 3, 1, 2) for part in maps]
        named = {str(place): part for place, part in enumerate(maps)}
        # boxes and pooling take their precision from the maps
        return {name: at_least_single(part) for name, part in self.pyramid(named).items()}

    def train(self, mode: bool = True) -> TimmPyramid:
        """As usual, but frozen batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.body.modules() if self.freeze_batch_norm else self._frozen:
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def first_stages(body: Any, stages: int) -> list[nn.Module]:
    """The modules of the stem and so many stages behind it, in the order in which they are applied."""
    ends = body.feature_info.info
    modules = list(body.named_modules())
    inside: list[int] = []
    if 0 <= stages < len(ends):
        end = _plain(ends[stages]["module"])
        inside = [i for i, (name, _) in enumerate(modules) if f"{_plain(name)}.".startswith(f"{end}.")]
    if not inside:
        raise ValueError(
            f"frozen_stages must be null or between 0 and {len(ends) - 1}, and at most the last of levels, got {stages}"
        )
    return [module for _, module in modules[1 : inside[-1] + 1]]


def feature_maps_of(backbone: str, levels: Sequence[int], weights: str | Path, options: Mapping[str, Any]) -> nn.Module:
    """The part of a timm backbone that gives the feature maps of these levels, with its weights in it.

    The whole network is built and loaded first, so that weights are checked as they are everywhere else.
    """
    if not levels or list(levels) != sorted(set(levels)) or min(levels) < 0:
        raise ValueError(f"levels must be rising numbers from 0, the stem, got {list(levels)}")
    if not isinstance(backbone, str):
        raise ValueError(f"the backbone of a detector is a timm model by name, got a {type(backbone).__name__}")
    whole = build_backbone(backbone, weights, options)
    import timm  # it is there: the line above needs it too

    try:
        body = timm.create_model(backbone, features_only=True, out_indices=tuple(levels), **options)
    except (RuntimeError, AssertionError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{backbone} gives no feature maps of levels {list(levels)} ({error}); choose fewer levels, or a "
            "convolutional backbone"
        ) from error
    copy_by_name(whole, body)
    return body


def copy_by_name(source: nn.Module, target: nn.Module) -> None:
    """Copies what `target` needs from `source`; a container's name may be written `stages_0` or `stages.0`."""
    found: dict[str, list[Tensor]] = {}
    for name, value in source.state_dict().items():
        found.setdefault(_plain(name), []).append(value)
    state = {}
    for name, value in target.state_dict().items():
        candidates = found.get(_plain(name), [])
        if len(candidates) != 1 or candidates[0].shape != value.shape:
            shapes = [tuple(candidate.shape) for candidate in candidates] or "nothing"
            raise ValueError(
                f"{name} of the feature maps has shape {tuple(value.shape)}, but {type(source).__name__} offers "
                f"{shapes} for it; choose another backbone"
            )
        state[name] = candidates[0]
    target.load_state_dict(state)


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace("_", ".")
