"""Downloads files, from several mirrors and resuming what broke off, and verifies them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from harness.data.archives import unpack

_PIECE = 1 << 16  # bytes; where a connection breaks off, less than that of what came is lost
_ATTEMPTS = 3  # how often a mirror is asked, each time going on where the last attempt stopped
_TIMEOUT = 30.0  # seconds without an answer after which an attempt is given up


class DownloadError(RuntimeError):
    """A file could not be had; the message says why and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download; what is not known of it is None."""

    name: str  # where it goes, relative to the folder of the data set
    urls: tuple[str, ...] = ()  # http, https or ftp, tried in this order; none: it must be fetched by hand
    size: int | None = None  # bytes
    sha256: str | None = None
    md5: str | None = None  # asked only where no sha256 is
    unpack: bool = False  # whether it is an archive, to be unpacked where it lies

    def fault(self, path: Path) -> str | None:
        """What is wrong with `path` as a copy of this file, or None."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"has {size:,} bytes, expected {self.size:,}"
        kind, expected = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)
        if expected is not None and (found := pooch.file_hash(str(path), alg=kind)) != expected:
            return f"has {kind} {found}, expected {expected}"
        return None


def fetch(file: RemoteFile, folder: Path, by_hand: str = "") -> Path:
    """Brings `file` into `folder`, unless a good copy is there, and returns where it is.

    A download goes to `<name>.part`, which a later call takes up where it broke off; under its own name a file exists
    only after verification. `by_hand` is what to say if the file has no address and is not there. A DownloadError says
    if no mirror delivers, or none delivers what the hash asks for, or it does not fit on the disk.
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
    needed = (file.size or 0) * (1 + file.unpack) - _length(part)  # packed pictures hardly grow when unpacked
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise DownloadError(
            f"{file.name} needs about {needed:,} bytes in {target.parent} and {free:,} are free; free some space"
        )
    reasons = []
    for url in file.urls:
        try:
            _from_mirror(url, file, part)
        except (OSError, DownloadError) as error:
            reasons.append(f"{url}: {error}")
            continue
        part.replace(target)
        return target
    kept = f"; {_length(part):,} bytes are kept, run the same command again to go on" if part.exists() else ""
    raise DownloadError(f"cannot download {file.name} ({'; '.join(reasons)}){kept}")


def obtain(
    files: Sequence[RemoteFile],
    folder: Path,
    check: Callable[[], str],
    by_hand: str = "",
    keep_archives: bool = False,
    unpacking: Callable[[Path, Path], None] | None = None,
) -> str:
    """Downloads and unpacks what `check` finds missing, and returns its words.

    `check` says in a few words what is there, or raises OSError or ValueError if that is not all; `by_hand` is what to
    do where a form or a login stands before the data; `keep_archives` leaves archives there once unpacked and checked;
    `unpacking` takes the place of `unpack`.

    Raises:
        DownloadError: If a file cannot be had.
        OSError, ValueError: If an archive is damaged, or `check` is still not content.
    """
    try:
        return check()
    except (OSError, ValueError):
        pass
    for file in files:
        path = fetch(file, folder, by_hand)
        if file.unpack:
            _say(f"unpacking {path}")
            (unpacking or unpack)(path, path.parent)
    facts = check()
    for file in files:
        if file.unpack and not keep_archives:
            (folder / file.name).unlink()
    return facts


def faults(files: Iterable[RemoteFile], folder: Path) -> list[str]:
    """What is wrong with those of `files` that are in `folder`; archives may be gone, once they are unpacked."""
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


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _from_mirror(url: str, file: RemoteFile, part: Path) -> None:
    """Leaves a verified `part`, or raises; a `part` that fails verification is deleted."""
    resumed = part.exists()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _transfer(url, file, part)
            break
        except OSError as error:
            answer = getattr(error, "response", None)
            refused = answer is not None and answer.status_code < 500  # and will be again
            if refused or attempt == _ATTEMPTS:
                raise
    fault = file.fault(part)
    if fault is None:
        return
    part.unlink()
    if not resumed:
        raise DownloadError(f"the file {fault}: damaged on its way or changed at its source; nothing was kept")
    _from_mirror(url, file, part)  # an old beginning may have been at fault: once more, from the start


def _transfer(url: str, file: RemoteFile, part: Path) -> None:
    """Appends to `part` what it lacks; raises an OSError (of requests, or ConnectionError) if it is not all."""
    if url.startswith("ftp://"):
        pooch.FTPDownloader(timeout=_TIMEOUT)(url, str(part), None)
        return
    if not url.startswith(("http://", "https://")):
        raise DownloadError("the address should begin with http://, https:// or ftp://")
    have = _length(part)
    if have == file.size:
        return
    if file.size is not None and have > file.size:
        part.unlink()
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        given = response.headers.get("Content-Range", "")
        if response.status_code == 416:  # nothing is beyond what we have
            if given.endswith(f"/{have}"):
                return
            part.unlink()
            raise ConnectionError("the server could not go on where the download broke off")
        response.raise_for_status()
        if response.status_code == 206 and not given.startswith(f"bytes {have}-"):
            raise DownloadError(f"the server was asked to go on at byte {have:,} and answered {given!r}")
        start = have if response.status_code == 206 else 0  # without support for ranges all of it comes
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length else None
        if file.size is not None and total is not None and total != file.size:
            raise DownloadError(f"the server offers {total:,} bytes, expected {file.size:,}")
        _save(response, part, start, total, file.name)


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


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
