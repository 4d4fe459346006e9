"""The command that draws figures from run folders, on real runs of the demos on stand-in data."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from loaded_script import loaded

import train
from harness.record import runs
from harness.record.restored import UNTRAINED, recorded, restored
from rambo.figures.gradients import gradient_shares

ROOT = Path(__file__).parents[2]
figures = loaded("figures")

PNG = b"\x89PNG"
RETRIEVAL = ("batch_map", "scores", "retrievals", "sparsity", "ties", "embedding")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains an experiment on stand-in data when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(experiment, *overrides):
        if (experiment, *overrides) not in made:
            with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
                config = compose(
                    "train",
                    [f"experiment={experiment}", "scale=fixture", "trainer.epochs=1", "trainer.pictures=false",
                     "trainer.log_every=1", "threads=1", f"paths.data='{folder}'", *overrides],
                )  # fmt: skip
            where = folder / f"run{len(made)}"
            train.train(config, where, experiment, list(overrides))
            made[(experiment, *overrides)] = where
        return made[(experiment, *overrides)]

    return run


def refusal(*words):
    with pytest.raises(SystemExit) as stopped:
        figures.main([str(word) for word in words])
    return str(stopped.value)


def drawn(folder):
    assert all(path.read_bytes().startswith(PNG if path.suffix == ".png" else b"<?xml") for path in folder.iterdir())
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_every_retrieval_figure_of_one_run(trained, tmp_path, capsys):
    figures.main([*RETRIEVAL, "--run", str(trained("demo_rambo")), "--out", str(tmp_path)])
    assert drawn(tmp_path) == {f"{name}.{ending}" for name in RETRIEVAL for ending in ("png", "svg")}
    said = capsys.readouterr().out
    assert "stand-in data: these numbers mean nothing" in said
    assert f"picture: {tmp_path / 'batch_map.png'}" in said


@pytest.mark.slow
def test_two_runs_are_drawn_side_by_side_under_names_that_tell_them_apart(trained, tmp_path):
    two = [str(trained("demo_rambo")), str(trained("demo_rambo", "loss.margin=0.3"))]
    figures.main(["scores", "sparsity", "retrievals", "--run", *two, "--out", str(tmp_path), "--formats", "png"])
    assert drawn(tmp_path) == {
        "scores.png", "sparsity.png", "retrievals_margin_0.02.png", "retrievals_margin_0.3.png",
    }  # fmt: skip
    assert "2 runs need as many different names, got a, a" in refusal("scores", "--run", *two, "--names", "a", "a")


def test_the_gradient_tried_afterwards_is_that_of_training(trained):
    folder = trained("demo_rambo")
    run = restored(folder, UNTRAINED)
    first = figures.training_batches(run)[:1]
    share = gradient_shares(run.loss().loss, first, (run.config["loss"]["interpolation"],))
    assert float(share) == pytest.approx(recorded(folder, "step/gradient_share")[1], abs=1e-6)
    assert not run.model.training


@pytest.mark.parametrize(
    "experiment",
    ["demo_rambo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("demo_regression", "demo_detection"))],
)
def test_restored_models_measure_what_the_run_recorded(trained, experiment):
    if experiment == "demo_regression":
        pytest.importorskip("mlxtend")
    folder = trained(experiment)
    results = runs.read_json(folder / "report.json")["results"]
    for weights in (UNTRAINED, "last"):
        run = restored(folder, weights)
        found = {f"test/{name}": value for name, value in run.metrics(run.model, run.data.evaluation["test"]).items()}
        recorded_then = {name: value for name, value in results[weights]["metrics"].items() if name.startswith("test/")}
        assert found == pytest.approx(recorded_then, rel=1e-5, nan_ok=True)


@pytest.mark.slow
def test_every_regression_figure(trained, tmp_path):
    pytest.importorskip("mlxtend")
    names = ("targets", "errors", "predictions", "similarity")
    two = [str(trained("demo_regression")), str(trained("demo_regression", "regularizer=ranksim"))]
    figures.main([*names, "--run", *two, "--names", "vanilla", "RankSim", "--out", str(tmp_path), "--formats", "svg"])
    assert drawn(tmp_path) == {f"{name}.svg" for name in names}
    folder = two[0]
    assert (
        refusal("scores", "--run", folder)
        == f"error: scores is drawn from a retrieval run, but {folder} is a regression run"
    )
    assert "recorded no gradient_share, as its loss is no ranking loss" in refusal("sparsity", "--run", folder)
    assert "recorded no tie_rate, as its loss is no ranking loss" in refusal("ties", "--run", folder)


@pytest.mark.slow
def test_every_detection_figure(trained, tmp_path):
    names = ("precision_recall", "detections", "sparsity", "ties")
    figures.main([*names, "--run", str(trained("demo_detection")), "--out", str(tmp_path), "--formats", "png"])
    assert drawn(tmp_path) == {f"{name}.png" for name in names}


def test_the_landscape_needs_no_run(tmp_path):
    figures.main(["landscape", "--out", str(tmp_path), "--formats", "png"])
    assert drawn(tmp_path) == {"landscape.png"}


def test_bad_input_is_answered_with_one_sentence(trained, tmp_path, capsys):
    folder = trained("demo_rambo")
    assert refusal("scores") == "error: scores is drawn from a run: give --run and the folder of one"
    assert "is no run folder (config.yaml is missing)" in refusal("scores", "--run", tmp_path)
    assert "has no checkpoint first; there are best_on_test, last, untrained" in refusal(
        "scores", "--run", folder, "--weights", "first", "--out", tmp_path
    )
    assert "has no split train; there are test" in refusal("scores", "--run", folder, "--split", "train")
    assert "errors is drawn from a regression run" in refusal("errors", "--run", folder, "--out", tmp_path)
    assert refusal("portrait") == "2"
    assert "invalid choice: 'portrait'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_figure_of_a_kind_that_nobody_knows(tmp_path):
    config = {"seed": 0, "metrics": {"_target_": "torch.nn.Linear"}}
    runs.begin(tmp_path, config)
    assert f"{tmp_path} is a Linear run" in refusal("scores", "--run", tmp_path)
