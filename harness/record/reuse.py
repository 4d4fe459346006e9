"""Runs that need not be made again: a finished one is found, an interrupted one goes on, and no folder has two writers.

The locks are the kernel's, held on small files that name their holder. The kernel lets go of a lock when its process
ends, however that ends, so there is no stale one: a file that a killed process left behind is free to take.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from harness import checkpoint
from harness.files import remove
from harness.record import runs
from harness.record.config import BITS, fingerprint, nodes, resolved
from harness.record.index import LOCKS, Found, index
from harness.record.place import LogFile

log = logging.getLogger(__name__)
LOCK = ".running"  # in a run folder, while a process writes there
POLL_SECONDS = 2.0
SOON_SECONDS = 0.2  # in which a lock that is just being let go of is free
Train = Callable[[DictConfig, Path, Any], dict[str, Any]]


class InUseError(RuntimeError):
    """Another process is making this run; the message names it."""


def once(config: DictConfig, folder: Path, prepare: Callable[[DictConfig], Any], train: Train) -> dict[str, Any]:
    """Makes the run of a composed config, unless `config.reuse` is on and it was made before; returns its report.

    With `reuse`, a finished run of the same config on the same data is answered with its report, an interrupted one
    goes on in its own folder, and `folder`, of which nothing came, is removed again. A run that another process is
    making is waited for where a search needs its result (`config.objective`).

    Args:
        folder: Of a new run, or of the one that `config.resume` names.
        prepare: Called with the config, builds the data; by their fingerprint they are told from others.
        train: Called with config, folder and the data, or None where they are to be built, if there is something to
            do; returns the report.

    Raises:
        InUseError: If another process is making it.
        ValueError: If the report of a finished run cannot be read.
    """
    data = prepare(config) if config.reuse and not config.resume else None
    mark = None if data is None else data.describe().get("fingerprint")
    if mark is None:
        if data is not None:
            log.warning(
                "these data tell no fingerprint, so that no earlier run is known to be on them: it is made anew"
            )
        with held(folder / LOCK):
            return train(config, folder, data)
    waiting = False
    while True:
        try:
            return _found_or_made(config, folder, data, str(mark), train)
        except InUseError as busy:
            if not config.objective:
                discard(folder)
                raise
            if not waiting:
                log.info("%s; waiting, since the search needs its result", busy)
            waiting = True
            time.sleep(POLL_SECONDS)


def lock_of(outputs: Path, config: Mapping[str, Any], mark: str) -> Path:
    """The file that is locked while the run of a resolved config, on the data of fingerprint `mark`, is made."""
    return outputs / LOCKS / f"{fingerprint(config)}-{mark[:16]}"


def _found_or_made(config: DictConfig, folder: Path, data: Any, mark: str, train: Train) -> dict[str, Any]:
    outputs, settings = Path(config.paths.outputs), resolved(config)
    with held(lock_of(outputs, settings, mark)):
        found = index(outputs).get(fingerprint(settings), Found()).on(mark)
        if found.finished:
            log.info("already done: %s", found.finished[-1])
            discard(folder)
            return runs.read_report(found.finished[-1])
        if not found.interrupted:
            with held(folder / LOCK):
                return train(config, folder, data)
        there = found.interrupted[-1]
        with held(there / LOCK):
            log.info("goes on: %s", there)
            discard(folder, log_to=there)
            return train(_as_begun(config, there), there, None)


def _as_begun(config: DictConfig, folder: Path) -> DictConfig:
    """The config with `resume`, and with what the interrupted run may not change but its fingerprint does not know."""
    config, begun = config.copy(), {".".join(path): value for path, value in nodes(runs.read_config(folder))}
    config.resume = str(folder)
    for key in BITS:
        value = begun.get(key)
        if not isinstance(value, int | None) and not re.fullmatch(r"[a-z]+(:\d+)?", str(value)):  # it will be built
            raise ValueError(f"{folder / 'config.yaml'}: {key} is {value!r}, wanted a number or a device")
        OmegaConf.update(config, key, value)
    return config


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock `path`, a file that exists only while somebody holds it, or after its holder was killed.

    Raises:
        InUseError: If another process holds it.
    """
    lock = FileLock(path, timeout=SOON_SECONDS, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        holder = path.read_text().strip() if path.is_file() else ""
        raise InUseError(f"{holder or 'another process'} is making this run ({path})") from None
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s): do not start the same run twice at once", path, error)
    try:
        with contextlib.suppress(OSError):  # a full disk: held without a name
            if lock.is_locked:
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        if lock.is_locked:  # who has it open by now will see that it is gone, and open it anew
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()


@contextlib.contextmanager
def unused_unless_saved(folder: Path) -> Iterator[None]:
    """Makes a new run: what it left in `folder` is taken back if the block fails before the run has a checkpoint.

    The corrected command can then be given the same folder, and so can that of a run that was killed before it had one.
    The log of the attempt stays, and what somebody else mirrors there.
    """
    if (folder / "config.yaml").is_file():  # of a run that was killed, see `beginning`
        _take_back(folder)
    others = {name for name in runs.MIRRORED if (folder / name).exists()}
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if not runs.saved(folder):
            _take_back(folder, others)
        raise


def _take_back(folder: Path, others: Iterable[str] = ()) -> None:
    for name in (*runs.MIRRORED, *reversed(runs.LEFT)):  # the config last: it says that the rest is of a run
        if name not in others:
            remove(folder / name)


def beginning(config: DictConfig, folder: Path) -> DictConfig:
    """The config of a run that begins, or goes on, in `folder`, where nobody else is writing.

    It is without `resume` if that names a run which was killed before its first checkpoint: it begins anew.

    Raises:
        FileExistsError: If another run is there, or the one to go on with is finished.
        FileNotFoundError: If there is nothing to go on from, but more than a beginning.
        ValueError, CheckpointError: As `runs.check_resumed`.
    """
    nothing = runs.nothing_came_of(folder)
    if not config.resume:
        if not nothing:
            runs.check_unused(folder)
        return config
    if not nothing or (folder / "config.yaml").is_file():
        runs.check_resumed(folder, config)
    if runs.saved(folder):
        return config
    if not nothing:
        raise FileNotFoundError(
            f"resume={folder}: its checkpoints are gone (checkpoints/{checkpoint.LAST}); start a new run"
        )
    log.info("%s was ended before its first checkpoint, so it begins anew", folder)
    config = config.copy()
    config.resume = None
    return config


def discard(folder: Path, log_to: Path | None = None) -> None:
    """Removes the folder that Hydra made for a run of which nothing came; what is logged next goes to `log_to`."""
    if (folder / "config.yaml").exists() or not folder.is_dir():
        return  # somebody's run
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder.absolute():
            root.removeHandler(handler)
            handler.close()
            Path(handler.baseFilename).unlink(missing_ok=True)
            if log_to is not None:
                other = LogFile(log_to / Path(handler.baseFilename).name)
                other.setFormatter(handler.formatter)
                root.addHandler(other)
    shutil.rmtree(folder / ".hydra", ignore_errors=True)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()
