"""Ctrl-C during a write: the file is whole, and it is told as Ctrl-C and not as a full disk."""

import errno
import os
import signal
import time
from collections import OrderedDict

import pytest
import torch

from harness import checkpoint, files
from harness.train.tracking import Tracker


@pytest.fixture(autouse=True)
def ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    yield
    signal.signal(signal.SIGINT, before)


def pressed(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


class Interrupted:
    """A value whose saving is interrupted: torch's pickler asks for its state in the midst of the file."""

    def __init__(self, times):
        self.times = times

    def __reduce__(self):
        pressed(self.times)
        return OrderedDict, ()


@pytest.mark.parametrize("times", [1, 2])
def test_a_checkpoint_that_is_being_saved_is_finished_first(tmp_path, times):
    path = tmp_path / "last.pt"
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"weight": torch.ones(1000), "odd": Interrupted(times)})
    assert torch.equal(checkpoint.load(path)["weight"], torch.ones(1000))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_interrupt_that_torch_makes_a_runtime_error_is_one(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    class Slow:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise KeyboardInterrupt

        def flush(self):
            pass

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, lambda file: torch.save({"weight": torch.ones(1000)}, Slow(file)))
    assert checkpoint.load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_is_still_one(tmp_path):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(files.WriteError, match="free some space"):
        files.write_whole(tmp_path / "last.pt", full)


def test_reports_are_written_whole(tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (pressed(), fsync(file)))
    with pytest.raises(KeyboardInterrupt):
        files.write_json(tmp_path / "report.json", {"a": 1})
    assert files.read_json(tmp_path / "report.json") == {"a": 1}


def test_a_signal_that_somebody_answers_is_held_and_one_that_nobody_does_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with files.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with files.deferred():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_while_the_process_ends_is_not_raised_where_nobody_answers():
    """As in the `__del__` of a loader that waits for its processes, which would be told with a trace."""
    before = {number: signal.getsignal(number) for number in files.SIGNALS}
    try:
        files.hear_no_more()
        for number in files.SIGNALS:
            os.kill(os.getpid(), number)
        time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_interrupt_in_a_mirror_ends_the_run_and_not_the_mirror(tmp_path, monkeypatch):
    def start(*given):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("the service did not start") from error

    monkeypatch.setattr("harness.train.tracking._WandB", start)
    with pytest.raises(KeyboardInterrupt):
        Tracker(tmp_path, {}, wandb="offline")
