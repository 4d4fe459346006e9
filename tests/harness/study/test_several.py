import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from harness import device
from harness.study import several
from harness.study.in_turn import InTurn
from harness.study.several import Pace, run_all

ROOT = Path(__file__).parents[3]

ENTRY = """
import sys, time, pathlib
folder, name, seconds, code = sys.argv[1:5]
pathlib.Path(folder, name).touch()
time.sleep(float(seconds))
print("it went wrong" if int(code) else "done")
sys.exit(int(code))
"""


def entry(folder):
    path = folder / "entry.py"
    path.write_text(ENTRY)
    return path


def test_every_run_is_run_and_told(tmp_path):
    told = []
    runs = {f"run {i}": [str(tmp_path), f"{i}", "0", "0"] for i in range(3)}
    assert run_all(runs, entry(tmp_path), at_once=2, say=told.append) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2", "entry.py"}
    assert [line.split()[0] for line in told] == ["1/3", "2/3", "3/3"]


def test_a_failure_ends_the_rest_or_does_not(tmp_path):
    runs = {f"run {i}": [str(tmp_path), f"{i}", "0.5", "1" if i == 0 else "0"] for i in range(4)}
    failed = run_all(runs, entry(tmp_path), at_once=1, say=lambda line: None)
    assert list(failed) == ["run 0"]
    assert "it went wrong" in failed["run 0"]
    assert not (tmp_path / "3").exists()
    assert list(run_all(runs, entry(tmp_path), at_once=2, say=lambda line: None, keep_going=True)) == ["run 0"]
    assert (tmp_path / "3").exists()


def test_ctrl_c_begins_nothing_more(tmp_path):
    program = f"""
from pathlib import Path
from harness.study.several import run_all

runs = {{f"run {{i}}": [{str(tmp_path)!r}, f"{{i}}", "2", "0"] for i in range(6)}}
run_all(runs, Path({str(entry(tmp_path))!r}), at_once=1)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "0").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=30)
    begun = {path.name for path in tmp_path.iterdir()} - {"entry.py"}
    assert "0" in begun
    assert begun <= {"0", "1"}


def test_runs_are_spread_over_the_gpus_each_seeing_one(tmp_path, monkeypatch):
    path = tmp_path / "entry.py"
    path.write_text("import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[1:]); sys.exit(1)")
    runs = {"a": ["x=1"], "b": ["threads=4"]}
    monkeypatch.setattr(several, "gpus", lambda: ["5"])
    assert several.default_at_once() == 1
    said = run_all(runs, path, say=lambda line: None, keep_going=True)
    assert said == {"a": "5 ['x=1', 'threads=1']\n", "b": "5 ['threads=4']\n"}
    monkeypatch.setattr(several, "gpus", lambda: ["0", "GPU-b"])
    said = run_all({str(k): [] for k in range(8)}, path, 4, lambda line: None, True)
    assert {words.split()[0] for words in said.values()} <= {"0", "GPU-b"}


def test_gpus_are_called_as_the_environment_calls_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for chosen, names in (("3,GPU-b", ["3", "GPU-b"]), ("", ["0", "1"]), ("0,1,2", ["0", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert device.gpus() == names


def test_cores_are_those_that_the_process_may_use():
    """A container or a batch job has fewer than the machine; so does whatever starts or records a run."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.cpu_count = lambda: 64\n"
        "from harness import device\n"
        "from harness.record import reproducibility\n"
        "from harness.study import several\n"
        "assert device.cores() == several.default_at_once() == 1\n"
        "assert reproducibility.provenance(b'')['hardware']['cores'] == 1"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], env=environment, check=True)
    machine = [path for path in Path(__file__).parents[3].glob("*/**/*.py") if "os.cpu_count" in path.read_text()]
    assert {path.name for path in machine if "tests" not in path.parts and ".venv" not in path.parts} == {"device.py"}


def test_the_remaining_time_follows_the_epochs_that_runs_print():
    now = 100.0
    pace = Pace(["a", "b", "c"], clock=lambda: now)
    assert pace.remaining is None
    assert pace.left == ""
    now = 160.0  # a minute for half of a, of three that take two
    pace.hear("a", "[2026-01-01][train][INFO] - epoch 6/12  loss 0.184  41 s")
    assert pace.remaining == 60 / 0.5 * 2.5
    assert pace.left == "about 5 min left"
    pace.hear("a", "anything else")
    pace.hear("a", "epoch 1/12  loss 0.2")  # a second stage begins anew
    assert pace.parts["a"] == 0.5
    pace.end("a")
    pace.end("b")
    pace.end("c")
    assert pace.remaining == 0
    assert pace.left == ""


def test_what_a_resumed_run_did_before_says_nothing_of_the_pace():
    now = 0.0
    pace = Pace(["a"], clock=lambda: now)
    pace.hear("a", "resumed after epoch 8 of 10")
    assert pace.remaining is None
    now = 30.0
    pace.hear("a", "epoch 9/10  loss 0.1")
    assert pace.remaining == pytest.approx(30 / 0.1 * 0.1)
    assert pace.left == "under a minute left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45, "about a minute left"),
        (200, "about 3 min left"),
        (3 * 3600, "about 3 h left"),
        (4 * 86400, "about 4 days left"),
    ],
)
def test_the_remaining_time_in_words(seconds, words):
    now = 0.0
    pace = Pace(["a", "b"], clock=lambda: now)
    now = float(seconds)
    pace.end("a")
    assert pace.left == words


SAYS_WHO = """
import os, sys
print("I am", os.getpid(), sys.argv[1], "__main__" == __name__)
if sys.argv[1] == "sentence":
    raise SystemExit("error: one sentence")
if sys.argv[1] == "bug":
    raise RuntimeError("a bug")
if sys.argv[1] == "dies":
    os._exit(3)
"""


def test_runs_in_turn_share_a_python_and_tell_their_faults_all_the_same(tmp_path):
    path = tmp_path / "entry.py"
    path.write_text(SAYS_WHO)
    pythons = {}
    for fresh in (True, False):
        said = []
        python = InTurn(path, dict(os.environ) | {"PYTHONPATH": str(ROOT)}, fresh)
        codes = [python.run([name], said.append) for name in ("one", "sentence", "bug", "two", "dies", "three")]
        python.close()
        assert codes == [0, 1, 1, 0, 3, 0]
        assert "error: one sentence\n" in said
        assert "RuntimeError: a bug\n" in said
        told = [line.split() for line in said if line.startswith("I am")]
        assert [words[3:] for words in told] == [
            [name, "True"] for name in ("one", "sentence", "bug", "two", "dies", "three")
        ]
        pythons[fresh] = len({words[2] for words in told})
    assert pythons == {True: 6, False: 2}  # the second where the first died
