"""Unpacks archives from the internet without letting them write outside their folder."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)


class UnsafeArchive(ValueError):
    """An archive with a member that could write outside the folder, or that is no plain file."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar (plain, gzip, bzip2, xz) or zip archive into `folder`, all of it or nothing.

    Members are written to a folder beside and then moved into place; what is there already under the same name is
    replaced, and everything else stays. Permissions and owners in the archive are ignored.

    Raises:
        UnsafeArchive: If a member has an absolute path or one with "..", or is a link or a device.
        ValueError: If the file is no archive, or is damaged or encrypted.
        OSError: If it does not fit on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f".{archive.name}.unpacking"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, building)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, building)
        else:
            raise ValueError(f"{archive} is neither a zip nor a tar archive; delete it and download it again")
        _move_into(building, folder)
    except _DAMAGED as error:
        raise ValueError(f"{archive} is damaged ({error}); delete it and download it again") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unpack_zip(archive: Path, building: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        _check_space(archive, building, sum(member.file_size for member in members))
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeArchive(f"{archive} has {member.filename!r}, a link or a device; nothing was unpacked")
            if member.flag_bits & 1:
                raise ValueError(f"{archive} is encrypted; unpack it by hand with the password that you were given")
            target = _inside(archive, building, member.filename)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                with opened.open(member) as source:
                    _write(source, target)


def _unpack_tar(archive: Path, building: Path) -> None:
    with tarfile.open(archive) as opened:
        for member in _members(opened):
            if not (member.isreg() or member.isdir()):
                raise UnsafeArchive(f"{archive} has {member.name!r}, a link or a device; nothing was unpacked")
            target = _inside(archive, building, member.name)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                _check_space(archive, building, member.size)
                source = opened.extractfile(member)
                assert source is not None  # it is a regular file
                with source:
                    _write(source, target)


def _members(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One after another, so that a compressed archive is gone through once."""
    while (member := opened.next()) is not None:
        yield member
        opened.members = []  # type: ignore[attr-defined]  # else 120,000 of them pile up


def _inside(archive: Path, building: Path, name: str) -> Path:
    """Where a member goes, if that is inside `building`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\0" in name:
        raise UnsafeArchive(f"{archive} has {name!r}, which lies outside the folder to unpack to; nothing was unpacked")
    return building.joinpath(*path.parts)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _check_space(archive: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"no room to unpack {archive}: it needs {needed:,} bytes and {free:,} are free; free some space")


def _move_into(source: Path, target: Path) -> None:
    """Moves what is in `source` into `target`; whole folders at once where that replaces nothing."""
    for item in source.iterdir():
        place = target / item.name
        if item.is_dir() and place.is_dir() and not place.is_symlink():
            _move_into(item, place)
        else:
            if place.is_symlink() or (item.is_dir() and place.exists()):
                place.unlink()
            elif place.is_dir():
                shutil.rmtree(place)
            os.replace(item, place)
