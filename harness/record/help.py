"""What `train.py --help` answers: the groups with their choices, and each key of an experiment with what it means.

The meaning of a key is said once: where a constructor takes it, in the "Args" of its docstring; of the keys of
configs/train.yaml itself, in the comment beside them.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

WIDTH = 110
NO_GROUP = ("experiment", "scale", "table", "fair", "sweep", "task")  # listed apart, or by other commands
_ENTRY = re.compile(r"^    ([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*)(?: \([^)]*\))?: (.*)$")


def overview(configs: Path) -> str:
    """How to call train.py, the keys of its own and the groups."""
    lines = [
        "python train.py experiment=NAME [GROUP=CHOICE] [KEY=VALUE] ...       without any: the experiments",
        "python train.py experiment=NAME --help       every key of that experiment, its value and what it means",
        "python train.py experiment=NAME --cfg job --resolve       the composed config, and nothing run",
        "python train.py -m experiment=NAME seed=0,1,2       a sweep; +sweep=NAME one of configs/sweep",
        "",
        "Keys of every run:",
        *_comments(configs / "train.yaml"),
        "",
        "Groups:",
    ]
    for folder in sorted(path for path in configs.iterdir() if path.is_dir() and path.name not in NO_GROUP):
        choices = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        lines += textwrap.wrap(f"  {folder.name}={choices}", WIDTH, subsequent_indent="      ")
    return "\n".join(lines)


def of_experiment(config: DictConfig) -> str:
    """Every key of what an experiment builds, with its value and the meaning that its constructor gives."""
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    lines: list[str] = []
    for path, node in _built("", resolved):
        named = [str(node["_target_"]), *(v for k, v in node.items() if k != "_target_" and _is_ours(v))]
        lines += ["", f"{path}   ({', '.join(named)})"]
        meanings: dict[str, str] = {}
        for name in reversed(named):
            meanings |= _arguments(get_object(name))
        for key, value in node.items():
            if not str(key).startswith("_") and not (isinstance(value, Mapping) and "_target_" in value):
                lines += _entry(f"{path}.{key}={_shown(value)}", meanings.get(str(key), ""))
    return "\n".join(lines[1:])


def _built(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is instantiated, by its dotted key, outermost first."""
    if isinstance(node.get("_target_"), str):
        yield path, node
    for key, item in node.items():
        if isinstance(item, Mapping) and key != "hydra":
            yield from _built(f"{path}.{key}" if path else str(key), item)


def _is_ours(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"(rambo|ranksim)(\.\w+)+\.[A-Z]\w*", value) is not None


def _arguments(target: Any) -> dict[str, str]:
    """What the docstrings of a class and its parents, or of a function, say of each argument."""
    found: dict[str, str] = {}
    for one in inspect.getmro(target)[:-1] if inspect.isclass(target) else (target,):
        names: list[str] = []
        inside = False
        for line in (inspect.cleandoc(one.__doc__) if one.__doc__ else "").splitlines():
            if line and not line.startswith(" "):
                inside, names = line.startswith("Args"), []
            elif inside and (entry := _ENTRY.match(line)):
                names = [name for name in entry[1].split(", ") if name not in found]
                found |= dict.fromkeys(names, entry[2])
            elif inside and line.strip():
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _comments(path: Path) -> list[str]:
    """The keys of a YAML file that have a comment beside them."""
    found = re.findall(r"^(\w+): ([^#\n]*?) *# (.*)$", path.read_text(), re.MULTILINE)
    return [line for key, value, comment in found for line in _entry(f"{key}={value}", comment)]


def _entry(head: str, meaning: str) -> list[str]:
    return textwrap.wrap(f"  {head}   {meaning}".rstrip(), WIDTH, subsequent_indent="      ", break_on_hyphens=False)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
