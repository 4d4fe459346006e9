"""Stand-in data: a tiny copy of a data set's layout, written beside where the real data belong."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

VERSION = "2"  # raise it when any layout changes, so that old copies are replaced


def beside(root: Path, write: Callable[[Path], None]) -> Path:
    """Lets `write` fill the folder `<root>_fixture`, unless it is there already; safe with any number of processes."""
    folder = root.with_name(f"{root.name}_fixture")
    stamp = folder / ".fixture"

    def ready() -> bool:
        return stamp.is_file() and stamp.read_text() == VERSION

    if ready():
        return folder
    if folder.exists() and not stamp.is_file():
        raise FileExistsError(f"{folder} is in the way of stand-in data: it is not ours, so move it")
    building = root.with_name(f".{root.name}_fixture.{uuid.uuid4().hex}")
    try:
        building.mkdir(parents=True)
        write(building)
        (building / ".fixture").write_text(VERSION)
        if stamp.is_file() and not ready():  # an older version
            shutil.rmtree(folder)
        os.rename(building, folder)
    except OSError:
        if not ready():  # else the copy of a faster process is there, which is as good
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
