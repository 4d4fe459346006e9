import hashlib
import json
import math

import pytest

from harness.train.tracking import Means, Tracker
from harness.train.wandb_client import wandb_mode


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
    assert wandb_mode("online") == "offline"
    assert "run `wandb login` or set WANDB_API_KEY" in caplog.text
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password secret\n")
    assert wandb_mode("online") == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    caplog.clear()
    assert wandb_mode("online") == "online"
    assert caplog.text == ""


def test_auto_is_online_only_for_somebody_logged_in(tmp_path, monkeypatch, logged_out):
    assert wandb_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
    assert wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    assert wandb_mode("auto") == "online"


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="auto, online, offline, disabled, got 'on'"):
        Tracker(tmp_path, {}, wandb="on")


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
