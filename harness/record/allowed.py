"""What a config may build that somebody else may have written: classes of ours and of known libraries, and no more.

A run folder, a table or a comparison may come from a stranger, and what its config names is imported and called. So
every name is looked up first, without calling anything, and judged by what it turns out to be:
`harness.files.os.system` is a function of `posix`. What a command line and configs/ say is the user's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from harness.named_class import look_up
from harness.record.config import is_under, nodes

# Where classes may come from. Left out is what reads pickles or runs what a file names, as torch.load and data sets do.
CLASSES = (
    "harness", "rambo", "ranksim", "torch.nn", "torch.optim", "torch.utils.data.dataloader", "torch.utils.data.dataset",
    "torch.utils.data.distributed", "torch.utils.data.sampler", "torchvision.models", "torchvision.ops",
    "torchvision.transforms", "timm.layers", "timm.loss", "timm.models", "timm.optim", "timm.scheduler",
    *(f"pytorch_metric_learning.{part}" for part in ("distances", "losses", "miners", "reducers", "regularizers",
      "samplers")),
)  # fmt: skip
# Where functions may come from, methods left out: those that build networks, with weights from the library's own list.
FUNCTIONS = ("timm.models._factory.create_model", "torchvision.models")
# Under which keys a name stands: `_target_`, and the arguments that go to `class_named`.
NAMING = ("_target_", "loss", "classification")
# The option of every command that reads such configs.
OPTION: dict[str, Any] = {
    "nargs": "+", "action": "extend", "default": [], "metavar": "PACKAGE",
    "help": "packages of your own, whose classes and functions may be named",
}  # fmt: skip


class NotAllowedError(ValueError):
    """A config names what it may not build; the message says what, and how to let it."""


def check(config: Any, where: object, allow: Sequence[str] = ()) -> None:
    """Refuses a config that names what must not be built, anywhere in it; nothing of it is called.

    Args:
        config: Nested dicts and lists, resolved.
        where: Where it is from, for the message.
        allow: Further packages, modules or full names that the user trusts; functions of them may be named, too.

    Raises:
        NotAllowedError: If a name is not allowed, or cannot be judged.
        ImportError: If there is nothing of that name.
    """
    for path, value in nodes(config):
        if isinstance(value, dict | list):
            continue
        key = ".".join(path)
        if isinstance(value, str) and "${" in value:
            raise NotAllowedError(
                f"{where}: {key} is {value}, but what a run writes is resolved; write the value itself"
            )
        if "_args_" in path:
            raise NotAllowedError(
                f"{where}: {key} gives an argument by position, which cannot be judged; give it by name"
            )
        names = path and path[-1] in NAMING
        if names and (path[-1] == "_target_" or (isinstance(value, str) and "." in value)):
            named(value, f"{where}: {key}", allow)


def named(name: Any, where: object, allow: Sequence[str] = ()) -> Any:
    """What a dotted name stands for, if it may be built.

    Raises:
        NotAllowedError: If it may not; as `check`.
        ImportError: If there is nothing of that name.
    """
    known = {entry.partition(".")[0] for entry in (*CLASSES, *allow)}
    if not isinstance(name, str) or name.partition(".")[0] not in known:  # importing runs a module's code, too
        raise NotAllowedError(_refusal(name, name, where))
    found = look_up(name)
    owner = found.__self__ if inspect.ismethod(found) else found  # of a class method its class
    module, inner = getattr(owner, "__module__", None), getattr(owner, "__qualname__", type(owner).__qualname__)
    full = f"{module}.{inner}"
    is_plain = inspect.isfunction(owner) and "." not in inner and not inner.startswith("_")
    if (
        (inspect.isclass(owner) and is_under(full, CLASSES))
        or (is_plain and is_under(full, FUNCTIONS))
        or (callable(found) and is_under(full, allow))
    ):
        return found
    raise NotAllowedError(_refusal(name, full, where))


def _refusal(name: Any, full: Any, where: object) -> str:
    alias = "" if full == name else f", that is {full},"
    return (
        f"{where} is {name}{alias} which a config from a file may not build: it is no class of this project, torch.nn, "
        f"torch.optim, torchvision, timm or pytorch-metric-learning; if you trust it, add --allow {full}"
    )
