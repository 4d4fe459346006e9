"""The options of every command that uses a trained model, and how it is loaded by them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.record.allowed import OPTION
from harness.record.standalone import Trained, load

WHICH: dict[str, Any] = {
    "metavar": "CHECKPOINT",
    "help": "best (default), last, average, or another of the run",
}
DEVICE: dict[str, Any] = {"default": "auto", "help": "cpu, cuda, ...; default: a GPU if there is one"}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds `run`, and how the model is loaded and its inputs are read."""
    parser.add_argument("run", type=Path, help="the folder of a run, finished or not, or one with its model")
    parser.add_argument("--which", **WHICH)
    parser.add_argument("--device", **DEVICE)
    parser.add_argument("--batch-size", type=int, metavar="N", help="inputs at a time; default: as the run evaluated")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read (default: 0)")
    parser.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="what becomes of an image that cannot be read: it ends the command (default), or is left out and listed",
    )
    parser.add_argument("--allow", **OPTION)


def loaded(chosen: argparse.Namespace) -> Trained:
    """The model that was chosen; errors of `load`, and a ValueError if a number is out of range."""
    for name, least in (("batch_size", 1), ("workers", 0)):
        value = getattr(chosen, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    return load(chosen.run, chosen.which, chosen.device, chosen.allow)
