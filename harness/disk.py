"""What the system says of a disk or a folder that cannot be used: a sentence with the file and the way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
_FREE = "free some space, and give the same command again, or go on with a run by resume=<its folder>"
_ELSEWHERE = "choose a folder that may be written (paths.outputs, paths.data, hydra.run.dir, --out), or have it allowed"
_IN_THE_WAY = "a file is where a folder is wanted: move it, or choose another folder"
_GONE = "the disk fails or is gone: look after it, then go on with a run by resume=<its folder>"
_WAYS = {
    **dict.fromkeys(FULL, _FREE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _ELSEWHERE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _IN_THE_WAY),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN), _GONE),
}
_TO_WRITE = _WAYS | {errno.ENOENT: "its folder is gone: bring it back and go on, or start the run again"}


def cause(error: BaseException | None) -> OSError | None:
    """The first that the system said in what led to `error`, as torch's writer tells another of its own; or None."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            found = error
        error = error.__cause__ or error.__context__
    return found


def sentence(error: BaseException) -> str | None:
    """What is wrong with which file, and the way out; None if `error` is nothing that a disk or a folder does."""
    if not isinstance(error, OSError) or error.errno not in _WAYS or error.filename is None:
        return None
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {_WAYS[error.errno]}"


def unwritten(path: Path, error: BaseException) -> str:
    """The sentence for a file that could not be written, and what became of the one that was there."""
    said = cause(error)
    reason, number = (said.strerror, said.errno or 0) if said is not None else (str(error), 0)
    kept = "; the file of that name from before is unharmed" if path.exists() else ""
    return f"could not write {path} ({reason}){kept}; {_TO_WRITE.get(number, _FREE)}"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Gives what the system says inside the name `path`, where it says none, as of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
