"""What the entry point answers to bad input: one sentence, and the choices where there are some."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.errors import InstantiationException

# What Hydra's plugins bring, by the choice that needs them: the module, and the package that has it.
PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher"),
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "hydra-optuna-sweeper"),
}


def sentence(error: BaseException) -> str:
    """The message of the error that a constructor or a loading process raised, without what was wrapped around it."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any(isinstance(e, ModuleNotFoundError) and e.name == "pytorch_metric_learning" for e in causes):
        return 'this loss comes from pytorch-metric-learning; run: pip install "blackbox-ranking[peers]"'
    first = next((e for e in causes if not isinstance(e, InstantiationException)), error)
    message = str(first)
    if "Original Traceback" in message:  # torch tells an error in a loading process so
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return message


def refusal(arguments: list[str], configs: Path) -> str | None:
    """What is wrong with a command line before Hydra makes a folder for the run; None if nothing is."""
    values = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    asks = any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in arguments)
    if "experiment" not in values and not asks:
        return list_experiments(configs)
    resume = values.get("resume", "").strip("'\"")
    if resume not in ("", "null") and not (Path(resume) / "config.yaml").is_file():
        return f"error: resume={resume}: no run there (config.yaml is missing)"
    return _missing_plugin(values, configs)


def interrupted(arguments: Sequence[str]) -> str:
    """How to go on with a sweep that Ctrl-C ended."""
    answer = "\ninterrupted; the same command with reuse=true skips what is finished and goes on with the rest"
    if any("submitit" in argument for argument in arguments):
        answer += "; jobs that were submitted are still running"
    return answer


def _missing_plugin(values: Mapping[str, str], configs: Path) -> str | None:
    """What to install if the command line, or the sweep that it names, chooses a plugin that is not there."""
    chosen = {key: name for key, name in values.items() if key in ("hydra/launcher", "hydra/sweeper")}
    for name in re.findall(r"\w+", values.get("+sweep", "")):
        path = configs / "sweep" / f"{name}.yaml"
        overrides = re.findall(r"override /(hydra/\w+): *(\w+)", path.read_text()) if path.is_file() else []
        chosen = {f"+sweep={name}, by {key}": choice for key, choice in overrides} | chosen
    for key, name in chosen.items():
        if name in PLUGINS and not _is_installed(PLUGINS[name][0]):
            return f'error: {key}={name} needs {PLUGINS[name][1]}; run: pip install "blackbox-ranking[sweeps]"'
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def list_experiments(configs: Path) -> str:
    """The experiments with the first line of each file."""
    lines = ["which experiment? python train.py experiment=NAME, where NAME is one of"]
    for path in sorted((configs / "experiment").glob("*.yaml")):
        comments = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
        lines.append(f"  {path.stem:24} {comments[0][2:] if comments else ''}")
    return "\n".join(lines)
