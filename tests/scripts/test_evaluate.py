"""scripts/evaluate.py: a run's numbers once more to the last bit, other data read as the model reads, reports apart."""

import json
import shutil

import pytest
import torch
from hydra.utils import instantiate
from loaded_script import loaded

from harness.record import load, runs
from harness.record.index import index
from harness.study.results import find_runs, group_by_method
from rambo.metrics import retrieval_metrics
from ranksim.bins import Density
from ranksim.metrics import regression_metrics


@pytest.fixture(scope="module")
def script():
    module = loaded("evaluate")
    return lambda *words: module.main([*map(str, words), "--device", "cpu"])


def written(out):
    return json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("experiment", ["demo_rambo", "table_ranksim", "stsb_small_ranksim"])
def test_on_its_own_data_a_run_has_its_own_numbers(experiment, runs_of, script, tmp_path, capsys):
    if experiment.startswith("stsb"):
        pytest.importorskip("nltk")
    run = runs_of(experiment)
    script(run, "--which", "last", "--out", tmp_path / "out")
    assert f"report: {tmp_path / 'out'}" in capsys.readouterr().out
    own, now = runs.read_report(run), written(tmp_path / "out")
    assert now["results"]["last"] == own["results"]["last"]
    assert (now["measures"], now["data"]) == (own["measures"], own["data"])
    assert now["evaluated"] == {"run": str(run), "checkpoint": "last", "trained_on": own["data"]["fingerprint"]}


@pytest.mark.slow
def test_a_detector_has_its_own_numbers_and_intervals_on_request(runs_of, script, tmp_path):
    run = runs_of("demo_detection", "data.test_transform.shorter=96")
    script(run, "--which", "last", "metrics.draws=20", "--out", tmp_path / "out")
    own, now = (one["results"]["last"]["metrics"] for one in (runs.read_report(run), written(tmp_path / "out")))
    assert {name: now[name] for name in own} == own
    assert now["test/ap50_11_point_low"] <= now["test/ap50_11_point_high"]
    with pytest.raises(SystemExit, match=r"has the classes square, .* and the model finds circle"):
        script(run, "data.classes=[square,circle,cross,triangle]")


def test_it_is_never_taken_for_the_run(runs_of, script):
    run = runs_of("demo_rambo", "seed=3")
    before = index(run.parent)
    script(run)
    script(run, "--which", "last", "metrics.recall_at=[1,3]")
    assert index(run.parent) == before  # what tables, reuse and searches find
    groups = group_by_method(find_runs([run]))
    assert list(groups) == [
        "demo_rambo",
        "demo_rambo checkpoint=best_on_test",
        "demo_rambo checkpoint=last metrics.recall_at=[1,3]",
    ]
    assert [len(members) for members in groups.values()] == [1, 1, 1]
    with pytest.raises(SystemExit, match="is no run folder"):
        script(groups["demo_rambo checkpoint=best_on_test"][0].folder)


def test_other_numbers_are_standardised_and_judged_as_those_of_training(runs_of, script, tmp_path):
    run = runs_of("table_ranksim")
    table = next((run.parent / "data").rglob("table.csv"))
    head, *lines = table.read_text().splitlines()
    rows = [[float(value) for value in line.split(",")] for line in lines]
    other = [[2 * width + 1, height, weight, target] for width, height, weight, target in rows]
    parts = ["train"] * 40 + ["validation"] * 10 + ["test"] * (len(rows) - 50)
    listed = [",".join(map(repr, row)) + f",{part}" for row, part in zip(other, parts, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join([f"{head},split", *listed]))
    script(run, f"data.root={tmp_path}", "data.fixture=false", "--out", tmp_path / "out")
    model = load(run, device="cpu")
    predictions = model.predict([row[:3] for row in other[50:]])
    rule = {key: model.facts["evaluation"][key] for key in ("many", "few")}
    targets = torch.tensor([row[3] for row in other[50:]])
    wanted = regression_metrics(predictions, targets, Density.recorded(model.facts["density"]), **rule)
    found = written(tmp_path / "out")["results"]["last"]["metrics"]
    assert {n.removeprefix("test/"): v for n, v in found.items() if n.startswith("test/")} == pytest.approx(
        wanted, 1e-5
    )
    assert found["test/mae"] != pytest.approx(runs.read_report(run)["results"]["last"]["metrics"]["test/mae"], 1e-3)
    (tmp_path / "table.csv").write_text((tmp_path / "table.csv").read_text().replace("width", "breadth"))
    with pytest.raises(SystemExit, match="has the features breadth, height, weight, and the model takes width"):
        script(run, f"data.root={tmp_path}", "data.fixture=false")


def test_other_pictures_are_brought_to_the_network_as_its_own(runs_of, script, tmp_path):
    run, other = runs_of("demo_rambo"), runs_of("folder_rambo")
    root = shutil.copytree(next((other.parent / "data").iterdir()), tmp_path / "pictures")
    script(run, "data=folder", f"data.root={root}", "--out", tmp_path / "out")
    now = written(tmp_path / "out")
    assert now["config"]["data"]["test_transform"] == load(run).facts["reader"]["transform"]
    assert now["config"]["model"] == runs.read_config(run)["model"]
    part = instantiate(now["config"]["data"], _convert_="all").parts["test"]
    embeddings = load(run, device="cpu").embed([part.load(index) for index in range(len(part))])
    wanted = retrieval_metrics(embeddings, part.labels)
    assert now["results"]["last"]["metrics"]["test/recall@1"] == wanted["recall@1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.embedding_size=3"], "model.embedding_size=3 is of training; an evaluation takes data, metrics, "),
        (["data=cup"], "there is no data cup"),
        (["data.rooot=x"], r"takes no rooot; did you mean root\?"),
        (["data.root=1,2"], "wanted one value, key=value"),
        (["lala"], "wanted KEY=VALUE"),
        (["trainer.splits=[nix]"], "must name some of the splits of the data: test"),
        (["--which", "best_on_train"], "has no checkpoint best_on_train; there are best, "),
    ],
)
def test_what_cannot_be_evaluated_is_told(words, said, runs_of, script, tmp_path):
    with pytest.raises(SystemExit, match=said):
        script(runs_of("demo_rambo"), *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
