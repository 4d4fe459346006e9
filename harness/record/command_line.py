"""What the entry point answers to --help, to bad input and to Ctrl-C: a sentence, and the choices there are.

The meaning of a key is said once: where a constructor takes it, in the "Args" of its docstring; of the keys of
configs/train.yaml itself, in the comment beside them.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import pydoc
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import distributed, words
from harness.record import runs, schema
from harness.record.composition import compose
from harness.record.config import flat, resolved, targets

# Packages with Hydra's plugins, by the choice that needs them.
PLUGINS = {
    "joblib": "hydra-joblib-launcher", "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher", "optuna": "hydra-optuna-sweeper", "ray": "hydra-ray-launcher",
}  # fmt: skip
WIDTH = 110
NO_GROUP = ("experiment", "scale", "table", "fair", "sweep", "task")  # listed apart, or by other commands

_PARSER = OverridesParser.create()
_REFERENCE = re.compile(r"(?:[Aa]s in|[Ss]ee) `([\w.]+)`\.?")
_KEY = re.compile(r"[+~]{0,2}[\w./@:-]+")
_ARGUMENT = re.compile(r"([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*)(?: \([^)]*\))?:\s(.*)", re.DOTALL)
_OURS = re.compile(r"(rambo|ranksim)(\.\w+)+\.[A-Z]\w*")


def refusal(arguments: list[str], configs: Path) -> str | None:
    """What is wrong with a command line before Hydra makes a folder for the run; None if nothing is."""
    given, others = get_args_parser().parse_known_args(arguments)
    words_given, overrides = [*given.overrides, *others], list[Override]()
    for argument in words_given:
        try:
            overrides.append(_PARSER.parse_override(argument))
        except HydraException as error:
            return f"error: {_misread(argument, words_given, error, configs)}"
    if given.multirun and (processes := distributed.started_together()) > 1:
        return (
            f"error: {processes} processes were started together (WORLD_SIZE), which make one run, and a sweep starts "
            "runs of its own; start it with python train.py -m, without torchrun; runs of several processes each: "
            "hydra/launcher=submitit_local or submitit_slurm, with hydra.launcher.tasks_per_node"
        )
    several = [o for o in overrides if o.is_sweep_override() and not given.multirun]
    if several:
        return f"error: {_ambiguous(several[0])}"
    values = {o.key_or_group: "" if o.is_sweep_override() else o.get_value_element_as_str() for o in overrides}
    asks = any((given.cfg, given.info, given.hydra_help, given.shell_completion))
    if "experiment" not in values and not asks:
        return _overview(configs) if given.help else _experiments(configs)
    resume = next((o.value() for o in overrides if o.key_or_group == "resume"), None)
    if resume and not any((Path(str(resume)).expanduser() / name).is_file() for name in ("config.yaml", "train.log")):
        return f"error: resume={resume}: no run there (config.yaml is missing)"
    if missing := _missing_plugin(values, configs):
        return missing
    elsewhere = given.config_dir or given.config_path or given.config_name  # Hydra has configs that are not here
    if (asks or elsewhere) and not given.help:
        return None
    try:
        config = compose([_one_of(o) for o in overrides if not o.key_or_group.startswith("hydra")], configs)
        if given.help:
            return _help(config)
        schema.check(config)
    except OmegaConfBaseException as error:
        return f"error: {error.full_key}: {str(error).splitlines()[0]}"
    except ValueError as error:
        return f"error: {error}"
    return None


def at_home(config: DictConfig) -> None:
    """Writes out the home folder in every value that begins with ~/, for which no shell cares after a key and `=`."""
    for key, value in flat(resolved(config)).items():
        if isinstance(value, str) and value.startswith("~/"):
            OmegaConf.update(config, key, os.path.expanduser(value))


def interrupted(arguments: Sequence[str] = (), folder: Path | None = None) -> str:
    """How to go on with what Ctrl-C ended: the sweep of this command line, or the run in `folder` if it has saved."""
    if folder is not None:
        way = f"; go on with the same command and {words.line([words.override('resume', folder)])}"
        if (folder / "DONE").is_file():
            return "\ninterrupted; the run is finished"
        return "\ninterrupted" + (way if runs.saved(folder) else "")
    if not {"-m", "--multirun"} & set(arguments):
        return "\ninterrupted"
    answer = "\ninterrupted; the same command with reuse=true skips what is finished and goes on with the rest"
    if any("submitit" in argument for argument in arguments):
        answer += "; jobs that were submitted are still running"
    return answer


def _misread(argument: str, all_arguments: Sequence[str], error: HydraException, configs: Path) -> str:
    """How to write an argument that Hydra's grammar does not take."""
    key, equals, value = argument.partition("=")
    reason = str(error).splitlines()[0]
    meant = words.alike(key, [path.stem for path in (configs / "experiment").glob("*.yaml")])
    if meant and not equals:
        return f"{key}: wanted KEY=VALUE, such as experiment={meant[0]}"
    at = all_arguments.index(argument)
    for end in range(at + 1, len(all_arguments) + 1):  # what the shell cut at its spaces
        whole = " ".join(all_arguments[at:end])
        if value.startswith(("[", "{")) and _parses(whole):
            return f"{whole}: the shell cuts it at its spaces; quote it: {words.line([whole])}"
    if not equals:
        before = all_arguments[at - 1] if at else ""
        if "=" not in before:
            return f"{argument}: wanted KEY=VALUE"
        argument = f"{before} {argument}"
        key, _, value = argument.partition("=")
        reason = "a value with a space"
    if not _KEY.fullmatch(key):
        return f"{argument}: wanted KEY=VALUE with a key such as loss.margin, got {key!r}"
    quoted = words.line([words.override(key, value.strip().strip("'\""))])
    return f"{argument}: Hydra gives some of its signs a meaning ({reason}); quote it twice: {quoted}"


def _parses(argument: str) -> bool:
    try:
        _PARSER.parse_override(argument)
    except HydraException:
        return False
    return True


def _ambiguous(override: Override) -> str:
    key, text = override.get_key_element(), str(override.input_line).partition("=")[2]
    as_list, as_text = words.line([f"{key}=[{text}]"]), words.line([words.override(key, text)])
    return (
        f"{override.input_line} stands for several runs, which -m makes one after the other; a list is {as_list}, "
        f"and one value with a comma in it is quoted twice: {as_text}"
    )


def _one_of(override: Override) -> str:
    """The override, of a sweep with the first of its values: all are composed when their turn comes."""
    if not override.is_sweep_override():
        return str(override.input_line)
    value = override.value()
    first = value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()))
    return f"{override.get_key_element()}={first}"


def _missing_plugin(values: Mapping[str, str], configs: Path) -> str | None:
    """What to install if the command line, or the sweep that it names, chooses a plugin that is not there."""
    chosen = {key: name for key, name in values.items() if key in ("hydra/launcher", "hydra/sweeper")}
    for name in re.findall(r"\w+", values.get("sweep", "")):
        path = configs / "sweep" / f"{name}.yaml"
        overrides = re.findall(r"override /(hydra/\w+): *(\w+)", path.read_text()) if path.is_file() else []
        chosen = {f"+sweep={name}, by {key}": choice for key, choice in overrides} | chosen
    for key, name in chosen.items():
        if name in PLUGINS and not _is_installed(PLUGINS[name]):
            group = PLUGINS[name] if name == "ray" else '"blackbox-ranking[sweeps]"'  # its pins do not fit the others
            return f"error: {key}={name} needs {PLUGINS[name]}; run: pip install {group}"
    return None


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.{package.replace('-', '_')}") is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def _experiments(configs: Path) -> str:
    """The experiments with the first line of each file."""
    lines = ["which experiment? python train.py experiment=NAME, where NAME is one of"]
    for path in sorted((configs / "experiment").glob("*.yaml")):
        comments = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
        lines.append(f"  {path.stem:24} {comments[0][2:] if comments else ''}")
    return "\n".join(lines)


def _overview(configs: Path) -> str:
    """How to call train.py, the keys of its own and the groups."""
    own = re.findall(r"^(\w+): ([^#\n]*?) *# (.*)$", (configs / "train.yaml").read_text(), re.MULTILINE)
    lines = [
        "python train.py experiment=NAME [GROUP=CHOICE] [KEY=VALUE] ...       without any: the experiments",
        "python train.py experiment=NAME --help       every key of that experiment, its value and what it means",
        "python train.py experiment=NAME --cfg job --resolve       the composed config, and nothing run",
        "python train.py -m experiment=NAME seed=0,1,2       a sweep; +sweep=NAME one of configs/sweep",
        "",
        "Keys of every run:",
        *(_entry(f"{key}={value}   {comment}") for key, value, comment in own),
        "",
        "Groups:",
    ]
    for folder in sorted(path for path in configs.iterdir() if path.is_dir() and path.name not in NO_GROUP):
        choices = sorted(path.stem for path in folder.glob("*.yaml"))
        lines.append(_entry(f"{folder.name}={', '.join(choices)}"))
    return "\n".join(lines)


def _help(config: DictConfig) -> str:
    """Every key of what an experiment builds, with its value and the meaning that its constructor gives."""
    lines: list[str] = []
    for path, node in targets(resolved(config)):
        ours = [v for k, v in node.items() if k != "_target_" and isinstance(v, str) and _OURS.fullmatch(v)]
        named = [str(node["_target_"]), *ours]
        lines += ["", f"{path}   ({', '.join(named)})"]
        meanings: dict[str, str] = {}
        for name in reversed(named):
            meanings |= _arguments(get_object(name))
        for key, value in node.items():
            if not str(key).startswith("_") and not (isinstance(value, Mapping) and "_target_" in value):
                shown = words.value(value) if value is None or isinstance(value, bool) else value
                lines.append(_entry(f"{path}.{key}={shown}   {meanings.get(str(key), '')}"))
    return "\n".join(lines[1:])


def _arguments(target: Any) -> dict[str, str]:
    """What the docstrings of a class and its parents, or of a function, say of each argument."""
    found: dict[str, str] = {}
    for one in inspect.getmro(target)[:-1] if inspect.isclass(target) else (target,):
        sections = re.split(r"^(?=\S)", inspect.cleandoc(one.__doc__ or ""), flags=re.MULTILINE)
        section = next((section for section in sections if section.startswith("Args")), "")
        for entry in re.split(r"^    (?=\S)", section, flags=re.MULTILINE):
            if said := _ARGUMENT.match(entry):
                meaning = " ".join(said[2].split())
                found = {name: _with_elsewhere(meaning, name, one) for name in said[1].split(", ")} | found
    return found


def _with_elsewhere(meaning: str, name: str, where: Any) -> str:
    """The meaning of an argument, with that of the same argument of what it refers to as in, or see, `something`."""
    if not (reference := _REFERENCE.search(meaning)):
        return meaning
    target = pydoc.locate(f"{where.__module__}.{reference[1]}") or pydoc.locate(reference[1])
    there = "" if target is None else _arguments(target).get(name, "")
    return there if _REFERENCE.fullmatch(meaning) and there else f"{meaning} {there}".strip()


def _entry(text: str) -> str:
    lines = textwrap.wrap(f"  {text}".rstrip(), WIDTH, subsequent_indent="      ", break_on_hyphens=False)
    return "\n".join(lines)
