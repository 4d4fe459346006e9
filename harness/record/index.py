"""Every run below a folder by its fingerprint, read once: what was learnt of thousands of runs is kept beside them."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from harness.files import read_json, write_record
from harness.record import config, runs

logger = logging.getLogger(__name__)
LOCKS = ".locks"  # below the outputs: one for each run that is being looked for or made
KEPT = ".index.json"  # below the outputs: the fingerprints of runs whose files are as they were


@dataclass
class Found:
    """Run folders of one fingerprint of the config, oldest first; on which data they are, `on` finds out."""

    finished: list[Path] = field(default_factory=list)
    interrupted: list[Path] = field(default_factory=list)  # those that hold a checkpoint, so that they can be resumed
    stopped: list[Path] = field(default_factory=list)  # those whose training stopped by itself, resumable or not

    def on(self, data: str) -> Found:
        """Those on the data of this fingerprint."""
        own = self.finished, self.interrupted, self.stopped
        return Found(*([folder for folder in folders if _is_on(data, folder)] for folders in own))


def index(outputs: Path) -> dict[str, Found]:
    """Every run below `outputs` by its fingerprint.

    A folder whose config or report cannot be read is left out with a warning: it costs itself, and nothing else. The
    fingerprints are kept in `.index.json`, and taken from there while config and report have the size and the
    times of then; that of their last change, among them, is set by no program.
    """
    kept, found, now = _kept(outputs), dict[str, Found](), dict[str, str]()
    for folder in sorted(runs.folders(outputs), key=lambda folder: (folder.name, folder)):  # called by their time
        finished = (folder / "DONE").exists()
        state = _state(outputs, folder, finished)
        if (key := kept.get(state)) is None:
            try:
                key = config.fingerprint(runs.read_config(folder))
                if finished:
                    runs.read_report(folder)
            except ValueError as error:
                logger.warning("%s", error)
                continue
        now[state] = key
        there = found.setdefault(key, Found())
        if finished:
            there.finished.append(folder)
            continue
        if (folder / runs.STOPPED).is_file():
            there.stopped.append(folder)
        if runs.saved(folder):
            there.interrupted.append(folder)
    if now != kept:
        # Where nothing may be written, everything is read every time; what somebody else is writing is as good.
        with (
            suppress(OSError, NotImplementedError, Timeout),
            FileLock(lock := outputs / LOCKS / "index", timeout=0),
        ):
            write_record(outputs / KEPT, {"rules": _rules(), "runs": now})
            lock.unlink(missing_ok=True)
    return found


def _state(outputs: Path, folder: Path, finished: bool) -> str:
    """A run, with size and time of what is read of it: the config, and the report of a finished one."""

    def of(name: str) -> list[int] | None:
        try:
            status = (folder / name).stat()
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

    return json.dumps([str(folder.relative_to(outputs)), of("config.yaml"), of("report.json") if finished else None])


def _kept(outputs: Path) -> dict[str, str]:
    """State -> fingerprint; nothing if the file is damaged or of another version's rules: then all is read anew."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        record = read_json(outputs / KEPT)
        if record["rules"] == _rules():
            return dict(record["runs"])
    return {}


@cache
def _rules() -> str:
    """A mark of the code that makes fingerprints: entries of another version are not believed."""
    return hashlib.sha256(Path(config.__file__).read_bytes()).hexdigest()[:16]


def _is_on(data: str, folder: Path) -> bool:
    try:
        return runs.data_of(folder) == data
    except ValueError:
        return True  # whoever reads on will tell what is wrong with it
