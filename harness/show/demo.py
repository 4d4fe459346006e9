"""What the demos share: short trainings of a few methods, found by their names, and a table of what came of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import words
from harness.device import cores
from harness.record.composition import place
from harness.record.reproducibility import CODE
from harness.show.report_tables import means
from harness.show.sheet import Sheet
from harness.study.execution import run_all
from harness.study.results import Run, find_runs, group_by_method


def trained(
    description: str | None, experiment: str, methods: Mapping[str, Sequence[str]], seeds: int = 3
) -> tuple[Path, dict[str, list[Run]]]:
    """Trains every method with seeds 0, 1, ... as the command line asks.

    Args:
        description: Of the command.
        experiment: What all methods run.
        methods: What each changes, by its name.
        seeds: How many, unless the command line says.

    Returns:
        The folder of it all, and the runs of each method.

    Raises:
        SystemExit: If one fails; with the end of what it said.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=seeds)
    default = place("outputs") / experiment / time.strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("--folder", type=Path, default=default)
    parser.add_argument("overrides", nargs="*", help="changes of the experiment, such as trainer.epochs=2")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    common = [words.override("paths.outputs", folder), "tracking.wandb=disabled", *arguments.overrides]
    commands = {
        f"{name}, seed {seed}": [f"experiment={experiment}", *chosen, f"seed={seed}", *common]
        for seed in range(arguments.seeds)
        for name, chosen in methods.items()
    }
    print(f"{len(commands)} short trainings; each is python train.py experiment={experiment}", flush=True)
    for name, said in run_all(commands, CODE / "train.py", cores()).items():  # too small to fill a GPU
        raise SystemExit(f"{name} failed:\n{said}")
    return folder, _by_method(folder, methods)


def _by_method(folder: Path, methods: Mapping[str, Sequence[str]]) -> dict[str, list[Run]]:
    every = frozenset(word for chosen in methods.values() for word in chosen)
    made_with = {
        every.intersection(members[0].report["overrides"]): members
        for members in group_by_method(find_runs([folder])).values()
    }
    return {name: made_with[frozenset(chosen)] for name, chosen in methods.items()}


def table(
    groups: Mapping[str, Sequence[Run]], title: str, metrics: Mapping[str, str], untrained: bool = False
) -> Sheet:
    """Every method after its last epoch, mean and interval over the seeds.

    Args:
        groups: The runs of each method.
        title: Without the number of seeds.
        metrics: Columns by metric.
        untrained: Whether the first row is the network before training.
    """
    rows = [("untrained", next(iter(groups.values())), "untrained")] if untrained else []
    rows += [(name, members, "last") for name, members in groups.items()]
    return means(f"{title}, after the last epoch", rows, metrics)
