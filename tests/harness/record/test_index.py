import json
import os

import pytest

from harness.record import runs
from harness.record.composition import composed
from harness.record.config import fingerprint
from harness.record.index import KEPT, Found, index

CONFIG = {"seed": 0, "trainer": {"epochs": 2}}
REPORT = {"config": {}, "data": {}, "results": {}}


def test_runs_are_found_by_their_fingerprint(tmp_path):
    one, other = (composed(["experiment=demo_rambo", f"seed={seed}"]) for seed in range(2))
    for name, config in {"a": one, "b": one, "c": other, "d/first_stage": one, "d/.hydra": one}.items():
        runs.begin(tmp_path / name, config)
    runs.finish(tmp_path / "a", REPORT)
    (tmp_path / "c" / "checkpoints").mkdir()
    (tmp_path / "c" / "checkpoints" / "last.pt").touch()
    assert index(tmp_path) == {
        fingerprint(one): Found(finished=[tmp_path / "a"]),  # b holds nothing to go on from
        fingerprint(other): Found(interrupted=[tmp_path / "c"]),
    }


def test_a_training_that_stopped_by_itself_is_found_as_such_until_it_finishes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.begin(tmp_path / "a", CONFIG)
    runs.stop(tmp_path / "a", f"the loss became nan; {tmp_path}/a/last.pt is sound")
    (found,) = index(tmp_path).values()
    assert found == Found(stopped=[tmp_path / "a"])
    assert runs.why_stopped(tmp_path / "a") == "the loss became nan; a/last.pt is sound"
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "checkpoints" / "last.pt").touch()
    (found,) = index(tmp_path).values()
    assert found == Found(stopped=[tmp_path / "a"], interrupted=[tmp_path / "a"])
    runs.finish(tmp_path / "a", REPORT)
    (found,) = index(tmp_path).values()
    assert found == Found(finished=[tmp_path / "a"])
    assert not (tmp_path / "a" / runs.STOPPED).exists()
    (tmp_path / "a" / runs.STOPPED).write_text("[]")
    with pytest.raises(ValueError, match=r"stopped.json gives no reason"):
        runs.why_stopped(tmp_path / "a")


@pytest.mark.parametrize("content", ["a: [1", "- 1\n- 2\n", "\x00", ""])
def test_a_folder_that_cannot_be_read_costs_itself_only(tmp_path, content, caplog):
    runs.begin(tmp_path / "good", CONFIG)
    runs.finish(tmp_path / "good", REPORT)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.yaml").write_text(content)
    runs.begin(tmp_path / "cut", CONFIG)
    runs.finish(tmp_path / "cut", REPORT)
    (tmp_path / "cut" / "report.json").write_text('{"config": ')
    assert [found.finished for found in index(tmp_path).values()] == [[tmp_path / "good"]]
    assert str(tmp_path / "bad" / "config.yaml") in caplog.text
    assert str(tmp_path / "cut" / "report.json") in caplog.text


def test_the_newest_run_is_the_last_wherever_it_lies(tmp_path):
    for name in ("zz/2026-01-01_12-00-00", "aa/2026-11-27_12-00-00"):
        runs.begin(tmp_path / name, CONFIG)
        runs.finish(tmp_path / name, REPORT)
    (found,) = index(tmp_path).values()
    assert [folder.parent.name for folder in found.finished] == ["zz", "aa"]


def run(folder, seed):
    runs.begin(folder, CONFIG | {"seed": seed})
    runs.finish(folder, REPORT)


def test_what_was_read_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    for seed in range(3):
        run(tmp_path / f"run{seed}", seed)
    first = index(tmp_path)
    read = []
    own = runs.read_config
    monkeypatch.setattr(runs, "read_config", lambda folder: read.append(folder.name) or own(folder))
    assert index(tmp_path) == first
    assert read == []
    run(tmp_path / "run1", 7)  # made anew
    run(tmp_path / "run3", 3)
    assert len(index(tmp_path)) == 4
    assert sorted(read) == ["run1", "run3"]
    (tmp_path / "run0" / "report.json").write_text("{")
    assert all(tmp_path / "run0" not in found.finished for found in index(tmp_path).values())
    assert sum(len(found.finished) for found in index(tmp_path).values()) == 3


def test_a_file_that_was_changed_in_place_is_read_anew_though_its_size_and_time_are_as_before(tmp_path):
    """As a clock that is set back, or a copy that keeps times, leaves it."""
    run(tmp_path / "run", 1)
    (before,) = index(tmp_path)
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text().partition("\n")[2]
    path.write_text(text)
    (same,) = index(tmp_path)
    status = path.stat()
    with path.open("r+") as file:
        file.write(text.replace("seed: 1", "seed: 3"))
    after = status
    while after.st_ctime_ns == status.st_ctime_ns:  # the system's clock of files goes by some milliseconds
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (status.st_size, status.st_mtime_ns, status.st_ino)
    assert before == same == fingerprint(CONFIG | {"seed": 1})
    assert list(index(tmp_path)) == [fingerprint(CONFIG | {"seed": 3})]


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", "of other rules", "of no runs", "of another kind"])
def test_a_damaged_or_foreign_index_is_not_believed(tmp_path, content):
    run(tmp_path / "run", 0)
    first = index(tmp_path)
    record = json.loads((tmp_path / KEPT).read_text())
    if content == "of other rules":
        content = json.dumps({"rules": "0", "runs": dict.fromkeys(record["runs"], "0" * 16)})
    if content == "of no runs":
        content = json.dumps(record | {"runs": 3})
    if content == "of another kind":
        content = json.dumps(record | {"runs": {"run": 1}})
    (tmp_path / KEPT).write_text(content)
    assert index(tmp_path) == first
    assert json.loads((tmp_path / KEPT).read_text()) == record


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_has_an_index_all_the_same(tmp_path):
    run(tmp_path / "run", 0)
    tmp_path.chmod(0o500)
    try:
        assert len(index(tmp_path)) == 1
    finally:
        tmp_path.chmod(0o700)


def test_no_folder_is_made_for_an_index_of_nothing(tmp_path):
    assert index(tmp_path / "outputs") == {}
    assert not (tmp_path / "outputs").exists()
