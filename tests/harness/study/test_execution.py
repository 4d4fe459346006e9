import json
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
from harness.study import execution
from harness.study.execution import Worker, close, run_all

ROOT = Path(__file__).parents[3]


@pytest.fixture
def quick(monkeypatch):
    """Workers that import nothing, as the programs here need nothing."""
    monkeypatch.setattr(execution, "IMPORTED", ())


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


def test_every_run_is_run_and_told(tmp_path, quick, capsys):
    runs = {f"run {i}": [str(tmp_path), f"{i}", "0", "0"] for i in range(3)}
    assert run_all(runs, entry(tmp_path), at_once=2) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2", "entry.py"}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1/3", "2/3", "3/3"]


def test_a_failure_ends_the_rest_or_does_not(tmp_path, quick):
    runs = {f"run {i}": [str(tmp_path), f"{i}", "0.5", "1" if i == 0 else "0"] for i in range(4)}
    failed = run_all(runs, entry(tmp_path), at_once=1)
    assert list(failed) == ["run 0"]
    assert "it went wrong" in failed["run 0"]
    assert not (tmp_path / "3").exists()
    assert list(run_all(runs, entry(tmp_path), at_once=2, keep_going=True)) == ["run 0"]
    assert (tmp_path / "3").exists()


def test_ctrl_c_begins_nothing_more(tmp_path):
    program = f"""
from pathlib import Path
from harness.study import execution

execution.IMPORTED = ()
runs = {{f"run {{i}}": [{str(tmp_path)!r}, f"{{i}}", "2", "0"] for i in range(6)}}
execution.run_all(runs, Path({str(entry(tmp_path))!r}), at_once=1)
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


def test_runs_are_spread_over_the_gpus_each_seeing_one(tmp_path, monkeypatch, quick):
    path = tmp_path / "entry.py"
    path.write_text("import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[1:]); sys.exit(1)")
    runs = {"a": ["x=1"], "b": ["threads=4"]}
    monkeypatch.setattr(execution, "gpus", lambda: ["5"])
    said = run_all(runs, path, 1, keep_going=True)
    assert said == {"a": "5 ['x=1', 'threads=1']\n", "b": "5 ['threads=4']\n"}
    monkeypatch.setattr(execution, "gpus", lambda: ["0", "GPU-b"])
    said = run_all({str(k): [] for k in range(8)}, path, 4, True)
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
        "from pathlib import Path\n"
        "from harness.study.jobs import Outputs\n"
        "assert device.cores() == Outputs(Path('nowhere')).at_once == 1\n"
        "assert reproducibility.provenance()[0]['hardware']['cores'] == 1"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], env=environment, check=True)
    folders = [Path(__file__).parents[3] / name for name in ("harness", "rambo", "ranksim", "scripts", "benchmarks")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert [path.name for path in sources if "os.cpu_count" in path.read_text()] == ["device.py"]


SAYS_WHO = """
import os, signal, sys
print("I am", os.getpid(), sys.argv[1], "__main__" == __name__, "torch" in sys.modules, hasattr(os, "left_over"))
os.left_over = True
if sys.argv[1] == "sentence":
    raise SystemExit("error: one sentence")
if sys.argv[1] == "bug":
    raise RuntimeError("a bug")
if sys.argv[1] == "dies":
    os._exit(3)
if sys.argv[1] == "killed":
    print("epoch 1", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_runs_begin_with_torch_imported_and_nothing_of_another_and_tell_their_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "IMPORTED", ("torch",))
    path = tmp_path / "entry.py"
    path.write_text(SAYS_WHO)
    names = ("one", "sentence", "bug", "two", "dies", "killed", "three")
    worker, codes, said = Worker(path, tmp_path), [], {}
    for name in names:
        worker.begin([name])
        code, said[name] = worker.end()
        codes.append(code)
    close([worker])
    assert codes == [0, 1, 1, 0, 3, -9, 0]
    assert said["sentence"].endswith("error: one sentence\n")
    assert said["bug"].endswith("RuntimeError: a bug\n")
    assert said["killed"].endswith(
        "epoch 1\n\nerror: the run was ended by SIGKILL, as the system does where memory is short\n"
    )
    told = {name: said[name].splitlines()[0].split() for name in ("one", "two", "three")}
    assert len({words[2] for words in told.values()}) == 3
    assert all(words[3:] == [name, "True", "True", "False"] for name, words in told.items())


def test_a_killed_run_leaves_the_others_running(tmp_path, quick):
    path = tmp_path / "entry.py"
    path.write_text(SAYS_WHO)
    failed = run_all({name: [name] for name in ("killed", "one", "two")}, path, at_once=1, keep_going=True)
    assert list(failed) == ["killed"]


@pytest.mark.slow
def test_a_run_has_the_numbers_of_the_command(tmp_path):
    """One run is made before it beside others, in which other threads, settings and seeds were chosen."""
    arguments = ["experiment=demo_rambo", "scale=fixture", "threads=1"]
    runs = {
        "other": ["experiment=demo_regression", "scale=fixture", "threads=2", "seed=3", "deterministic=false"],
        "same": arguments,
        "again": arguments,
    }
    runs = {name: [*given, f"paths.outputs={tmp_path / name}"] for name, given in runs.items()}
    assert run_all(runs, ROOT / "train.py", at_once=2) == {}
    command = [sys.executable, "train.py", *arguments, f"paths.outputs={tmp_path / 'command'}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    lines = {}
    for name in ("same", "again", "command"):
        (file,) = (tmp_path / name).rglob("metrics.jsonl")
        lines[name] = [
            {k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in file.read_text().splitlines()
        ]
    assert lines["same"] == lines["again"] == lines["command"]
