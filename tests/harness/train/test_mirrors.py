"""W&B's client as a run uses it, pretended: it fails and hangs as it is told. The real one: tests/faults."""

import json
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from killing import lines

from harness.train import mirrors
from harness.train.tracking import Tracker
from harness.train.wandb_client import FINISH_SECONDS, INIT_SECONDS, wandb_seconds

SOON = 20  # seconds: enough on a busy machine, and less than W&B is waited for where no test says otherwise


class Settings:
    """Of a version that knows no `finish_timeout_raises`; as W&B's own it refuses what it does not know."""

    __slots__ = ("console", "finish_timeout", "init_timeout", "silent")

    def __init__(self, **given):
        self.init_timeout, self.finish_timeout = 90.0, 0.0
        for name, value in given.items():
            setattr(self, name, value)


class Pretended(types.SimpleNamespace):
    """The module wandb, as far as it is used. What `fails` names raises, what `hangs` names waits for `released`."""

    def __init__(self, place):
        super().__init__(place=place, fails={}, hangs=set(), released=threading.Event(), run=None)
        self.begun, self.logged, self.finished, self.ended = [], [], [], 0

    def meet(self, what):
        if what in self.hangs:
            self.released.wait()
        if what in self.fails:
            raise self.fails[what]

    Settings = Settings

    def init(self, mode, settings, **given):
        self.begun.append((mode, settings.init_timeout, settings.finish_timeout))
        self.meet(f"{mode} init")
        self.run = self.run or types.SimpleNamespace(log=self.log, finish=self.finish, dir=f"{self.place}/{mode}/files")
        return types.SimpleNamespace(**vars(self.run) | {"dir": f"{self.place}/{mode}/files"})

    def log(self, numbers, step):
        self.meet("log")
        self.logged.append((numbers, step))

    def finish(self, exit_code):
        self.run = None
        self.finished.append(exit_code)
        self.meet("finish")

    def teardown(self):
        self.ended += 1
        for name in ("log", "finish"):
            self.fails.pop(name, None)
        self.meet("teardown")


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    pretended = Pretended(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", pretended)
    yield pretended
    pretended.released.set()


def steps(folder):
    return [line["step"] for line in lines(folder)]


def test_a_run_is_shown_in_the_order_of_its_numbers_and_with_its_exit_code(tmp_path, wandb, caplog):
    for arguments in ({}, {"exit_code": 1}):
        tracker = Tracker(tmp_path, {})
        numbers = {"loss": 1.0}
        tracker.log(numbers, 1)
        numbers["loss"] = 2.0  # somebody goes on with the dictionary
        tracker.log(numbers, 2)
        tracker.close(**arguments)
    assert wandb.begun == [("online", INIT_SECONDS, FINISH_SECONDS)] * 2
    assert wandb.logged == [({"loss": 1.0}, 1), ({"loss": 2.0}, 2)] * 2
    assert (wandb.finished, wandb.ended, caplog.text) == ([0, 1], 2, "")


@pytest.mark.parametrize("error", [ImportError, SystemExit, AttributeError])
def test_a_client_that_cannot_be_used_costs_a_warning_and_nothing_else(error, tmp_path, wandb, caplog):
    wandb.fails = {"online init": error("broken"), "offline init": error("broken")}
    if error is ImportError:
        sys.modules["wandb"] = None  # importing it now fails
    tracker = Tracker(tmp_path, {})
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert "no W&B for this run" in caplog.text
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize(
    ("said", "wrong_key"),
    [("returned error 401: {}", True), ("API key must have 40 characters", True), ("connection refused", False)],
)
def test_a_server_that_does_not_take_a_run_leaves_it_offline(said, wrong_key, tmp_path, wandb, caplog):
    wandb.fails = {"online init": ValueError(said)}
    tracker = Tracker(tmp_path, {})
    assert f"W&B cannot be used (ValueError: {said}): the run is recorded offline" in caplog.text
    assert ("look at WANDB_API_KEY, or run `wandb login" in caplog.text) == wrong_key
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert [mode for mode, *_ in wandb.begun] == ["online", "offline"]
    assert wandb.logged == [({"loss": 1.0}, 1)]
    assert steps(tmp_path) == [1]
    assert f"to send it: wandb sync --include-online {tmp_path}/offline" in caplog.text


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_a_run_is_recorded_anew_where_the_service_is_gone(fails, tmp_path, wandb, caplog):
    tracker = Tracker(tmp_path, {})
    tracker.log({"loss": 1.0}, 1)
    until = time.monotonic() + SOON
    while not wandb.logged and time.monotonic() < until:  # in another thread
        time.sleep(0.01)
    wandb.fails = {fails: ConnectionResetError("Connection lost"), "teardown": SystemExit(-9)}
    tracker.log({"loss": 1.0}, 2)
    tracker.log({"loss": float("nan"), "epoch": 1}, 3)
    tracker.close()
    assert wandb.logged[-3:] == [({"loss": 1.0}, 1), ({"loss": 1.0}, 2), ({"epoch": 1}, 3)]
    assert f"wandb sync --include-online {tmp_path}/offline" in caplog.text
    assert [mode for mode, *_ in wandb.begun] == ["online", "offline"]
    assert wandb.finished == [0, 0]
    assert steps(tmp_path) == [1, 2, 3]
    assert wandb.ended == 2


def test_a_picture_that_cannot_be_shown_costs_itself_alone(tmp_path, wandb, caplog):
    tracker = Tracker(tmp_path, {})
    tracker.image("nothing", tmp_path / "none.png", 1)
    tracker.log({"loss": 1.0}, 2)
    tracker.close()
    assert "the picture nothing is not in W&B" in caplog.text
    assert (wandb.logged, wandb.finished) == ([({"loss": 1.0}, 2)], [0])


def test_what_was_not_sent_in_time_is_named(tmp_path, wandb, caplog):
    tracker = Tracker(tmp_path, {})
    wandb.fails = {"finish": TimeoutError("Timed out finishing run.")}
    tracker.close()
    assert "W&B did not finish (TimeoutError" in caplog.text
    assert f"wandb sync --include-online {tmp_path}/online" in caplog.text


@pytest.mark.parametrize(
    ("line", "unsent"),
    [
        ('{"time":"1","level":"ERROR+4","msg":"filestream: fatal error: 401"}', True),
        ('{"time":"1","level":"ERROR","msg":"runfiles: CreateRunFiles returned error"}', True),
        ('{"time":"1","level":"ERROR","msg":"api: HTTP error","status":500}', False),  # and tried again
        ('{"time":"1","level":"INFO","msg":"done"}', False),
    ],
)
def test_what_a_server_refused_is_named(line, unsent, tmp_path, wandb, caplog):
    (tmp_path / "online" / "logs").mkdir(parents=True)
    (tmp_path / "online" / "logs" / "debug-internal.log").write_text(f"{line}\n")
    Tracker(tmp_path, {}).close()
    assert ("wandb sync" in caplog.text) == unsent


@pytest.mark.parametrize("hanging", ["online init", "log", "finish", "teardown"])
def test_a_client_that_hangs_costs_a_bounded_time(hanging, tmp_path, wandb, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "0.2")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "0.5")
    monkeypatch.setattr(mirrors, "GRACE_SECONDS", 0.0)
    waits = hanging in ("online init", "log")
    monkeypatch.setattr(mirrors, "WAITING", 50 if waits else 100)
    wandb.hangs = {hanging}
    started = time.perf_counter()
    tracker = Tracker(tmp_path, {})
    for step in range(100):
        tracker.log({"loss": 1.0}, step)
    tracker.close()
    assert time.perf_counter() - started < SOON
    assert steps(tmp_path) == list(range(100))
    assert "W&B" in caplog.text
    assert ("lines did not get to W&B's client" in caplog.text) == waits
    assert ("wandb sync" in caplog.text) == (hanging in ("log", "finish"))


def test_a_failed_run_does_not_wait_for_long(tmp_path, wandb, monkeypatch):
    monkeypatch.setattr(mirrors, "FAILED_SECONDS", 0.1)
    tracker = Tracker(tmp_path, {})
    wandb.hangs = {"finish"}
    started = time.perf_counter()
    tracker.close(exit_code=1)
    assert time.perf_counter() - started < SOON


@pytest.mark.parametrize(("given", "found"), [("5", 5.0), ("0", None), ("", FINISH_SECONDS)])
def test_variables_of_wandb_set_the_limits(given, found, tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", given)
    assert wandb_seconds() == (INIT_SECONDS, found)


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(given, tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", given)
    with pytest.raises(ValueError, match=f"WANDB_INIT_TIMEOUT must be a number of seconds, got '{given}'"):
        Tracker(tmp_path, {}, wandb="offline")


class Artifact(list):
    """As of W&B, which remembers the files when they are added."""

    def __init__(self, name, type, metadata):
        self.name, self.type, self.metadata = name, type, metadata

    def add_dir(self, folder):
        self += sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize(
    ("wanted", "last", "logged"),
    [
        ("none", 2, []),
        ("best", 2, [["best"]]),
        ("all", 2, [["best"], ["last"]]),
        ("all", 1, [["best", "last"]]),
    ],
)
def test_trained_models_are_kept_as_artifacts(wanted, last, logged, tmp_path, wandb):
    saved, seen = tmp_path / "model", []

    def write(folder, epoch=2):
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text(json.dumps({"epoch": epoch, "metrics": {"test/mae": epoch}}))

    def log_artifact(artifact, aliases):
        assert (artifact.name, artifact.type, artifact[:]) == ("model-abc", "model", ["model.json"])
        seen.append((aliases, artifact.metadata["metrics"]["test/mae"]))

    wandb.run = types.SimpleNamespace(id="abc", log_artifact=log_artifact, finish=wandb.finish, dir=".")
    wandb.Artifact = Artifact
    tracker = Tracker(tmp_path, {}, wandb="offline", artifact=wanted)
    write(saved, 1)
    tracker.model(saved, last, write)
    assert seen == [(aliases, 1 if "best" in aliases else 2) for aliases in logged]


def test_a_model_that_cannot_be_kept_stops_nothing(tmp_path, caplog, wandb):
    with pytest.raises(ValueError, match="artifact must be one of none, best, all, got 'first'"):
        Tracker(tmp_path, {}, wandb="disabled", artifact="first")
    tracker = Tracker(tmp_path, {}, wandb="offline", artifact="all")  # the pretended one knows no artifacts
    (tmp_path / "model.json").write_text('{"epoch": 1}')
    tracker.model(tmp_path, 2, lambda folder: (folder / "nowhere" / "file").touch())
    tracker.log({"loss": 1.0}, 3)
    tracker.close()
    assert "the model is no artifact (AttributeError" in caplog.text
    assert "the last model is no artifact (FileNotFoundError" in caplog.text
    assert wandb.logged == [({"loss": 1.0}, 3)]
