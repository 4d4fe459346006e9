"""Downloads files: from several mirrors, resuming what broke off, and keeping nothing that fails verification."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from harness.data.archives import unpack

_PIECE = 1 << 16  # bytes; where a connection breaks off, less than that of what came is lost


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
        md5: Digest, where known; asked only where no sha256 is.
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
        kind, expected = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)
        if expected is not None and (found := digest(path, kind)) != expected:
            return f"has {kind} {found}, expected {expected}"
        return None


def digest(path: Path, kind: str = "sha256") -> str:
    """The digest of a file in hexadecimal, read piece by piece."""
    return str(pooch.file_hash(str(path), alg=kind))


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
        except (OSError, DownloadError) as error:
            reasons.append(f"{url}: {error}")
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
    if url.startswith("ftp://"):
        transfer: Callable[[], Any] = partial(pooch.FTPDownloader(timeout=timeout), url, str(part), None)
    elif url.startswith(("http://", "https://")):
        transfer = partial(_transfer, url, file, part, timeout)
    else:
        raise DownloadError("the address should begin with http://, https:// or ftp://")
    resumed = part.exists()
    while True:
        for attempt in range(attempts):
            try:
                transfer()
                break
            except OSError as error:
                if attempt == attempts - 1 or _will_not_change(error):
                    raise
        fault = file.fault(part)
        if fault is None:
            return
        part.unlink()
        if not resumed:
            raise DownloadError(f"the file {fault}: damaged on its way or changed at its source; nothing was kept")
        resumed = False  # an old beginning may have been at fault: once more, from the start


def _will_not_change(error: OSError) -> bool:
    """Whether asking again is of no use: the server has no such file, or gives it to others."""
    return isinstance(error, requests.HTTPError) and error.response is not None and error.response.status_code < 500


def _transfer(url: str, file: RemoteFile, part: Path, timeout: float) -> None:
    """Appends to `part` what it lacks; raises an OSError (of requests, or ConnectionError) if it is not all."""
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have == file.size:
        return
    if file.size is not None and have > file.size:
        part.unlink()
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == 416:  # nothing is beyond what we have
            if _total(response) == have:
                return
            part.unlink()
            raise ConnectionError("the server could not go on where the download broke off")
        response.raise_for_status()
        start, total = _extent(response, have)
        if file.size is not None and total is not None and total != file.size:
            raise DownloadError(f"the server offers {total:,} bytes, expected {file.size:,}")
        _save(response, part, start, total, file.name)


def _extent(response: requests.Response, have: int) -> tuple[int, int | None]:
    """Where the bytes of the answer begin, and how long the whole file is, if the server says."""
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {have}-"):
            raise DownloadError(f"the server was asked to go on at byte {have:,} and answered {given!r}")
        return have, _total(response)
    length = response.headers.get("Content-Length")  # no support for ranges: from the start
    return 0, int(length) if length else None


def _total(response: requests.Response) -> int | None:
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _save(response: requests.Response, part: Path, start: int, total: int | None, name: str) -> None:
    done, columns = start, (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=total, completed=start)
        if bar.disable:
            _say(f"downloading {name}" + (f", {total / 1e6:,.1f} MB" if total else ""))
        with part.open("ab" if start else "wb") as file:
            try:
                for piece in response.iter_content(_PIECE):
                    done += file.write(piece)
                    bar.update(task, completed=done)
            except requests.RequestException as error:
                of = f" of {total:,}" if total else ""
                raise ConnectionError(f"the connection ended after {done:,}{of} bytes") from error


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


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
