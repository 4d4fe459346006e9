import hashlib
import json
import math
import sys
import types
from pathlib import Path

import pytest

from harness.train import tracking
from harness.train.tracking import Means, Tracker, _wandb_mode


def read(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_line_is_json_even_when_a_number_is_not_finite(tmp_path):
    tracker = Tracker(tmp_path, {}, wandb="disabled")
    tracker.log({"loss": 0.5, "epoch": 1}, step=3)
    tracker.log({"loss": math.nan}, step=4)
    assert read(tmp_path) == [{"step": 3, "loss": 0.5, "epoch": 1}, {"step": 4, "loss": None}]


def test_rewinding_drops_later_lines_and_a_half_written_one(tmp_path):
    tracker = Tracker(tmp_path, {}, wandb="disabled")
    for step in (1, 2, 3):
        tracker.log({"loss": float(step)}, step)
    with tracker.file.open("a") as file:
        file.write('{"step": 2, "lo')
    tracker.rewind(2)
    assert [line["step"] for line in read(tmp_path)] == [1, 2]


def test_a_damaged_line_is_found_where_a_run_goes_on_and_costs_nothing_where_it_is_dropped(tmp_path):
    tracker, sums = Tracker(tmp_path, {}, wandb="disabled"), []
    for step in (1, 2, 3):
        tracker.log({"loss": float(step)}, step)
        sums.append(tracker.sum())
    assert sums[-1] == hashlib.sha256(tracker.file.read_bytes()).hexdigest()
    whole = tracker.file.read_text()
    turned = [whole.replace("2.0", "2.1"), whole.replace('2, "l', '3, "l'), whole.replace("{", "[", 1)]
    for damaged in (*turned, whole[:30]):
        tracker.file.write_text(damaged)
        with pytest.raises(ValueError, match=r"metrics.jsonl is damaged: up to step 2 it is not what the run wrote"):
            tracker.rewind(2, sums[1])
    tracker.file.write_text(whole.replace("3.0", "2.1").replace('{"step": 3', '{"step": 1'))
    tracker.rewind(2, sums[1])
    tracker.log({"loss": 3.0}, 3)
    assert tracker.file.read_text() == whole
    assert tracker.sum() == sums[-1]
    tracker.file.write_text("no JSON\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged"):
        tracker.rewind(2)  # by a checkpoint of an earlier version


def test_each_mean_is_over_the_times_that_its_number_was_given():
    means = Means()
    for numbers in ({"loss": 1.0}, {"loss": 2.0, "norm": 5.0}, {"loss": 6.0}, {"norm": 7.0}):
        means.add(numbers)
    assert means.values() == {"loss": (1.0 + 2.0 + 6.0) / 3, "norm": (5.0 + 7.0) / 2}


@pytest.fixture
def logged_out(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_online_for_somebody_not_logged_in_is_offline_with_a_warning_and_no_question(
    tmp_path, monkeypatch, logged_out, caplog
):
    assert _wandb_mode("online") == "offline"
    assert "run `wandb login` or set WANDB_API_KEY" in caplog.text
    monkeypatch.setenv("WANDB_MODE", "online")
    assert _wandb_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password secret\n")
    assert _wandb_mode("online") == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    caplog.clear()
    assert _wandb_mode("online") == "online"
    assert caplog.text == ""


def test_auto_is_online_only_for_somebody_logged_in(tmp_path, monkeypatch, logged_out):
    assert _wandb_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert _wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert _wandb_mode("auto") == "disabled"
    assert _wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    assert _wandb_mode("auto") == "online"


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="auto, online, offline, disabled, got 'on'"):
        Tracker(tmp_path, {}, wandb="on")


def test_a_mirror_that_cannot_start_costs_a_warning_and_nothing_else(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now fails
    tracker = Tracker(tmp_path, {}, wandb="offline")
    tracker.log({"loss": 1.0}, 1)
    assert "no W&B for this run" in caplog.text
    assert read(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_a_mirror_that_breaks_later_is_dropped_and_the_run_goes_on(tmp_path, caplog):
    class Broken:
        calls = 0

        def log(self, numbers, step):
            self.calls += 1
            raise ConnectionError("gone")

    tracker = Tracker(tmp_path, {}, wandb="disabled")
    broken = Broken()
    tracker.mirrors = [broken]
    tracker.log({"loss": 1.0}, 1)
    tracker.log({"loss": 2.0}, 2)
    assert broken.calls == 1
    assert "Broken stopped (ConnectionError: gone)" in caplog.text
    assert len(read(tmp_path)) == 2


@pytest.mark.parametrize("newer", [True, False])
def test_a_run_that_failed_is_shown_as_failed(tmp_path, monkeypatch, newer):
    finished = []

    class Settings:
        def __init__(self, **given):
            if newer:
                self.finish_timeout = 0.0  # which means to wait for ever

    def init(settings, **given):
        assert vars(settings) == ({"finish_timeout": 120} if newer else {})
        return types.SimpleNamespace(finish=lambda exit_code: finished.append(exit_code))

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Settings=Settings, init=init))
    for arguments in ({}, {"exit_code": 1}):
        Tracker(tmp_path, {}, wandb="offline").close(**arguments)
    assert finished == [0, 1]


@pytest.mark.slow
def test_wandb_offline_writes_into_the_run_folder(tmp_path):
    pytest.importorskip("wandb")
    tracker = Tracker(tmp_path, {"seed": 0}, wandb="offline")
    assert len(tracker.mirrors) == 1
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_tensorboard_on_request(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = Tracker(tmp_path, {}, wandb="disabled", tensorboard=True)
    tracker.log({"loss": 1.0, "note": "words are left out"}, 1)
    tracker.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))


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
def test_trained_models_are_kept_as_artifacts(wanted, last, logged, tmp_path):
    saved, seen = tmp_path / "model", []

    def write(folder, epoch=2):
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text(json.dumps({"epoch": epoch, "metrics": {"test/mae": epoch}}))

    def log_artifact(artifact, aliases):
        assert (artifact.name, artifact.type, artifact[:]) == ("model-abc", "model", ["model.json"])
        seen.append((aliases, artifact.metadata["metrics"]["test/mae"]))

    mirror = object.__new__(tracking._WandB)
    mirror.wandb = types.SimpleNamespace(Artifact=Artifact)
    mirror.run = types.SimpleNamespace(id="abc", log_artifact=log_artifact)
    tracker = Tracker(tmp_path, {}, wandb="disabled", artifact=wanted)
    tracker.mirrors = [mirror]
    write(saved, 1)
    tracker.model(saved, last, write)
    assert seen == [(aliases, 1 if "best" in aliases else 2) for aliases in logged]


def test_a_model_that_cannot_be_kept_stops_nothing(tmp_path, caplog):
    with pytest.raises(ValueError, match="artifact must be one of none, best, all, got 'first'"):
        Tracker(tmp_path, {}, wandb="disabled", artifact="first")
    tracker = Tracker(tmp_path, {}, wandb="disabled", artifact="all")
    tracker.mirrors = [object.__new__(tracking._WandB)]  # which has nothing
    (tmp_path / "model.json").write_text('{"epoch": 1}')
    tracker.model(tmp_path, 2, lambda folder: (folder / "nowhere" / "file").touch())
    assert "WandB stopped (AttributeError" in caplog.text
    assert "the last model is no artifact (FileNotFoundError" in caplog.text
    assert tracker.mirrors == []
