import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from mutants import mutants

from harness.data import archives
from harness.data.archives import UnsafeArchive, unpack


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return path


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def everything(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_archive_is_unpacked(tmp_path, mode):
    members = {"birds/1.jpg": b"one", "birds/deep/2.jpg": b"two", "attributes.txt": b"stray"}
    unpack(make_tar(tmp_path / "a.tar", members, mode), tmp_path / "out")
    assert everything(tmp_path / "out") == members


def test_a_zip_archive_is_unpacked(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", {"x/": b"", "x/1.JPG": b"one"}), tmp_path / "out")
    assert everything(tmp_path / "out") == {"x/1.JPG": b"one"}


def test_folders_of_tar_archives_are_made_and_permissions_ignored(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        folder = tarfile.TarInfo("closed")
        folder.type, folder.mode = tarfile.DIRTYPE, 0
        archive.addfile(folder)
        program = tarfile.TarInfo("closed/program")
        program.mode, program.size = 0o4777, 2
        archive.addfile(program, io.BytesIO(b"hi"))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert everything(tmp_path / "out") == {"closed/program": b"hi"}
    assert not (tmp_path / "out/closed/program").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


def test_two_archives_may_share_a_folder_and_a_second_time_replaces(tmp_path):
    unpack(make_tar(tmp_path / "a.tar", {"kit/2007/1.jpg": b"old", "kit/a": b"a"}), tmp_path / "out")
    unpack(make_tar(tmp_path / "b.tar", {"kit/2007/1.jpg": b"new", "kit/2012/2.jpg": b"two"}), tmp_path / "out")
    expected = {"kit/2007/1.jpg": b"new", "kit/a": b"a", "kit/2012/2.jpg": b"two"}
    assert everything(tmp_path / "out") == expected


def test_a_file_gives_way_to_a_folder_and_a_folder_to_a_file(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", {"one": b"file", "two/inner": b"x"}), tmp_path / "out")
    unpack(make_zip(tmp_path / "b.zip", {"one/inner": b"y", "two": b"file"}), tmp_path / "out")
    assert everything(tmp_path / "out") == {"one/inner": b"y", "two": b"file"}


BAD_NAMES = ["../outside", "a/../../outside", "/tmp/outside", "..\\outside", "C:\\outside", "\\outside"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_member_that_points_outside_is_refused_and_nothing_is_left(tmp_path, make, name):
    archive = make(tmp_path / "bad", {"harmless": b"1", name: b"2"})
    before = everything(tmp_path)
    with pytest.raises(UnsafeArchive, match="outside the folder"):
        unpack(archive, tmp_path / "out")
    assert everything(tmp_path) == before
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_archive_are_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "bad", {"harmless": b"1", "door": (kind, "/etc"), "door/passwd": b"2"})
    with pytest.raises(UnsafeArchive, match="'door', a link or a device"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_in_a_zip_archive_is_refused(tmp_path):
    link = zipfile.ZipInfo("door")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UnsafeArchive, match="'door', a link"):
        unpack(make_zip(tmp_path / "bad.zip", {link: "/etc"}), tmp_path / "out")


def test_nothing_is_written_through_a_link_that_was_there(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").symlink_to(tmp_path / "elsewhere")
    unpack(make_zip(tmp_path / "a.zip", {"x/1": b"one"}), tmp_path / "out")
    assert everything(tmp_path / "elsewhere") == {}
    assert (tmp_path / "out" / "x" / "1").read_bytes() == b"one"


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_truncated_archive_is_said_to_be_damaged_or_none(tmp_path, make):
    path = make(tmp_path / "cut", {"1": b"a" * 50_000, "2": bytes(range(256)) * 400})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"is damaged|neither a zip nor a tar archive"):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_flipped_byte_in_a_zip_archive_is_noticed(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"1": b"a" * 1000})
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is damaged"):
        unpack(path, tmp_path / "out")


def test_something_else_is_no_archive(tmp_path):
    (tmp_path / "page.tgz").write_text("<html>please log in</html>")
    with pytest.raises(ValueError, match="neither a zip nor a tar archive"):
        unpack(tmp_path / "page.tgz", tmp_path / "out")


def test_an_encrypted_archive_asks_for_its_password(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"1": b"secret"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the encryption flag in the central directory
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="encrypted; unpack it by hand"):
        unpack(path, tmp_path / "out")


# bombs, and whatever else can be done to the bytes


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "LEAST", 10_000)
    path, nothing = tmp_path / f"a.{kind}", {"1": b"\0" * 500_000, "2": b"\0" * 500_000}
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in nothing.items():
                archive.writestr(name, content)
    else:
        make_tar(path, nothing, f"w:{kind[4:]}")
    with pytest.raises(
        UnsafeArchive, match=rf"a.{kind} unpacks to more than [\d,]+ bytes, as a bomb does; nothing was"
    ):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    unpack(path, tmp_path / "out")
    assert everything(tmp_path / "out") == nothing


def test_a_tar_archive_that_says_a_terabyte_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("1")
        info.size = 2**40
        archive.fileobj.write(info.tobuf())
    with pytest.raises(UnsafeArchive, match=r"unpacks to more than 1,073,741,824 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_too_many_files_and_more_than_the_disk_has_room_for_are_refused(tmp_path, monkeypatch, make):
    path = make(tmp_path / "a", {"1": b"one", "2": b"two", "3": b""})
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MOST_MEMBERS", 2)
        with pytest.raises(UnsafeArchive, match="a has more than 2 files; nothing was unpacked"):
            unpack(path, tmp_path / "out")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: archives.shutil._ntuple_diskusage(9, 4, 5))
    with pytest.raises(UnsafeArchive, match="a unpacks to more than the 5 bytes that are free"):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_and_a_folder_of_one_name_are_no_archive_of_ours(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"x": b"file", "x/1": b"below it"})
    with pytest.raises(ValueError, match=r"a.tar is damaged"):
        unpack(path, tmp_path / "out")


def refusal(path, folder):
    try:
        return unpack(path, folder)
    except ValueError as error:
        return str(error)


def test_500_mutated_archives_are_unpacked_or_named_and_nothing_is_left_beside(tmp_path):
    chance, inside = np.random.default_rng(0), {"a/1.jpg": b"x" * 700, "a/ü" + "n" * 120: b"y" * 30, "b.txt": b"z"}
    sound = [make_tar(tmp_path / f"s{mode[1:]}", inside, mode).read_bytes() for mode in ("w", "w:gz", "w:xz", "w:bz2")]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "s", "w", method) as archive:
            for name, content in inside.items():
                archive.writestr(name, content)
        sound.append((tmp_path / "s").read_bytes())
    path, out, refused = tmp_path / "mutant.bin", tmp_path / "out", 0
    for content in mutants(sound, 500, chance):
        path.write_bytes(content)
        said = refusal(path, out)
        assert said is None or said.startswith(f"{path} ")
        refused += said is not None
        assert not list(out.glob(".*.unpacking"))
    assert 100 < refused < 500
    assert {item.name for item in tmp_path.iterdir()} == {"s", "s:gz", "s:xz", "s:bz2", "mutant.bin", "out"}
