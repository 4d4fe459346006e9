"""Unpacks archives of strangers: all of one or nothing, into one folder, and no more than it may fairly hold."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from harness.files import sync_everything

LEAST, TIMES = 2**30, 100
"""Bytes that any archive may unpack to, and how many times its own size, if that is more: texts shrink to a tenth."""
MOST_MEMBERS = 5_000_000
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, UnicodeError,
    NotImplementedError, IndexError, KeyError, OverflowError, struct.error,
)  # fmt: skip
# What the system says of names that an archive cannot mean, or of places in it that are not there.
_NO_NAMES = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


class UnsafeArchive(ValueError):
    """An archive with a member that could write outside the folder, that is no plain file, or too much of them."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar (plain, gzip, bzip2, xz) or zip archive into `folder`, all of it or nothing.

    Members are written to a folder beside and then moved into place; what is there already under the same name is
    replaced, and everything else stays. Permissions and owners in the archive are ignored.

    Raises:
        UnsafeArchive: If a member has an absolute path or one with "..", or is a link or a device; or if all are more
            than `LEAST` bytes and `TIMES` the archive, than the disk has room for, or than `MOST_MEMBERS`.
        ValueError: If the file is no archive, or is damaged or encrypted.
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f".{archive.name}.unpacking"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, building)
        elif tarfile.is_tarfile(archive):
            _from_tar(archive, building)
        else:
            raise ValueError(f"{archive} is neither a zip nor a tar archive; delete it and download it again")
        sync_everything()  # what the names in the folder promise is there, also if the power fails
        move_into(building, folder)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_NAMES:
            raise
        raise ValueError(f"{archive} is damaged ({error}); delete it and download it again") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _from_zip(archive: Path, building: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        limit = _Limit(archive, building)
        for entry in packed.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_member(archive, entry.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            limit.add(entry.file_size)  # zipfile writes no more than that
            if entry.flag_bits & 1:
                raise ValueError(f"{archive} is encrypted; unpack it by hand with the password that you were given")
        packed.extractall(building)


def _from_tar(archive: Path, building: Path) -> None:
    with tarfile.open(archive) as opened:
        limit = _Limit(archive, building)
        for member in opened:  # one after another, so that a compressed archive is gone through once
            _check_member(archive, member.name, plain=member.isreg() or member.isdir())
            limit.add(member.size)
            member.mode = 0o644
            opened.extract(member, building, filter="data")


class _Limit:
    """Counts what an archive unpacks to, before it is written."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive, self.members, self.bytes = archive, 0, 0
        self.fair = max(LEAST, TIMES * archive.stat().st_size)
        self.free = shutil.disk_usage(folder).free

    def add(self, size: int) -> None:
        self.members, self.bytes = self.members + 1, self.bytes + max(0, size)
        if self.members > MOST_MEMBERS:
            raise UnsafeArchive(
                f"{self.archive} has more than {MOST_MEMBERS:,} files; nothing was unpacked: unpack it by hand if you"
                " trust it"
            )
        if self.bytes > self.fair:
            raise UnsafeArchive(
                f"{self.archive} unpacks to more than {self.fair:,} bytes, as a bomb does; nothing was unpacked: unpack"
                " it by hand if you trust it"
            )
        if self.bytes > self.free:
            raise UnsafeArchive(
                f"{self.archive} unpacks to more than the {self.free:,} bytes that are free; nothing was unpacked:"
                " free some space"
            )


def _check_member(archive: Path, name: str, plain: bool) -> None:
    """Refuses what the library would refuse, and what it would put inside the folder under another name."""
    if not plain:
        raise UnsafeArchive(f"{archive} has {name!r}, a link or a device; nothing was unpacked")
    path = PureWindowsPath(name)  # which knows both slashes
    if path.root or path.drive or ".." in path.parts or "\0" in name:
        raise UnsafeArchive(f"{archive} has {name!r}, which lies outside the folder to unpack to; nothing was unpacked")


def move_into(source: Path, target: Path) -> None:
    """Moves what is in `source` into `target`; whole folders at once where that replaces nothing."""
    for item in source.iterdir():
        place = target / item.name
        if place.is_symlink() or not place.is_dir():
            place.unlink(missing_ok=True)
        elif item.is_dir():
            move_into(item, place)
            continue
        else:
            shutil.rmtree(place)
        os.replace(item, place)
