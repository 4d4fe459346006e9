"""Runs of train.py on stand-in data, each a command of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Pictures take longer than all the rest of such a run; what looks at them asks for them.
COMMON = ("scale=fixture", "threads=1", "trainer.device=cpu", "trainer.pictures=false")


def words(experiment, folder, *overrides):
    """A command of a run on the CPU into `folder`, with data beside it unless `overrides` says where they are."""
    given = [f"experiment={experiment}", *COMMON, f"hydra.run.dir={folder}", f"paths.outputs={folder.parent}"]
    if not any(override.startswith("paths.data=") for override in overrides):
        given.append(f"paths.data={folder.parent / 'data'}")
    return [sys.executable, str(ROOT / "train.py"), *given, *overrides]


def run(experiment, folder, *overrides, environment=None, cwd=ROOT, **given):
    """Makes a run, which must succeed, and returns what it said."""
    done = subprocess.run(
        words(experiment, folder, *overrides),
        cwd=cwd, env=os.environ | (environment or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=600, **given,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (folder / "DONE").is_file()
    return done.stdout
