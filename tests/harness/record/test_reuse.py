import errno
import fcntl
import logging
import multiprocessing
import os
import threading
import time

import pytest
from omegaconf import OmegaConf

from harness.record import reuse, runs

REPORT = {"config": {}, "data": {}, "results": {}}
FORK = multiprocessing.get_context("fork")  # so that no process has to import torch anew


def _hold(path, ready):
    with reuse.held(path):
        ready.set()
        time.sleep(600)


@pytest.fixture
def other_process():
    """Starts another process that holds a lock."""
    started = []

    def hold(path):
        ready = FORK.Event()
        process = FORK.Process(target=_hold, args=(path, ready))
        process.start()
        started.append(process)
        assert ready.wait(60)
        return process

    yield hold
    for process in started:
        process.kill()
        process.join()


def config(outputs, **changes):
    values = {
        "seed": 0, "threads": None, "reuse": True, "resume": None, "objective": None,
        "trainer": {"epochs": 3, "device": "auto"}, "paths": {"outputs": str(outputs)},
    }  # fmt: skip
    return OmegaConf.create(values | changes)


def new_folder(outputs, name="new"):
    """As Hydra leaves it when the job begins."""
    folder = outputs / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0")
    return folder


class Data:
    """Data that tell which they are."""

    def __init__(self, fingerprint="a"):
        self.fingerprint = fingerprint

    def describe(self):
        return {"fingerprint": self.fingerprint}


def once(config, folder, train, data="a"):
    return reuse.once(config, folder, lambda config: Data(data), train)


def made(outputs, name, config, finished, data="a"):
    folder = outputs / name
    runs.begin(folder, OmegaConf.to_container(config), {"data": Data(data).describe()})
    if finished:
        runs.finish(folder, REPORT | {"made": name})
    else:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.pt").touch()
    return folder


def no_training(config, folder, data):
    raise AssertionError(f"trained in {folder}")


def trained(config, folder, data):
    """What a training leaves, without the training."""
    if not config.resume:
        runs.begin(folder, OmegaConf.to_container(config), {"data": data.describe()} if data else None)
    runs.finish(folder, REPORT | {"made": folder.name})
    return REPORT | {"made": folder.name}


def test_a_run_is_made_once(tmp_path):
    first = once(config(tmp_path), new_folder(tmp_path, "a"), trained)
    again = once(config(tmp_path, threads=1), new_folder(tmp_path, "b"), no_training)
    assert first == again == REPORT | {"made": "a"}
    assert not (tmp_path / "b").exists()  # nothing came of it
    assert once(config(tmp_path, seed=1), new_folder(tmp_path, "c"), trained) == REPORT | {"made": "c"}
    assert not list((tmp_path / reuse.LOCKS).iterdir())


def test_without_reuse_a_run_is_made_again(tmp_path):
    made(tmp_path, "a", config(tmp_path), finished=True)
    assert once(config(tmp_path, reuse=False), new_folder(tmp_path, "b"), trained) == REPORT | {"made": "b"}


def test_an_interrupted_run_goes_on_in_its_folder_with_what_it_began_with(tmp_path):
    begun = config(tmp_path, reuse=False, threads=2, trainer={"epochs": 3, "device": "cpu"})
    folder = made(tmp_path, "a", begun, finished=False)
    seen = []

    def train(config, folder, data):
        runs.check_config(folder, OmegaConf.to_container(config))
        seen.append((config.resume, config.threads, config.trainer.device, folder))
        return trained(config, folder, data)

    once(config(tmp_path, threads=1), new_folder(tmp_path, "b"), train)
    assert seen == [(str(folder), 2, "cpu", folder)]
    assert not (tmp_path / "b").exists()
    assert not (folder / reuse.LOCK).exists()


def test_a_run_on_other_data_is_not_taken_for_it_and_one_on_the_same_elsewhere_is(tmp_path):
    """Config and seed are equal; data.root is not asked, the fingerprint of the data is."""
    here = {"data": {"root": "/here"}}
    once(config(tmp_path, **here), new_folder(tmp_path, "a"), trained)
    made(tmp_path, "stopped", config(tmp_path, **here), finished=False)
    edited = once(config(tmp_path, **here), new_folder(tmp_path, "b"), trained, data="b")
    assert edited == REPORT | {"made": "b"}
    moved = once(config(tmp_path, data={"root": "/there"}), new_folder(tmp_path, "c"), no_training)
    assert moved == REPORT | {"made": "a"}
    assert once(config(tmp_path, **here), new_folder(tmp_path, "d"), no_training, data="b") == edited


def test_a_run_of_an_earlier_version_is_known_by_its_report(tmp_path):
    """It began without telling which data it was on."""
    runs.begin(tmp_path / "a", OmegaConf.to_container(config(tmp_path)))
    runs.finish(tmp_path / "a", REPORT | {"data": {"fingerprint": "a"}})
    assert once(config(tmp_path), new_folder(tmp_path, "b"), no_training)["data"] == {"fingerprint": "a"}
    assert once(config(tmp_path), new_folder(tmp_path, "c"), trained, data="b") == REPORT | {"made": "c"}


def test_data_that_tell_no_fingerprint_could_be_any(tmp_path, caplog):
    made(tmp_path, "a", config(tmp_path), finished=True, data=None)
    assert once(config(tmp_path), new_folder(tmp_path, "b"), trained, data=None) == REPORT | {"made": "b"}
    assert "these data tell no fingerprint" in caplog.text


def test_two_runs_of_one_config_on_different_data_may_be_made_at_once(tmp_path, other_process):
    other_process(reuse.lock_of(tmp_path, OmegaConf.to_container(config(tmp_path)), "b"))
    assert once(config(tmp_path), new_folder(tmp_path, "a"), trained) == REPORT | {"made": "a"}


def test_a_finished_run_is_preferred_to_an_interrupted_one(tmp_path):
    made(tmp_path, "a", config(tmp_path), finished=True)
    made(tmp_path, "b", config(tmp_path), finished=False)
    assert once(config(tmp_path), new_folder(tmp_path), no_training) == REPORT | {"made": "a"}


def test_what_is_logged_of_a_run_that_goes_on_is_logged_in_its_folder(tmp_path):
    folder, new = made(tmp_path, "a", config(tmp_path), finished=False), new_folder(tmp_path)
    (folder / "train.log").write_text("before\n")
    handler, root = logging.FileHandler(new / "train.log"), logging.getLogger()
    handler.setFormatter(logging.Formatter("said: %(message)s"))
    before = list(root.handlers)
    root.addHandler(handler)
    try:
        once(config(tmp_path), new, lambda *given: logging.getLogger("x").warning("now") or trained(*given))
    finally:
        for added in [h for h in root.handlers if h not in before]:
            added.close()
            root.removeHandler(added)
    assert (folder / "train.log").read_text() == "before\nsaid: now\n"
    assert not new.exists()


def test_nothing_that_a_run_left_is_removed(tmp_path):
    """A folder of a new run in which there is something else stays, and so does one that holds a run."""
    made(tmp_path, "a", config(tmp_path), finished=True)
    new = new_folder(tmp_path)
    (new / "notes.txt").touch()
    once(config(tmp_path), new, no_training)
    assert (new / "notes.txt").exists()
    once(config(tmp_path), tmp_path / "a", no_training)
    assert (tmp_path / "a" / "DONE").exists()


def test_a_run_whose_report_is_truncated_is_made_again(tmp_path, caplog):
    folder = made(tmp_path, "a", config(tmp_path), finished=True)
    (folder / "report.json").write_text('{"made": ')
    with pytest.raises(AssertionError, match="trained in"):
        once(config(tmp_path), new_folder(tmp_path), no_training)
    assert "report.json is truncated" in caplog.text


def test_a_run_that_another_process_makes_is_left_to_it(tmp_path, other_process):
    process = other_process(reuse.lock_of(tmp_path, OmegaConf.to_container(config(tmp_path)), "a"))
    new = new_folder(tmp_path)
    with pytest.raises(reuse.InUseError, match=f"process {process.pid} on .* is making this run"):
        once(config(tmp_path), new, no_training)
    assert not new.exists()
    assert once(config(tmp_path, seed=1), new_folder(tmp_path), trained)  # another run is free


@pytest.mark.parametrize("resume", [True, False])
def test_no_folder_has_two_writers_however_the_second_comes_to_it(tmp_path, other_process, resume):
    """The first was started without reuse, so that only its folder is locked; the second names or finds the folder."""
    folder = made(tmp_path, "a", config(tmp_path), finished=False)
    other_process(folder / reuse.LOCK)
    second = config(tmp_path, resume=str(folder)) if resume else config(tmp_path)
    with pytest.raises(reuse.InUseError, match="is making this run"):
        once(second, folder if resume else new_folder(tmp_path), no_training)
    assert (folder / "checkpoints" / "last.pt").exists()


def test_two_commands_that_were_given_one_folder_are_not_mixed(tmp_path, other_process):
    """The second is refused while the first runs, by the lock, and afterwards because a run is there."""
    folder, given = tmp_path / "a", config(tmp_path, reuse=False)

    def train(config, folder, data):
        runs.check_unused(folder)
        return trained(config, folder, data)

    process = other_process(folder / reuse.LOCK)
    with pytest.raises(reuse.InUseError, match="is making this run"):
        once(given, folder, train)
    process.kill()
    process.join()
    assert once(given, folder, train) == REPORT | {"made": "a"}
    with pytest.raises(FileExistsError, match="holds a run already"):
        once(given, folder, train)


def test_a_killed_process_leaves_no_lock(tmp_path, other_process):
    path = tmp_path / "lock"
    process = other_process(path)
    process.kill()
    process.join()
    assert path.exists()
    with reuse.held(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()


def test_a_search_waits_for_the_result_of_another_process(tmp_path, other_process, monkeypatch):
    monkeypatch.setattr(reuse, "POLL_SECONDS", 0.05)
    search = config(tmp_path, objective="validation/recall@1")
    process = other_process(reuse.lock_of(tmp_path, OmegaConf.to_container(search), "a"))

    def finish():
        time.sleep(0.5)
        made(tmp_path, "a", search, finished=True)
        process.kill()

    thread = threading.Thread(target=finish)
    thread.start()
    assert once(search, new_folder(tmp_path), no_training) == REPORT | {"made": "a"}
    thread.join()


def _count(folder, times):
    while times:
        try:
            with reuse.held(folder / "lock"):
                count = int((folder / "count").read_text())
                (folder / "count").write_text(str(count + 1))
                times -= 1
        except reuse.InUseError:
            time.sleep(0.001)


def test_no_two_processes_hold_a_lock_at_once(tmp_path):
    """A counter that is read and then written loses nothing."""
    (tmp_path / "count").write_text("0")
    processes = [FORK.Process(target=_count, args=(tmp_path, 50)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == str(4 * 50)


def test_a_file_system_without_locks_costs_a_warning_and_no_run(tmp_path, monkeypatch, caplog):
    def unsupported(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    once(config(tmp_path), new_folder(tmp_path), trained)
    assert "cannot be locked" in caplog.text
    assert runs.read_report(tmp_path / "new") == REPORT | {"made": "new"}


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
@pytest.mark.parametrize("where", ["mkdir", "flock"])
def test_a_place_without_locks_costs_a_warning(tmp_path, monkeypatch, caplog, number, where):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    if where == "flock" and number == errno.EACCES:
        pytest.skip("what some file systems answer where the lock is held")
    monkeypatch.setattr(*((reuse.Path, "mkdir", refuse) if where == "mkdir" else (fcntl, "flock", refuse)))
    with reuse.held(tmp_path / "below" / ".running"):
        pass
    monkeypatch.undo()
    assert caplog.text.count("do not start the same run twice at once") == 1


def test_a_lock_is_held_though_the_disk_is_too_full_to_name_its_holder(tmp_path, monkeypatch, other_process):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reuse.Path, "write_text", full)
    with (
        reuse.held(tmp_path / ".running"),
        pytest.raises(reuse.InUseError, match="another process is making this run"),
        reuse.held(tmp_path / ".running"),
    ):
        pass
    assert not (tmp_path / ".running").exists()
