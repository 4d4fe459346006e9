"""Networks that turn a picture into features: any timm model by name, and a small one for pictures of characters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import words
from harness.data.hub import offline_unless_reached
from harness.data.pretrained import load_file, load_packaged


def build_backbone(backbone: str | nn.Module, weights: str | Path, options: Mapping[str, Any]) -> nn.Module:
    """The backbone with its weights in it.

    Args:
        backbone: The name of any timm model, which is built without its classifier, or a module with an attribute
            `num_features`.
        weights: `"hub"` downloads those timm knows, `"packaged"` takes those of an installed package, `"none"` starts
            from scratch; anything else is the path of a state dict.
        options: Further arguments of `timm.create_model`.

    Raises:
        ValueError: If the backbone is unknown or the weights do not fit it.
        FileNotFoundError: If `weights` names a file that does not exist.
        ModuleNotFoundError: If timm, or the package that carries the weights, is not installed.
        ConnectionError: If the hub cannot be reached.
    """
    if isinstance(backbone, str):
        module = _from_timm(backbone, weights == "hub", options)
    else:
        module, kind = backbone, type(backbone).__name__
        if weights in ("hub", "packaged"):
            raise ValueError(f"there are no {weights} weights for a {kind}: use weights=none or a file's path")
        if options:
            raise ValueError(f"backbone_options are for timm models by name, got {options} with a {kind}")
        if not hasattr(backbone, "num_features"):
            raise ValueError(f"{kind} needs an attribute num_features, the width of what it returns")
    if weights == "packaged":
        load_packaged(module, str(backbone))
    elif weights not in ("hub", "none"):
        load_file(module, weights)
    return module


def _from_timm(name: str, from_hub: bool, options: Mapping[str, Any]) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'backbones by name come from timm; run: pip install "blackbox-ranking[train]"'
        ) from error
    if not timm.is_model(name):
        hint = words.nearest(name, timm.list_models(), "timm.list_models() shows all names")
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; {hint}")
    if from_hub and not timm.is_model_pretrained(name):
        raise ValueError(f"the hub has no weights for {name}: use weights=none or weights=PATH of a state dict")
    try:
        with offline_unless_reached() if from_hub else nullcontext():
            return timm.create_model(name, pretrained=from_hub, num_classes=0, **options)
    except Exception as error:
        if not from_hub or isinstance(error, TypeError):
            raise
        raise ConnectionError(
            f"the weights of {name} could not be downloaded from the hub ({type(error).__name__}): "
            "connect to the internet, or use weights=PATH of a state dict (.pth, .safetensors), or weights=none"
        ) from error


def register_colours(
    model: nn.Module, backbone: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Gives the model buffers `mean` and `std`, (3, 1, 1); None takes what the backbone learnt with, or ImageNet's.

    Raises:
        ValueError: If they are not three numbers each, or a deviation is not positive.
    """
    trained_with: Mapping[str, Any] = getattr(backbone, "pretrained_cfg", None) or {}
    mean = trained_with.get("mean", (0.485, 0.456, 0.406)) if mean is None else mean
    std = trained_with.get("std", (0.229, 0.224, 0.225)) if std is None else std
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"mean and std must each give three channels, std > 0, got mean {list(mean)} and std {list(std)}"
        )
    model.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
    model.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)


def colours(model: nn.Module) -> dict[str, Any]:
    """The settings `mean` and `std` that `register_colours` would make the buffers of `model` of."""
    # a float32 in the fewest digits that tell it
    return {name: [float(str(one)) for one in getattr(model, name).flatten().cpu().numpy()] for name in ("mean", "std")}


def features_of(network: Callable[[Tensor], Tensor], image: Tensor, mean: Tensor, std: Tensor, place: str) -> Tensor:
    """What a network gives of images, uint8 (images, 3, height, width), in the colours of `register_colours`.

    Raises:
        ValueError: If they are others, or of another size than the network at this place of the config was made for.
    """
    if image.ndim != 4 or image.shape[1] != 3 or image.dtype != torch.uint8:
        raise ValueError(
            f'batch["image"] must be uint8 (images, 3, height, width), got {image.dtype} {tuple(image.shape)}'
        )
    try:
        return network(image.to(mean.dtype).div_(255).sub_(mean).div_(std))  # in place: no array but one is made
    except AssertionError as error:  # of timm
        height, width = image.shape[-2:]
        size = str(height) if height == width else f"[{height},{width}]"
        said = str(error).strip(" .")
        raise ValueError(
            f"the network was made for images of another size than {height} x {width} ({said}); set "
            f"++{place}.backbone_options.img_size={size}, or resize the images"
        ) from error


class SmallConvNet(nn.Module):
    """Four convolutions, each with a halving of the picture, batch norm and ReLU; for pictures of characters.

    Sees brightness only: the mean of the three channels.

    Args:
        width: Channels of the first convolution; the others have 2, 4 and 4 times as many. 24 make 136,000 parameters.

    Raises:
        ValueError: If `width` is not positive.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        sizes = [1, width, 2 * width, 4 * width, 4 * width]
        self.num_features = sizes[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
                    nn.MaxPool2d(2),  # before the rest, which then has a quarter of the work
                    nn.BatchNorm2d(after),
                    nn.ReLU(inplace=True),
                )
                for before, after in itertools.pairwise(sizes)
            )
        )
        self.to(memory_format=torch.channels_last)  # up to twice as fast on a CPU

    def forward(self, image: Tensor) -> Tensor:
        """Feature maps (images, 4 * width, height // 16, width // 16)."""
        return self.blocks(image.mean(dim=1, keepdim=True))  # type: ignore[no-any-return]
