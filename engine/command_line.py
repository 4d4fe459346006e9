"""What the entry point answers to bad input: one sentence, and the choices where there are some."""

from __future__ import annotations

from pathlib import Path

from hydra.errors import InstantiationException


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
    return None


def list_experiments(configs: Path) -> str:
    """The experiments with the first line of each file."""
    lines = ["which experiment? python train.py experiment=NAME, where NAME is one of"]
    for path in sorted((configs / "experiment").glob("*.yaml")):
        comments = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
        lines.append(f"  {path.stem:24} {comments[0][2:] if comments else ''}")
    return "\n".join(lines)
