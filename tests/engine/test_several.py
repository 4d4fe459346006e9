import os
import signal
import subprocess
import sys
import time
from functools import partial

from engine.several import run_all

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
from engine.several import run_all
runs = {{f"run {{i}}": [{str(tmp_path)!r}, f"{{i}}", "2", "0"] for i in range(6)}}
run_all(runs, Path({str(entry(tmp_path))!r}), at_once=1)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "0").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=30)
    begun = {path.name for path in tmp_path.iterdir()} - {"entry.py"}
    assert begun <= {"0", "1"}
