"""What we write is JSON; what older code wrote beside it stays readable."""

import errno
import json
import math
import os
import random
import threading
from pathlib import Path

import pytest
from mutants import damages

from harness import files


def strictly(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null_wherever_it_stands(tmp_path):
    value = {"a": math.nan, "b": [1.0, -math.inf, {"c": (math.inf, "nan")}], "d": 2}
    files.write_json(tmp_path / "a.json", value)
    expected = {"a": None, "b": [1.0, None, {"c": [None, "nan"]}], "d": 2}
    assert strictly((tmp_path / "a.json").read_text()) == expected
    assert files.read_json(tmp_path / "a.json") == expected


def test_files_of_before_are_read_as_if_they_said_null(tmp_path):
    (tmp_path / "old.json").write_text('{"a": NaN, "b": [Infinity, -Infinity, 1.5]}')
    assert files.read_json(tmp_path / "old.json") == {"a": None, "b": [None, None, 1.5]}


@pytest.mark.parametrize("text", ["", '{"a": ', "nan"])
def test_what_is_cut_off_is_none(text):
    with pytest.raises(json.JSONDecodeError):
        files.from_json(text)


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """The second begins and ends while the first is in the midst of its file."""
    path, begun, go_on = tmp_path / "a", threading.Event(), threading.Event()

    def slowly(file):
        file.write(b"first, ")
        begun.set()
        assert go_on.wait(60)
        file.write(b"whole")

    first = threading.Thread(target=files.write_whole, args=(path, slowly))
    first.start()
    assert begun.wait(60)
    files.write_text(path, "second")
    assert path.read_text() == "second"
    go_on.set()
    first.join()
    assert path.read_text() == "first, whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_two_writers_of_one_folder_do_not_meet(tmp_path):
    with files.whole_folder(tmp_path / "a", force=True) as one:
        (one / "first").touch()
        with files.whole_folder(tmp_path / "a", force=True) as other:
            (other / "second").touch()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "first", "second"]


def test_what_a_killed_writer_left_goes_once_it_is_surely_dead(tmp_path):
    """A day later by the next writer of that path alone; at once by whoever knows that nobody is writing."""
    left = {name: tmp_path / f"{name}.0123456789ab{files.UNFINISHED}" for name in ("a", "b", "ab")}
    for path in left.values():
        path.write_text("half")
    files.write_text(tmp_path / "a", "whole")
    assert all(path.exists() for path in left.values())
    for path in left.values():
        os.utime(path, (0, 0))
    files.write_text(tmp_path / "a", "whole")
    assert [name for name, path in left.items() if path.exists()] == ["b", "ab"]
    for name in ("below", "other_run"):
        (tmp_path / name / f"c{files.UNFINISHED}").mkdir(parents=True)
    files.clear_unfinished(tmp_path, tmp_path / "below", tmp_path / "a", tmp_path / "not_there")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "below", "c.writing", "other_run"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells files by /proc")
def test_names_are_on_the_disk_after_the_files_that_they_name(tmp_path, monkeypatch):
    """The order of calls that a power failure sees: the file, its new name, the folder that holds the name."""
    calls, fsync, rename = [], os.fsync, os.replace

    def named(number):
        return Path(f"/proc/self/fd/{number}").resolve()

    monkeypatch.setattr(os, "fsync", lambda number: (calls.append(("sync", named(number))), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("rename", Path(b))), rename(a, b)))
    files.write_text(tmp_path / "a", "whole")
    assert [kind for kind, _ in calls] == ["sync", "rename", "sync"]
    assert calls[0][1].name.startswith("a.")
    assert [path for _, path in calls[1:]] == [tmp_path / "a", tmp_path]


def test_a_damaged_record_is_refused_and_an_old_one_read(tmp_path):
    """Any bit turned, and any end cut off."""
    path = tmp_path / "report.json"
    record = {"results": {"recall@1": 0.612, "loss": math.nan, "epoch": 2}, "code": {"é": [1, True, None, 1e-05]}}
    expected = {"results": {"recall@1": 0.612, "loss": None, "epoch": 2}, "code": {"é": [1, True, None, 1e-05]}}
    files.write_record(path, record)
    whole, refused = path.read_bytes(), []
    assert files.read_json(path) == expected
    assert list(strictly(path.read_text())) == ["results", "code", "sha256"]
    for damaged in damages(whole, 200, random.Random(0)):
        path.write_bytes(damaged)
        try:
            found = files.read_json(path)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert {key: found[key] for key in expected} == expected  # space, or the name of the sum, was turned
    assert len(refused) > 160
    assert all("report.json" in said for said in refused)
    files.write_json(path, record)  # as earlier versions did
    assert files.read_json(path) == expected
    path.write_text('{"sha256": "0", "loss": 0.5}')
    with pytest.raises(ValueError, match=r'report.json is damaged: .*if you changed it yourself, remove "sha256"'):
        files.read_json(path)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 8")])
def test_what_fails_while_a_file_is_written_is_told_with_its_name(tmp_path, error):
    path = tmp_path / "a.onnx"
    with pytest.raises(files.WriteError, match=f"could not write {path} "), files.writing(path):
        raise error


def test_a_sentence_that_names_the_file_is_left_alone(tmp_path):
    with pytest.raises(files.WriteError, match=r"^the inner one$"), files.writing(tmp_path / "a"):
        raise files.WriteError("the inner one")
