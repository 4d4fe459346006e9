"""Whole runs of every experiment on tiny data in the true on-disk format, and what bad input is answered with."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import train
from harness.files import UNFINISHED, WriteError
from harness.record import runs
from harness.study.execution import Worker, close
from harness.study.tables import Table
from harness.train import training
from ranksim.datasets.fixture import write_own

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(path.stem for path in (train.CONFIGS / "experiment").glob("*.yaml"))
IN_TABLES = {
    row.experiment
    for path in (train.CONFIGS / "table").glob("*.yaml")
    for row in Table.load(path).rows.values()
    if not row.overrides
}
RUN_HERE = ["cub_rambo", "agedb_ranksim", "voc07_rambo", *(name for name in EXPERIMENTS if name not in IN_TABLES)]
DEMOS = {
    "rambo.objective": "demo_rambo", "ranksim.objective": "demo_regression", "rambo.detection": "demo_detection",
}  # fmt: skip
LOSSES = {
    path.stem: next(demo for module, demo in DEMOS.items() if f"_target_: {module}" in path.read_text())
    for path in sorted((train.CONFIGS / "loss").glob("*.yaml"))
}
SMALL = ["experiment=demo_rambo", "scale=fixture"]
GROUPS = [
    f"{group}={path.stem}"
    for group in ("weighting", "fds", "regularizer", "stages")
    for path in sorted((train.CONFIGS / group).glob("*.yaml"))
    if path.stem not in ("none", "one")
]


class KilledError(BaseException):
    """The end of a process that nothing in it notices."""


def composed(*overrides):
    with initialize_config_dir(str(train.CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def small(experiment, folder, *overrides):
    """The experiment on its fixture, without pictures: they would take longer than all the rest."""
    common = ("scale=fixture", "workers=0", "threads=1", f"paths.data={folder}", "trainer.pictures=false")
    return composed(f"experiment={experiment}", *common, *overrides)


def run(config, folder, name="test"):
    return train.train(config, Path(folder), name, [])


def record(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RUN_HERE)
def test_every_experiment_runs_from_end_to_end(experiment, tmp_path):
    """The others are rows of a table, and run in test_all_tables.py."""
    config = small(experiment, tmp_path, "trainer.pictures=true")
    report = run(config, tmp_path / "run", experiment)
    last, best = report["results"]["last"], report["results"]["best_on_test"]
    assert last["epoch"] == config.trainer.epochs == 2
    monitor = f"test/{config.trainer.monitor}"
    sign = 1 if config.trainer.higher_is_better else -1
    assert 0 <= last["metrics"][monitor] < float("inf")
    assert sign * best["metrics"][monitor] >= sign * last["metrics"][monitor]
    assert runs.read_json(tmp_path / "run" / "report.json")["experiment"] == experiment
    assert report["data"]["fixture"] is True
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "began.json", "metrics.jsonl", "checkpoints", "report.json", "DONE"} <= written
    assert "pictures" in written


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_says_what_it_is_and_only_names_what_exists(experiment):
    lines = (train.CONFIGS / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")
    assert any(line.startswith(f"# python train.py experiment={experiment}") for line in lines)
    config = composed(f"experiment={experiment}")
    OmegaConf.resolve(config)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_one_override_of_the_same_recipe(loss, tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    pytest.importorskip("mlxtend")
    report = run(small(LOSSES[loss], tmp_path, f"loss={loss}", "trainer.epochs=1"), tmp_path / "run")
    assert report["loss"]["loss"]
    assert all(torch.isfinite(torch.tensor(line.get("loss", 0.0))) for line in record(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_part_of_the_toolbox_is_one_override_of_the_same_recipe(group, tmp_path):
    pytest.importorskip("mlxtend")
    overrides = [group, "trainer.epochs=2", *(["weighting=inverse"] if group.startswith("stages") else [])]
    report = run(small("demo_regression", tmp_path, *overrides), tmp_path / "run")
    numbers = [value for line in record(tmp_path / "run") for value in line.values() if isinstance(value, float)]
    assert all(torch.isfinite(torch.tensor(numbers)))
    assert ("first_stage" in report["results"]) is group.startswith("stages")


@pytest.mark.slow
def test_the_longest_row_of_the_table_is_a_choice_of_groups(tmp_path):
    row = ["loss=focal_mse", "weighting=inverse", "lds=gaussian", "fds=gaussian", "stages=retrained_head"]
    report = run(small("stsb_ranksim", tmp_path, *row), tmp_path / "run")
    first = runs.read_json(tmp_path / "run" / "first_stage" / "report.json")
    assert first["config"]["weighting"]["kind"] == "none"
    assert first["config"]["model"]["smoothing"] is None
    assert report["config"]["model"]["smoothing"]["kernel"] == "gaussian"
    assert "RankSimilarity" in first["loss"]["regularizer"]


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", ["first_stage", "."])
def test_two_stages_interrupted_in_either_equal_the_uninterrupted_ones(interrupted, tmp_path, monkeypatch):
    """Killed after an epoch of either stage, and gone on with."""
    pytest.importorskip("mlxtend")
    row = ["stages=retrained_head", "weighting=inverse", "regularizer=ranksim", "trainer.epochs=3"]
    whole = run(small("demo_regression", tmp_path, *row), tmp_path / "whole")
    finish = training.Training.finish_epoch

    def killed(self, numbers, seconds):
        finish(self, numbers, seconds)
        if self.epoch == 1 and self.tracker.folder == tmp_path / "parts" / interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "finish_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(small("demo_regression", tmp_path, *row), tmp_path / "parts")
    monkeypatch.undo()
    parts = run(small("demo_regression", tmp_path, *row, f"resume={tmp_path / 'parts'}"), tmp_path / "parts")
    for stage in (".", "first_stage"):
        assert record(tmp_path / "parts" / stage) == record(tmp_path / "whole" / stage)
    assert parts["results"]["last"] == whole["results"]["last"]
    assert parts["results"]["first_stage"] == whole["results"]["first_stage"]
    first = runs.read_json(tmp_path / "whole" / "first_stage" / "report.json")
    assert parts["results"]["untrained"] == whole["results"]["untrained"] == first["results"]["untrained"]


RESUMED = {
    "cub_rambo": ["loss.interpolation_end=16"],
    "demo_detection": ["scheduler=constant", "detection_ap.preset=official"],
    "demo_regression": ["scheduler=constant", "fds=gaussian", "regularizer=ranksim", "weighting=inverse"],
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RESUMED)
def test_a_resumed_run_equals_the_uninterrupted_one_with_memory_and_all(experiment, tmp_path):
    """Three epochs in one go, and one epoch, a stop, and the rest."""
    changes = ["trainer.log_every=1", *RESUMED[experiment]]
    whole = run(small(experiment, tmp_path, *changes, "trainer.epochs=3"), tmp_path / "whole")
    run(small(experiment, tmp_path, *changes, "trainer.epochs=1"), tmp_path / "parts")
    (tmp_path / "parts" / "DONE").unlink()
    again = small(experiment, tmp_path, *changes, "trainer.epochs=3", f"resume={tmp_path / 'parts'}")
    parts = run(again, tmp_path / "parts")
    assert runs.read_config(tmp_path / "parts")["trainer"]["epochs"] == 3
    assert record(tmp_path / "parts") == record(tmp_path / "whole")
    assert parts["results"]["last"] == whole["results"]["last"]


@pytest.mark.slow
def test_same_seed_same_numbers(tmp_path):
    for name in ("a", "b"):
        run(small("demo_rambo", tmp_path), tmp_path / name)
    assert record(tmp_path / "a") == record(tmp_path / "b")


@pytest.mark.slow
def test_classes_held_out_are_evaluated_and_select_a_model_of_their_own(tmp_path):
    report = run(small("cub_rambo", tmp_path, "data.validation_fraction=0.4"), tmp_path / "run")
    assert {"best_on_validation", "best_on_test", "last"} <= report["results"].keys()
    assert (tmp_path / "run" / "checkpoints" / "best_on_validation.pt").exists()


@pytest.mark.parametrize(
    ("error", "stopped"), [(training.TrainingStoppedError("the loss became nan"), True), (OSError("no space"), False)]
)
def test_only_a_training_that_stopped_by_itself_leaves_that_on_record(error, stopped, tmp_path, monkeypatch):
    def broken(*given):
        raise error

    monkeypatch.setattr(train, "train", broken)
    with pytest.raises(type(error)):
        train.attempt(None, tmp_path, None, "demo", [])
    assert (tmp_path / runs.STOPPED).exists() == stopped
    if stopped:
        assert runs.why_stopped(tmp_path) == "the loss became nan"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """train.py with a command line, without the seconds of importing torch."""
    worker = Worker(ROOT / "train.py", tmp_path_factory.mktemp("said"))

    def called(*arguments):
        worker.begin(arguments)
        code, said = worker.end()
        return SimpleNamespace(returncode=code, said=said)

    yield called
    close([worker])


def test_without_an_experiment_the_choices_are_listed(command):
    answer = command()
    assert answer.returncode == 1
    assert "which experiment? python train.py experiment=NAME" in answer.said
    assert all(name in answer.said for name in EXPERIMENTS)


def test_a_misspelt_experiment_is_answered_with_the_choices(command):
    answer = command("experiment=cub_rmbo")
    assert answer.returncode == 1
    assert "there is no experiment cub_rmbo; did you mean cub_rambo or " in answer.said


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([*SMALL, "loss.interpolation=0"], "interpolation (lambda) must be > 0"),
        ([*SMALL, "loss.margin=-1"], "margin must be"),
        ([*SMALL, "data.sampler.samples_per_class=1"], "samples_per_class"),
        (["experiment=cub_rambo", "paths.data=/nonexistent"], "no CUB-200-2011 in /nonexistent/cub"),
        (["experiment=demo_rambo", "resume=outputs/none"], "resume=outputs/none: no run there"),
        (["experiment=demo_rambo", "+optimizer.foo=1"], "foo"),
        ([*SMALL, "trainer.precision=fp8"], "trainer.precision must be one of"),
        ([*SMALL, "tracking.wandb=maybe"], "wandb must be one of"),
        (["experiment=demo_rambo", "+loss.lamda=3"], "lamda"),
        (["experiment=demo_rambo", "trainer.epoch=3"], "trainer.epoch; did you mean trainer.epochs?"),
        (["experiment=demo_rambo", "trainer.epochs=abc"], "error: trainer.epochs: wanted int, got 'abc'"),
        (["experiment=folder_rambo", "data.root=photos/数据"], "quote it twice: \"data.root='photos/数据'\""),
        (["experiment=demo_regression", "lds=gaussian"], "needs re-weighting: choose kind inverse or sqrt_inverse"),
        (["experiment=demo_regression", "weighting=inverse", "lds=gaussian", "lds.size=4"], "must be odd and positive"),
        (["experiment=demo_regression", "fds=gaussian", "fds.size=4"], "kernel size must be odd and positive"),
        (["experiment=demo_regression", "regularizer=ranksim", "regularizer.weight=-1"], "weight (gamma) must be >= 0"),
        (["experiment=demo_regression", "regularizer=ranksim", "regularizer.interpolation=0"], "(lambda) must be > 0"),
        (["experiment=demo_regression", "stages=retrained_head", "first_stage.retrain=[tail]"], "has no part tail"),
        (["experiment=demo_regression", "trainer.monitor=maee"], "trainer.monitor=maee is no metric of validation"),
        (["experiment=demo_regression", "loss=balanced_mse_bmc", "weighting=inverse"], "takes no weights"),
        (["experiment=demo_regression", "model=perceptron"], "this model is for rows of numbers"),
        ([*SMALL, "trainer.monitor=recall"], "is no metric of test; there are recall@1"),
        ([*SMALL, "trainer.splits=[tested]"], "must name some of the splits of the data"),
        ([*SMALL, "optimizer.lr=-1"], "Invalid learning rate: -1"),
        ([*SMALL, "trainer.chunk=8"], "batch norm that trains"),
        ([*SMALL, "scheduler=cosine_warmup", "scheduler.warmup_epochs=900"], "longer than the run"),
        (["experiment=agedb_vanilla", "paths.data=/nonexistent"], "AgeDB"),
        (["experiment=stsb_vanilla", "paths.data=/nonexistent"], "python scripts/download.py sts_b"),
    ],
)
def test_bad_input_is_answered_with_one_sentence(command, overrides, sentence, tmp_path):
    answer = command(*overrides, f"paths.outputs={tmp_path}", "threads=1")
    assert answer.returncode == 1
    assert sentence in answer.said
    assert "Traceback" not in answer.said
    assert not [path for path in tmp_path.rglob("*") if path.name in runs.LEFT]  # so that the folder is free


def late():
    """What may fail between the record of a run and its first checkpoint."""
    return [
        (train.standalone, "begin", WriteError("full")),
        (train, "first_stage", ValueError("no such part")),
        (train, "complete", ValueError("tracking: no such mode")),
        (training.Training, "__post_init__", RuntimeError("out of memory")),
        (training.Training, "evaluate", ValueError("a metric of somebody's own")),
        (training.Training, "save", WriteError("full")),
        (training.Training, "save", KeyboardInterrupt()),
    ]


@pytest.mark.parametrize("point", range(7))
def test_a_start_that_fails_before_its_first_checkpoint_leaves_the_folder_free(point, tmp_path, monkeypatch):
    place, name, error = late()[point]
    real, folder = getattr(place, name), tmp_path / "run"

    def fails(*given, **named):
        if name == "complete" and given[0] != "tracking":
            return real(*given, **named)
        assert name in ("begin", "complete") or (folder / runs.BEGAN).is_file()
        raise error

    monkeypatch.setattr(place, name, fails)
    row = ["stages=retrained_head", "weighting=inverse"] if name == "first_stage" else []
    config = small("table_ranksim", tmp_path, "data.root=own", "data.target=y", "data.fixture=true", *row)
    with pytest.raises(type(error)):
        run(config, folder)
    runs.check_unused(folder)
    assert not any((folder / left).exists() for left in (*runs.LEFT, "wandb_id.txt", "wandb"))


@pytest.mark.parametrize("point", range(6))  # the seventh is the place of the sixth
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_was_killed_before_its_first_checkpoint_is_made_by_the_same_command(
    point, resume, tmp_path, monkeypatch
):
    """Its folder holds what was written until then, and the second run there is as if it were the first."""
    place, name, _ = late()[point]
    real, folder = getattr(place, name), tmp_path / "run"
    row = ["stages=retrained_head", "weighting=inverse"] if name == "first_stage" else []
    own = ["data.root=own", "data.target=y", "data.fixture=true", "trainer.epochs=1", *row]

    def killed(*given, **named):
        if name == "complete" and given[0] != "tracking":
            return real(*given, **named)
        raise KilledError

    monkeypatch.setattr(place, name, killed)
    with pytest.raises(KilledError):
        run(small("table_ranksim", tmp_path, *own), folder)
    monkeypatch.undo()
    assert (folder / "config.yaml").is_file()
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / f"last.pt.0123456789ab{UNFINISHED}").touch()
    others = folder / "other_run" / f"last.pt.0123456789ab{UNFINISHED}"  # whose writer may be at work
    others.parent.mkdir()
    others.touch()
    report = run(small("table_ranksim", tmp_path, *own, *([f"resume={folder}"] if resume else [])), folder)
    assert report["results"]["last"]["epoch"] == 1
    epochs = [line["epoch"] for line in record(folder) if "epoch" in line]
    assert epochs == [0, 1]
    assert list(folder.rglob(f"*{UNFINISHED}")) == [others]
    with pytest.raises(FileExistsError):
        run(small("table_ranksim", tmp_path, *own), folder)


@pytest.mark.parametrize("error", [ValueError("a fault in an epoch"), KeyboardInterrupt()])
def test_a_run_that_has_saved_keeps_its_folder_and_one_that_goes_on_loses_nothing(error, tmp_path, monkeypatch):
    config = small("table_ranksim", tmp_path, "data.root=own", "data.target=y", "data.fixture=true")

    def fails(*given):
        raise error

    for name in ("train_epoch", "restore"):
        monkeypatch.setattr(training.Training, name, fails)
        with pytest.raises(type(error)):
            run(config, tmp_path / "run")
        config.resume = str(tmp_path / "run")
        assert {"config.yaml", runs.BEGAN, "checkpoints", runs.MODEL} <= {p.name for p in (tmp_path / "run").iterdir()}
    with pytest.raises(FileExistsError, match="go on with it"):
        runs.check_unused(tmp_path / "run")


@pytest.mark.slow
def test_a_run_is_taken_for_made_on_its_own_data_alone(command, tmp_path):
    """The data are copied, which changes nothing, and then edited where they lie."""
    table = write_own(tmp_path / "own", "table.csv", "y", None, ["a", "b"])
    again = shutil.copytree(table, tmp_path / "copy")

    def said(root):
        answer = command(
            "experiment=table_ranksim", f"data.root={root}", "data.target=y", "trainer.epochs=1", "threads=1",
            "tracking.wandb=disabled", "reuse=true", f"paths.outputs={tmp_path / 'outputs'}",
        )  # fmt: skip
        assert answer.returncode == 0, answer.said
        return answer.said, len(list(tmp_path.rglob("DONE")))

    assert "already done" not in said(table)[0]
    first = next(tmp_path.rglob("report.json"))
    assert runs.read_json(first.parent / runs.BEGAN)["data"] == runs.read_json(first)["data"]
    assert f"already done: {first.parent}" in said(again)[0]
    lines = (again / "table.csv").read_text().splitlines()
    (again / "table.csv").write_text("\n".join([*lines[:-1], "1,2,3"]) + "\n")
    for finished in (2, 2):
        assert said(again)[1] == finished


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_refused_and_stays_as_it_is(command, tmp_path):
    folder = tmp_path / "one"
    arguments = ["experiment=demo_rambo", "scale=fixture", "threads=1", f"hydra.run.dir={folder}"]
    assert command(*arguments).returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for other in (
        [*arguments, "seed=1"],
        ["-m", *arguments[:-1], f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=one"],
    ):
        answer = command(*other)
        assert answer.returncode == 1
        assert f"{folder} holds a run already" in answer.said
        after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert {path for path in after if after[path] != before.get(path)} <= {folder / "train.log"}
        assert after.keys() == before.keys()
        assert after[folder / "train.log"].startswith(before[folder / "train.log"])
    assert f"already done: {folder}" in command(*arguments, "reuse=true", f"paths.outputs={tmp_path}").said


@pytest.mark.slow
def test_a_stage_that_was_stopped_before_its_first_checkpoint_begins_anew(tmp_path, monkeypatch):
    """Its folder and lines are there, and are not mixed with those of the second attempt."""
    pytest.importorskip("mlxtend")
    row = ["stages=retrained_head", "weighting=inverse", "trainer.epochs=1"]
    whole = run(small("demo_regression", tmp_path, *row), tmp_path / "whole")
    save = training.Training.save
    for stage in ("first_stage", "."):

        def killed(self, stage=stage):
            if self.tracker.folder == tmp_path / "parts" / stage:
                raise KilledError
            save(self)

        monkeypatch.setattr(training.Training, "save", killed)
        again = [f"resume={tmp_path / 'parts'}"] if stage == "." else []
        with pytest.raises(KilledError):
            run(small("demo_regression", tmp_path, *row, *again), tmp_path / "parts")
        monkeypatch.undo()
    parts = run(small("demo_regression", tmp_path, *row, f"resume={tmp_path / 'parts'}"), tmp_path / "parts")
    for stage in (".", "first_stage"):
        assert record(tmp_path / "parts" / stage) == record(tmp_path / "whole" / stage)
    assert parts["results"]["last"] == whole["results"]["last"]


@pytest.mark.slow
def test_one_bad_cell_does_not_cost_the_rest_of_a_sweep(command, tmp_path):
    answer = command(
        "-m", "experiment=demo_rambo", "scale=fixture", "loss.margin=-1,0", "threads=1", f"paths.outputs={tmp_path}"
    )
    assert answer.returncode == 1
    assert "margin must be >= 0" in answer.said
    (done,) = tmp_path.rglob("DONE")
    assert runs.read_json(done.parent / "report.json")["config"]["loss"]["margin"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_a_run_that_can_be_resumed(command, tmp_path, number, status):
    arguments = [
        *SMALL, "trainer.epochs=5000", "data.sampler.batches_per_epoch=2", "scheduler=constant", "threads=1",
        "trainer.pictures=false", f"paths.outputs={tmp_path}",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == status
    (checkpoint,) = tmp_path.rglob("last.pt")
    folder = checkpoint.parent.parent
    assert f"go on with the same command and resume={folder}" in said
    done = torch.load(checkpoint, weights_only=True)["epoch"]
    answer = command(
        *[a for a in arguments if "epochs=5000" not in a], f"trainer.epochs={done + 1}", f"resume={folder}"
    )
    assert answer.returncode == 0, answer.said
    assert (folder / "DONE").exists()
