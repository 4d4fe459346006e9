import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loaded_script import loaded

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.py"
gpu_check = loaded("gpu_check")
Finding = gpu_check.Finding


def test_all_of_it_runs_on_a_cpu(tmp_path):
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--limit", "100", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    status = {part["part"]: part["status"] for part in report["parts"]}
    assert status == {
        "tests": "left out", "waits": "left out",
        "losses": "done", "share": "done", "evaluation": "done", "images": "done",
    }  # fmt: skip
    table = (tmp_path / "report.md").read_text()
    assert table.startswith(report["device"])
    assert "| tests | **left out**: they need a GPU | | | |" in table
    assert all(each["what"] in table for part in report["parts"] for each in part["findings"])


def hangs(device, small):
    time.sleep(60)


def crashes(device, small):
    os._exit(3)


def breaks(device, small):
    raise ArithmeticError("it broke")


def lacks(device, small):
    import no_such_package  # noqa: F401


def finds(device, small):
    return [Finding("speed", "3x", ">= 2x", True), Finding("waits", "1", "0", False)]


def test_one_part_that_fails_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    for part in (hangs, crashes, breaks, lacks, finds):
        monkeypatch.setitem(gpu_check.PARTS, part.__name__, (part, 5))
    chosen = ["--device", "cpu", "--small", "--out", str(tmp_path), "--limit", "2", "--parts"]
    assert gpu_check.main([*chosen, "hangs", "crashes", "breaks", "lacks", "finds"]) == 1
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert [part["status"] for part in parts] == ["failed", "failed", "failed", "left out", "done"]
    assert parts[0]["reason"] == "took longer than 2 seconds"
    assert parts[1]["reason"] == "ended with status 3 before it had a result"
    assert parts[2]["reason"].endswith("ArithmeticError: it broke")
    assert parts[3]["reason"] == "needs no_such_package, which is not installed"
    table = (tmp_path / "report.md").read_text()
    assert "| finds | speed | 3x | >= 2x | met |" in table
    assert "| finds | waits | 1 | 0 | **missed** |" in table
    assert gpu_check.main([*chosen, "lacks", "finds"]) == 0


@pytest.mark.parametrize("name", ["cuda:99", "nowhere"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_measured(name, tmp_path, capsys):
    assert gpu_check.main(["--device", name, "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--device {name} cannot be used here (")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
