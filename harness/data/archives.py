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
from pathlib import Path, PureWindowsPath

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
    """
    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f".{archive.name}.unpacking"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for entry in packed.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)
                    _check_member(archive, entry.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
                    if entry.flag_bits & 1:
                        raise ValueError(
                            f"{archive} is encrypted; unpack it by hand with the password that you were given"
                        )
                packed.extractall(building)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                for member in opened:  # one after another, so that a compressed archive is gone through once
                    _check_member(archive, member.name, plain=member.isreg() or member.isdir())
                    member.mode = 0o644
                    opened.extract(member, building, filter="data")
        else:
            raise ValueError(f"{archive} is neither a zip nor a tar archive; delete it and download it again")
        _move_into(building, folder)
    except _DAMAGED as error:
        raise ValueError(f"{archive} is damaged ({error}); delete it and download it again") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check_member(archive: Path, name: str, plain: bool) -> None:
    """Refuses what the library would refuse, and what it would put inside the folder under another name."""
    if not plain:
        raise UnsafeArchive(f"{archive} has {name!r}, a link or a device; nothing was unpacked")
    path = PureWindowsPath(name)  # which knows both slashes
    if path.root or path.drive or ".." in path.parts or "\0" in name:
        raise UnsafeArchive(f"{archive} has {name!r}, which lies outside the folder to unpack to; nothing was unpacked")


def _move_into(source: Path, target: Path) -> None:
    """Moves what is in `source` into `target`; whole folders at once where that replaces nothing."""
    for item in source.iterdir():
        place = target / item.name
        if place.is_symlink() or not place.is_dir():
            place.unlink(missing_ok=True)
        elif item.is_dir():
            _move_into(item, place)
            continue
        else:
            shutil.rmtree(place)
        os.replace(item, place)
