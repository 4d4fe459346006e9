"""Sweeps and searches: the ready ones fit their experiments, and each launcher makes, skips and goes on with runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.utils import instantiate
from omegaconf import OmegaConf

import train
from harness.record import runs

ROOT = Path(__file__).parent.parent
SWEEPS = sorted(path.stem for path in (train.CONFIGS / "sweep").glob("*.yaml"))
SMALL = ["scale=fixture", "threads=1"]


def needs(*names):
    for name in names:
        pytest.importorskip(f"hydra_plugins.hydra_{name}")


def composed(sweep):
    """The sweep with the experiment that its own comment names."""
    text = (train.CONFIGS / "sweep" / f"{sweep}.yaml").read_text()
    line = re.search(rf"# python train.py -m experiment=(\w+) \+sweep={sweep}\b", text)
    assert line, "the file gives no command"
    Plugins.instance()  # registers the choices that plugins add
    with initialize_config_dir(str(train.CONFIGS), version_base="1.3"):
        return compose("train", [f"experiment={line[1]}", f"+sweep={sweep}"], return_hydra_config=True)


def values(key, text):
    """Those that a sweep gives to a key, or the ends of the interval that a search is to look in."""
    override = OverridesParser.create().parse_override(f"{key}={text}")
    if override.is_interval_sweep():
        return [override.value().start, override.value().end]
    return list(override.sweep_iterator())


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_fits_the_experiment_that_it_names(sweep):
    if sweep.startswith("search"):
        needs("optuna_sweeper")
    config = composed(sweep)
    assert config.reuse is True
    assert config.hydra.mode.name == "MULTIRUN"
    assert config.hydra.sweeper.params
    for key, text in config.hydra.sweeper.params.items():
        chosen = values(key, str(text))
        assert len(set(chosen)) == len(chosen) > 1
        if (train.CONFIGS / key).is_dir():  # one file after the other
            assert all((train.CONFIGS / key / f"{value}.yaml").is_file() for value in chosen)
            continue
        assert OmegaConf.select(config, key) is not None, f"{key} changes nothing"
        for value in chosen:
            changed = config.copy()
            OmegaConf.update(changed, key, value)
            if key.startswith("loss."):
                instantiate(changed.loss, _convert_="all")
            elif key.startswith("regularizer."):
                instantiate(changed.regularizer, _convert_="all")
            elif key == "data.sampler.batch_size":
                labels = torch.arange(200).repeat_interleave(4)
                instantiate(changed.data.sampler, _convert_="all")(labels=labels, super_labels=None, seed=0)


@pytest.mark.parametrize("sweep", [sweep for sweep in SWEEPS if sweep.startswith("search")])
def test_a_search_goes_by_the_validation_metric_of_its_experiment_in_its_direction(sweep):
    needs("optuna_sweeper")
    config = composed(sweep)
    assert config.objective == f"validation/{config.trainer.monitor}"
    assert config.hydra.sweeper.direction == ("maximize" if config.trainer.higher_is_better else "minimize")
    assert config.hydra.sweeper.sampler.seed is not None


def test_slurm_is_a_choice_of_launcher():
    needs("submitit_launcher")
    Plugins.instance()
    overrides = ["experiment=demo_rambo", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    with initialize_config_dir(str(train.CONFIGS), version_base="1.3"):
        launcher = compose("train", overrides, return_hydra_config=True).hydra.launcher
    assert launcher.partition == "gpu"
    assert launcher.submitit_folder.endswith(".submitit/%j")


def command(*arguments):
    return [sys.executable, "train.py", "-m", *arguments]


def sweep(outputs, *arguments):
    """Runs the command; answers with its exit code and what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        command(*arguments, f"paths.outputs={outputs}", f"paths.data={outputs.parent / 'data'}"),
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return answer.returncode, answer.stdout + answer.stderr


def finished(outputs):
    return sorted(path.parent for path in outputs.rglob("DONE"))


def folders(outputs):
    """Every run folder that is there, whatever has come of it."""
    return sorted({path.parent for name in ("config.yaml", ".hydra") for path in outputs.rglob(name)
                   if path.parent.name != ".hydra"})  # fmt: skip


def test_without_the_plugins_one_sentence_says_what_to_install():
    """As they would be missing: the package that all plugins share cannot be imported."""
    program = """
import runpy, sys
sys.modules["hydra_plugins"] = None
sys.argv = ["train.py", "-m", "experiment=demo_rambo", "+sweep=search_rambo"]
runpy.run_path("train.py", run_name="__main__")
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr == (
        "error: +sweep=search_rambo, by hydra/sweeper=optuna needs hydra-optuna-sweeper; "
        'run: pip install "blackbox-ranking[sweeps]"\n'
    )


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_with_the_same_command(tmp_path):
    """Ctrl-C during the second of two runs; then the first is left as it is and the second goes on in its folder."""
    outputs = tmp_path / "outputs"
    arguments = ["experiment=demo_rambo", *SMALL, "trainer.epochs=12", "+sweep=seeds", "seed=0,1"]
    process = subprocess.Popen(
        command(*arguments, f"paths.outputs={outputs}"), cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not list(outputs.glob("demo_rambo/seed1/*/checkpoints/last.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert said.endswith(
        "interrupted; the same command with reuse=true skips what is finished and goes on with the rest\n"
    )
    (first,) = finished(outputs)
    (second,) = set(folders(outputs)) - {first}
    before = (first / "report.json").read_bytes()
    code, said = sweep(outputs, *arguments)
    assert code == 0
    assert f"already done: {first}" in said
    assert f"goes on: {second}" in said
    assert folders(outputs) == finished(outputs) == [first, second]
    assert (first / "report.json").read_bytes() == before
    lines = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == list(range(13))  # each once, and none lost
    assert "epoch 12/12" in (second / "train.log").read_text()


@pytest.mark.slow
def test_jobs_beside_each_other_share_the_cores_and_make_no_run_twice(tmp_path):
    needs("joblib_launcher")
    code, said = sweep(
        tmp_path, "experiment=demo_rambo", "scale=fixture", "+sweep=seeds", "seed=0,1,1",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=3",
    )  # fmt: skip
    assert code == 0, said
    assert "left alone" in said or "already done" in said
    reports = [runs.read_json(folder / "report.json") for folder in finished(tmp_path)]
    assert [report["seed"] for report in reports] == [0, 1]
    assert folders(tmp_path) == finished(tmp_path)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert {report["hardware"]["threads"] for report in reports} == {max(cores // 3, 1)}


@pytest.mark.slow
def test_submitit_runs_the_jobs_on_this_machine(tmp_path):
    needs("submitit_launcher")
    arguments = ["experiment=demo_rambo", *SMALL, "+sweep=seeds", "seed=0,1", "hydra/launcher=submitit_local"]
    code, said = sweep(tmp_path, *arguments)
    assert code == 0, said
    assert [runs.read_json(folder / "report.json")["seed"] for folder in finished(tmp_path)] == [0, 1]
    assert folders(tmp_path) == finished(tmp_path)
    assert len(list(tmp_path.glob(".submitit/*/*_result.pkl"))) == 2


@pytest.mark.slow
def test_a_search_finds_the_best_on_validation_and_goes_on_from_the_runs_that_are_there(tmp_path):
    needs("optuna_sweeper")
    outputs = tmp_path / "outputs"
    arguments = ["experiment=omniglot_rambo", *SMALL, "+sweep=search_rambo"]
    code, said = sweep(outputs, *arguments, "hydra.sweeper.n_trials=2")
    assert code == 0, said
    two = finished(outputs)
    assert len(two) == 2
    code, said = sweep(outputs, *arguments, "hydra.sweeper.n_trials=3")
    assert code == 0, said
    assert [f"already done: {folder}" in said for folder in two] == [True, True]
    assert len(finished(outputs)) == 3
    found = OmegaConf.load(outputs / "search_rambo" / "optimization_results.yaml")
    reports = [runs.read_json(folder / "report.json") for folder in finished(outputs)]
    scores = [report["results"]["best_on_validation"]["metrics"]["validation/recall@1"] for report in reports]
    assert found.best_value == max(scores)
    best = [report["config"] for report, score in zip(reports, scores, strict=True) if score == max(scores)]
    assert found.best_params["optimizer.lr"] in [config["optimizer"]["lr"] for config in best]


@pytest.mark.slow
def test_a_search_that_cannot_be_honest_ends_before_its_first_job(tmp_path):
    needs("optuna_sweeper")
    code, said = sweep(tmp_path, "experiment=demo_rambo", *SMALL, "+sweep=search_rambo")
    assert code == 1
    assert said == (
        "error: objective=validation/recall@1: these data have no validation split; "
        "hold classes out: data.validation_fraction=0.2\n"
    )
    assert not folders(tmp_path)
