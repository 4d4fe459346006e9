"""The console command `ranking`: train.py and the scripts of a clone by one name, needing torch alone for itself."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]


def commands() -> dict[str, Path]:
    """The scripts by name, of the clone that this package stands in, else of that in the working directory."""
    for root in (CODE, Path.cwd()):
        if (root / "configs" / "train.yaml").is_file() and (root / "train.py").is_file():
            scripts = sorted((root / "scripts").glob("*.py"))
            return {"train": root / "train.py"} | {path.stem.replace("_", "-"): path for path in scripts}
    return {}


def described(there: dict[str, Path]) -> str:
    """How the command is used, with the first sentence of each script."""
    usage = "usage: ranking [--help] [--version] COMMAND ...\n"
    if not there:
        return f"{usage}\nThe commands are in a clone of the project: run this there.\n"
    wide = max(map(len, there))
    sentences = {name: str(ast.get_docstring(ast.parse(path.read_text("utf-8")))) for name, path in there.items()}
    lines = [f"  {name:{wide}}  {said.splitlines()[0].partition(': python')[0]}" for name, said in sentences.items()]
    return "\n".join([usage, *lines, "", "ranking COMMAND --help says more.\n"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Becomes `python train.py ...` or `python scripts/<command>.py ...`.

    Args:
        arguments: Those of the command line if None.

    Raises:
        SystemExit: With a sentence if there is no such command, or no clone to take it from.
    """
    name, *rest = arguments if arguments is not None else sys.argv[1:] or ["--help"]
    there = commands()
    if name in ("-h", "--help"):
        print(described(there), end="")
    elif name == "--version":
        print(f"blackbox-ranking {version('blackbox-ranking')}, torch {version('torch')}")
    elif name in there:
        os.execv(sys.executable, [sys.executable, str(there[name]), *rest])
    elif there:
        raise SystemExit(f"error: there is no command '{name}'; there are {', '.join(there)}")
    else:
        raise SystemExit(
            f"error: 'ranking {name}' needs a clone of the project, since train.py, scripts/ and configs/ are not"
            " installed with it; run it in the clone's folder, or install from there with: pip install --editable ."
        )
