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
NAMING = ("loss", "classification")  # under which keys a name may stand beside `_target_`: those for `class_named`
# The option of every command that reads such configs.
OPTION: dict[str, Any] = {
    "nargs": "+", "action": "extend", "default": [], "metavar": "PACKAGE",
    "help": "packages of your own, whose classes and functions may be named",
}  # fmt: skip


class NotAllowedError(ValueError):
    """A config names what it may not build; the message says what, and how to let it."""


def check(config: Any, where: object, allow: Sequence[str] = ()) -> None:
    """Refuses a resolved config that names what must not be built, anywhere in it; nothing of it is called.

    `where` it is from is for the message; `allow` has further packages, modules or full names that the user trusts, of
    which functions may be named, too.

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
        if path[-1] == "_target_" or (path[-1] in NAMING and isinstance(value, str) and "." in value):
            named(value, f"{where}: {key}", allow)


def named(name: Any, where: object, allow: Sequence[str] = ()) -> Any:
    """What a dotted name stands for, if it may be built.

    Raises:
        NotAllowedError: If it may not; as `check`.
        ImportError: If there is nothing of that name.
    """
    known = {entry.partition(".")[0] for entry in (*CLASSES, *allow)}
    if not isinstance(name, str) or name.partition(".")[0] not in known:  # importing runs a module's code, too
        raise _refusal(name, name, where)
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
    raise _refusal(name, full, where)


def _refusal(name: Any, full: Any, where: object) -> NotAllowedError:
    alias = "" if full == name else f", that is {full},"
    return NotAllowedError(
        f"{where} is {name}{alias} which a config from a file may not build: it is no class of this project, torch.nn, "
        f"torch.optim, torchvision, timm or pytorch-metric-learning; if you trust it, add --allow {full}"
    )
