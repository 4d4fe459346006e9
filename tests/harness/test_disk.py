"""What the system says of a full or read-only disk is told as a sentence, whoever met it."""

import errno
import os

import pytest

from harness import disk
from harness.files import WriteError
from harness.record.faults import sentence, told
from harness.train.tracking import Tracker


def said(number, path=None):
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "choose a folder that may be"),
        (errno.EACCES, "choose a folder that may be"),
        (errno.ENOTDIR, "a file is where a folder is wanted"),
        (errno.EIO, "the disk fails or is gone"),
    ],
)
def test_what_a_disk_does_is_told_with_the_file_and_the_way_out(number, way):
    error = said(number, "/data/a.jpg")
    assert sentence(error) == told(error)  # no trace of a library
    assert told(error).startswith(f"/data/a.jpg: {os.strerror(number)}; ")
    assert way in told(error)


def test_what_is_no_fault_of_a_disk_is_left_alone():
    assert disk.sentence(said(errno.ENOENT, "/data/a.jpg")) is None
    assert disk.sentence(said(errno.ENOSPC)) is None  # of which nobody knows the file
    assert disk.sentence(ValueError("no")) is None


def test_a_write_that_names_no_file_is_given_one(tmp_path):
    with pytest.raises(OSError, match="No space left") as full, disk.named(tmp_path / "copy"):
        raise said(errno.ENOSPC)
    assert sentence(full.value).startswith(f"{tmp_path / 'copy'}: No space left on device; free some space")
    with pytest.raises(PermissionError) as other, disk.named(tmp_path / "copy"):
        raise said(errno.EACCES, "own")
    assert other.value.filename == "own"


def test_the_reason_is_the_systems_and_not_what_a_library_made_of_it(tmp_path):
    """torch's writer says "unexpected pos 48512 vs 48408" of a full disk."""
    try:
        try:
            raise said(errno.ENOSPC)
        except OSError:
            raise RuntimeError("unexpected pos 48512 vs 48408") from None
    except RuntimeError as error:
        text = disk.unwritten(tmp_path / "last.pt", error)
    assert text.startswith(f"could not write {tmp_path / 'last.pt'} (No space left on device); free some space")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_under_the_record_is_told_with_its_name(tmp_path):
    tracker = Tracker(tmp_path, {}, wandb="disabled")
    tracker.file.symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"could not write .*metrics.jsonl \(No space left on device\)"):
        tracker.log({"loss": 1.0}, 1)


def test_a_run_whose_folder_is_gone_ends_and_does_not_begin_it_anew(tmp_path):
    tracker = Tracker(tmp_path / "run", {}, wandb="disabled")
    (tmp_path / "run").rmdir()
    with pytest.raises(WriteError, match=r"could not write .*metrics.jsonl \(No such file.*\); its folder is gone"):
        tracker.log({"loss": 1.0}, 1)
    assert not (tmp_path / "run").exists()
