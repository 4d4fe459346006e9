"""Downloads files: from several mirrors, resuming what broke off, and keeping nothing that fails verification."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.archives import unpack

_CHUNK = 1 << 20


class DownloadError(RuntimeError):
    """A file could not be had; the message says why and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes:
        name: Where it goes, relative to the folder of the data set.
        urls: Its addresses (http, https or ftp), tried in this order. None: it must be fetched by hand.
        size: Bytes, where known.
        sha256: Digest, where known.
        md5: Digest, where known.
        unpack: Whether it is an archive, to be unpacked where it lies.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: bool = False

    def fault(self, path: Path) -> str | None:
        """What is wrong with `path` as a copy of this file, or None."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"has {size:,} bytes, expected {self.size:,}"
        for kind in ("sha256", "md5"):
            expected = getattr(self, kind)
            if expected is not None:
                found = digest(path, kind)
                if found != expected:
                    return f"has {kind} {found}, expected {expected}"
                break  # the stronger of the two is enough
        return None


def digest(path: Path, kind: str = "sha256") -> str:
    """The digest of a file in hexadecimal, read piece by piece."""
    state = hashlib.new(kind)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            state.update(piece)
    return state.hexdigest()


def fetch(file: RemoteFile, folder: Path, attempts: int = 3, timeout: float = 30.0, by_hand: str = "") -> Path:
    """Brings `file` into `folder`, unless a good copy is there, and returns where it is.

    A download goes to `<name>.part`, which a later call takes up where it broke off; under its own name a file exists
    only after verification.

    Args:
        attempts: How often a mirror is asked, each time going on where the last attempt stopped.
        timeout: Seconds without an answer after which an attempt is given up.
        by_hand: What to say if the file has no address and is not there.

    Raises:
        DownloadError: If no mirror delivers, or none delivers what the hash asks for, or it does not fit on the disk.
    """
    target = folder / file.name
    if target.is_file():
        fault = file.fault(target)
        if fault is None:
            return target
        if not file.urls:
            raise DownloadError(f"{target} {fault}; replace it. {by_hand}".strip())
        _say(f"{target} {fault}: downloading it again")
        target.unlink()
    if not file.urls:
        raise DownloadError(by_hand or f"{file.name} must be put into {folder} by hand")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _check_space(file, part)
    reasons = []
    for url in file.urls:
        try:
            _from_mirror(url, file, part, attempts, timeout)
        except (OSError, http.client.HTTPException, DownloadError) as error:
            reasons.append(f"{url}: {_reason(error)}")
            continue
        part.replace(target)
        return target
    kept = f"; {part.stat().st_size:,} bytes are kept, run the same command again to go on" if part.exists() else ""
    raise DownloadError(f"cannot download {file.name} ({'; '.join(reasons)}){kept}")


def obtain(
    files: Iterable[RemoteFile], folder: Path, check: Callable[[], str], by_hand: str = "", keep_archives: bool = False
) -> str:
    """Downloads and unpacks what `check` finds missing.

    Args:
        files: What makes up the data set.
        folder: Where it goes.
        check: Says in a few words what is there, or raises OSError or ValueError if that is not all.
        by_hand: What to do where a form or a login stands before the data.
        keep_archives: Whether archives stay once they are unpacked and checked.

    Returns:
        The words of `check`.

    Raises:
        DownloadError: If a file cannot be had.
        OSError, ValueError: If an archive is damaged, or `check` is still not content.
    """
    try:
        return check()
    except (OSError, ValueError):
        pass
    files = list(files)
    for file in files:
        path = fetch(file, folder, by_hand=by_hand)
        if file.unpack:
            _say(f"unpacking {path}")
            unpack(path, path.parent)
    facts = check()
    for file in files:
        if file.unpack and not keep_archives:
            (folder / file.name).unlink()
    return facts


def faults(files: Iterable[RemoteFile], folder: Path) -> list[str]:
    """What is wrong with those of `files` that are in `folder`.

    Archives may be gone once they are unpacked, and files to be brought by hand may lie in another of the layouts that
    the data set reads; their absence is for it to notice.
    """
    found = []
    for file in files:
        path = folder / file.name
        if path.is_file():
            fault = file.fault(path)
            if fault is not None:
                found.append(f"{path} {fault}")
        elif file.urls and not file.unpack:
            found.append(f"{path} is missing")
    return found


def _from_mirror(url: str, file: RemoteFile, part: Path, attempts: int, timeout: float) -> None:
    """Leaves a verified `part`, or raises; a `part` that fails verification is deleted."""
    resumed = part.exists()
    while True:
        for attempt in range(attempts):
            try:
                _transfer(url, file, part, timeout)
                break
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == attempts - 1:
                    raise
            except (OSError, http.client.HTTPException):
                if attempt == attempts - 1:
                    raise
        fault = file.fault(part)
        if fault is None:
            return
        part.unlink()
        if not resumed:
            raise DownloadError(f"the file {fault}: damaged on its way or changed at its source; nothing was kept")
        resumed = False  # an old beginning may have been at fault: once more, from the start


def _transfer(url: str, file: RemoteFile, part: Path, timeout: float) -> None:
    """Appends to `part` what it lacks; raises ConnectionError if the connection ends early."""
    if not url.startswith(("http://", "https://", "ftp://")):
        raise DownloadError("the address should begin with http://, https:// or ftp://")
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have >= file.size:
        if have == file.size:
            return
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "Python"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            start, total = _extent(response, have)
            if file.size is not None and total is not None and total != file.size:
                raise DownloadError(f"the server offers {total:,} bytes, expected {file.size:,}")
            _save(response, part, start, total, file.name)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        total = _total(error.headers.get("Content-Range", ""))
        if total != have:  # what we have is longer than the file, or the server cannot say: start over
            part.unlink()
            raise ConnectionError("the server could not go on where the download broke off") from error


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the bytes of the answer begin, and how long the whole file is, if the server says."""
    if getattr(response, "status", None) == 206:
        given = response.headers.get("Content-Range", "")
        start = re.match(r"bytes (\d+)-", given)
        if start is None or int(start[1]) != have:
            raise DownloadError(f"the server was asked to go on at byte {have:,} and answered {given!r}")
        return have, _total(given)
    length = response.headers.get("Content-Length")  # no support for ranges: from the start
    return 0, int(length) if length else None


def _total(content_range: str) -> int | None:
    match = re.search(r"/(\d+)$", content_range)
    return int(match[1]) if match else None


def _save(response: http.client.HTTPResponse, part: Path, start: int, total: int | None, name: str) -> None:
    done, progress = start, _Progress(name, start, total)
    with part.open("ab" if start else "wb") as file:
        while piece := response.read(_CHUNK):
            file.write(piece)
            done += len(piece)
            progress.at(done)
    progress.end(done)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _check_space(file: RemoteFile, part: Path) -> None:
    if file.size is None:
        return
    have = part.stat().st_size if part.exists() else 0
    needed = file.size - have + (file.size if file.unpack else 0)  # packed pictures hardly grow when unpacked
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DownloadError(
            f"{file.name} needs about {needed:,} bytes in {part.parent} and {free:,} are free; free some space"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class _Progress:
    """A line that is rewritten on a terminal; elsewhere one line at the beginning and one at the end."""

    def __init__(self, name: str, start: int, total: int | None) -> None:
        self.name, self.start, self.total = name, start, total
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        if not self.terminal:
            size = f"{total / 1e6:,.1f} MB" if total else "size unknown"
            _say(f"downloading {name} ({size}{f', going on at {start / 1e6:,.1f} MB' if start else ''})")

    def at(self, done: int) -> None:
        """Shows the state, ten times a second at most."""
        now = time.monotonic()
        if self.terminal and now - self.shown > 0.1:
            self.shown = now
            speed = (done - self.start) / 1e6 / max(now - self.began, 1e-9)
            share = f"{done / self.total:4.0%} of {self.total / 1e6:,.1f} MB" if self.total else f"{done / 1e6:,.1f} MB"
            print(f"\r{self.name}  {share}  {speed:,.1f} MB/s\033[K", end="", file=sys.stderr, flush=True)

    def end(self, done: int) -> None:
        """Says how much there is now."""
        seconds = time.monotonic() - self.began
        _say(f"{chr(13) if self.terminal else ''}{self.name}  {done / 1e6:,.1f} MB  {seconds:,.0f} s")
