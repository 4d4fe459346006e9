"""Ctrl-C and SIGTERM: what is being written is whole, and it is told as what it is."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from toy import PointData

from harness import checkpoint, files, interrupts
from harness.record.command_line import interrupted
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


def test_a_signal_that_comes_before_all_are_held_leaves_the_answers_as_they_were(monkeypatch):
    """Else a second Ctrl-C would be heard by nobody, while the first is answered."""
    held = signal.signal

    def sets(number, handler):
        if number == signal.SIGTERM:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return held(number, handler)

    before = held(signal.SIGTERM, signal.default_int_handler)
    try:
        monkeypatch.setattr(signal, "signal", sets)
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        held(signal.SIGTERM, before)


def test_a_signal_that_somebody_answers_is_held_and_one_that_nobody_does_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with interrupts.deferred():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_while_the_process_ends_is_not_raised_where_nobody_answers():
    """As in the `__del__` of a loader that waits for its processes, which would be told with a trace."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    try:
        interrupts.hear_no_more()
        for number in interrupts.SIGNALS:
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

    monkeypatch.setattr("harness.train.tracking.TensorBoard", start)
    with pytest.raises(KeyboardInterrupt):
        Tracker(tmp_path, {}, wandb="disabled", tensorboard=True)


@pytest.fixture
def answered(monkeypatch):
    """This process answers as a run does."""
    before = {number: signal.getsignal(number) for number in (*interrupts.SIGNALS, signal.SIGCHLD)}
    monkeypatch.setattr(interrupts, "_heard", [])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interrupts.answer()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Last:
    """Is told to end where Python can raise to nobody."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_that_python_raised_to_nobody_comes_with_the_next_batch(answered, capfd):
    batches = iter(PointData().train)
    next(batches)
    last = Last()
    del last
    with pytest.raises(interrupts.TerminatedError):
        next(batches)
    assert interrupts.exit_status(KeyboardInterrupt()) == 143  # whatever a library made of it
    assert interrupts.is_interrupt(RuntimeError("a loading process was ended"))
    assert capfd.readouterr() == ("", "")


def test_the_same_wish_is_heard_once_in_a_while(answered, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        pressed()
    pressed(5)
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        pressed()


def test_loading_processes_do_not_hear_the_terminal(answered):
    """They end with the run, which is told too; one that ended first would be taken for a fault of its own."""
    loader = PointData(workers=1).train
    batches = iter(loader)
    first = next(batches)
    for process in loader._iterator._workers:
        os.kill(process.pid, signal.SIGINT)
    time.sleep(0.1)
    assert len([first, *batches]) == 4
    assert all(process.is_alive() for process in loader._iterator._workers)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_while_a_command_starts_it_leaves_at_once(number):
    program = f"import os; from harness import interrupts as i; i.leave_at_once(); os.kill(os.getpid(), {int(number)})"
    settings = {"capture_output": True, "text": True, "cwd": Path(__file__).parents[2]}
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    answer = subprocess.run([sys.executable, "-c", program], preexec_fn=default, **settings)
    assert (answer.returncode, answer.stdout, answer.stderr) == (128 + number, "\ninterrupted\n", "")


def test_a_run_that_is_finished_is_not_to_be_gone_on_with(tmp_path):
    (tmp_path / "DONE").touch()
    assert interrupted(folder=tmp_path) == "\ninterrupted; the run is finished"
