import json
import math
import sys

import pytest

from engine.tracking import Tracker, _wandb_mode


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


def test_auto_is_online_only_for_somebody_logged_in(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
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
    assert "Broken stopped (gone)" in caplog.text
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
