"""Many runs beside each other on one folder: none is lost, none is made twice, each is whole."""

import subprocess
import sys

import pytest
from commanded import COMMON, ROOT, words
from killing import lines

from harness import checkpoint
from harness.record.index import LOCKS, index
from harness.record.runs import folders, read_metrics, read_report

pytestmark = pytest.mark.faults
TINY = ("trainer.epochs=1", "trainer.pictures=false", "trainer.evaluate_first=false", "reuse=true", "workers=0")


def begun(command):
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(processes):
    """What each said; all must end well."""
    said = [process.communicate(timeout=1500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def seeds_of_whole_runs(outputs):
    """The seed of every run below a folder, in which there must be nothing else."""
    seeds = []
    for folder in folders(outputs):
        report = read_report(folder)
        read_metrics(folder)
        assert (folder / "DONE").is_file()
        assert checkpoint.load(folder / "checkpoints" / "last.pt")["epoch"] == 1
        assert sum("epoch" in line for line in lines(folder)) == 1
        assert not (folder / ".running").exists()
        seeds.append(report["seed"])
    assert sum((folder / "train.log").is_file() for folder in outputs.rglob("*") if folder.is_dir()) == len(seeds)
    found = [one for there in index(outputs).values() for one in there.finished]
    assert len(found) == len(seeds)
    assert not list((outputs / LOCKS).glob("*"))
    return sorted(seeds)


def sweep(tmp_path, runs):
    """A command that makes runs of so many seeds, four at once."""
    command = [sys.executable, "train.py", "-m", "experiment=demo_regression", *COMMON, *TINY, f"seed=range({runs})"]
    command += [f"paths.outputs={tmp_path / 'outputs'}", f"paths.data={tmp_path / 'data'}"]
    return [*command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=4"]


def test_two_sweeps_at_once_make_every_run_once(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    runs, command = 40, sweep(tmp_path, 40)
    said = ended([begun(command), begun(command)])
    assert seeds_of_whole_runs(tmp_path / "outputs") == list(range(runs))
    assert "Traceback" not in "".join(said)
    [again] = ended([begun(command)])
    assert again.count("already done") == runs
    assert seeds_of_whole_runs(tmp_path / "outputs") == list(range(runs))


def test_processes_started_in_one_moment_make_every_run_once(tmp_path):
    """Each run is asked for by three processes, all of which choose the folder by their time."""
    runs = 6

    def command(seed):
        given = words("demo_regression", tmp_path / "outputs" / "run", *TINY, f"seed={seed}")
        return [word for word in given if not word.startswith("hydra.run.dir")]

    processes = [begun(command(k % runs)) for k in range(3 * runs)]
    for process in processes:
        said, _ = process.communicate(timeout=1500)
        assert process.returncode == ("is making this run" in said), said
        assert "Traceback" not in said
    assert seeds_of_whole_runs(tmp_path / "outputs") == list(range(runs))


def test_one_folder_is_one_runs_whoever_asks_for_it(tmp_path):
    """Of four processes that are given one folder, one makes its run; the others are refused and leave it alone."""
    folder = tmp_path / "outputs" / "run"
    given = [word for word in words("demo_regression", folder, *TINY) if word != "reuse=true"]
    processes = [begun([*given, f"seed={seed}"]) for seed in range(4)]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1], said
    made = next(seed for seed, process in enumerate(processes) if process.returncode == 0)
    assert seeds_of_whole_runs(tmp_path / "outputs") == [made]
    assert "Traceback" not in "".join(said)
