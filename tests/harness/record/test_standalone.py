"""A model that its run saved answers as in the run's own evaluation, without the data and from anywhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy import Line, PointData

from harness import checkpoint
from harness.data import pretrained
from harness.data.inputs import told
from harness.data.reading import Images
from harness.files import read_json
from harness.record import export, load, runs, standalone
from harness.record.allowed import NotAllowedError
from harness.record.restored import restored
from rambo.detection.metrics import collect
from rambo.evaluation import embed
from ranksim.bins import Bins, Density
from ranksim.evaluation import predict

ROOT = Path(__file__).parents[3]


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """The model that a run left, where neither its data nor anything else of the run is."""

    def move(folder):
        shutil.copytree(folder / "model", tmp_path / "elsewhere")
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder.parent / "data", ignore_errors=True)
        return load("elsewhere", device="cpu")

    return move


def own(folder):
    """The run as its evaluation sees it: the best network, the loader of the test part and its pictures or samples."""
    run = restored(folder, "best_on_validation" if "validation" in kept(folder) else "best_on_test")
    return run.model, run.data.evaluation["test"], run.data.parts["test"]


def kept(folder):
    return {path.stem.removeprefix("best_on_") for path in (folder / "checkpoints").glob("*.pt")}


@pytest.mark.parametrize(
    ("experiment", "overrides"), [("demo_rambo", ()), ("omniglot_rambo", ("data.invert=true",)), ("folder_rambo", ())]
)
def test_a_retrieval_model_embeds(experiment, overrides, runs_of, moved):
    folder = runs_of(experiment, *overrides)
    network, loader, rows = own(folder)
    expected = embed(network, loader).embeddings
    pictures = [255 - rows.load(i) if overrides else rows.load(i) for i in range(len(rows))]
    model = moved(folder)
    assert torch.equal(model.embed(pictures), expected)
    assert model.facts["classes"]
    torch.testing.assert_close(model.embed([p / 255 for p in pictures[:3]], batch_size=2), expected[:3])
    with pytest.raises(ValueError, match="this model is for retrieval: use embed"):
        model.predict(pictures)


def test_files_and_images_are_read_as_in_evaluation(runs_of, tmp_path, monkeypatch):
    folder = runs_of("folder_rambo")
    network, loader, rows = own(folder)
    files = [rows.path(i) for i in range(4)]
    expected = embed(network, loader).embeddings[:4]
    model = load(folder, device="cpu")
    for pictures in (files, [str(file) for file in files], [Image.open(file) for file in files]):
        torch.testing.assert_close(model.embed(pictures), expected)
    assert model.embed(files[0], workers=1).shape == (1, expected.shape[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_left_out_on_request(workers, runs_of, tmp_path):
    model = load(runs_of("demo_rambo"), device="cpu")
    pictures = torch.randint(256, (5, 3, 48, 48), dtype=torch.uint8)
    (tmp_path / "damaged.png").write_bytes(b"none")
    inputs = [tmp_path / "gone.png", *pictures[:3], tmp_path / "damaged.png", *pictures[3:]]
    skipped = {}
    found = torch.cat(list(model.answers(inputs, 1, workers, skipped)))
    torch.testing.assert_close(found, model.embed(list(pictures), 1), rtol=0, atol=0)
    assert list(skipped) == [0, 4]
    assert told(skipped, inputs) == [
        f"left out: there is no image {tmp_path / 'gone.png'}",
        f"left out: cannot read the image {tmp_path / 'damaged.png'} (it is none, or damaged); replace the file, or "
        "leave it out of the data",
        "2 of 7 inputs could not be read and were left out",
    ]
    with pytest.raises(OSError, match=r"^cannot read the image .*damaged.png \("):
        list(model.answers(inputs[1:], 1, workers))


@pytest.mark.parametrize("overrides", [(), ("data.image=path",)])
def test_a_regression_model_predicts_of_a_table(overrides, runs_of, moved):
    images = ("model=small_convnet_regression", "fds=gaussian", "data.target_scale=50") if overrides else ()
    folder = runs_of("table_ranksim", *overrides, *images)
    network, loader, rows = own(folder)
    expected = predict(network, loader).predictions
    if overrides:
        inputs = [rows.load(i) for i in range(len(rows))]
    else:
        sheet = (restored(folder).data.root / "table.csv").read_text().splitlines()
        lines = [dict(zip(sheet[0].split(","), line.split(","), strict=True)) for line in sheet[1:]]
        inputs = [lines[int(name.split()[1]) - 1] for name in rows.names]
    density = restored(folder).data.density
    model = moved(folder)
    assert torch.equal(model.predict(inputs), expected)
    assert model.facts["target"] == "target"
    again = Density.recorded(model.facts["density"])
    assert torch.equal(again.shots(), density.shots())
    assert torch.equal(again.bins(expected), density.bins(expected))
    if not overrides:
        numbers = torch.tensor([[float(row[name]) for name in model.reader.features] for row in inputs])
        assert torch.equal(model.predict(numbers), expected)
        for row, said in (({}, "a row has no "), ([1.0], "must hold . finite numbers"), (["a"], "must hold numbers")):
            with pytest.raises(ValueError, match=said):
                model.predict([row])


def test_the_data_of_a_run_check_its_export(runs_of, tmp_path):
    model = load(folder := runs_of("table_ranksim"), device="cpu")
    given = export.batches(model, folder)
    rows = restored(folder).data.parts["test"]
    assert torch.equal(torch.cat([batch["target"] for batch in given]), rows.targets[: sum(export.SIZES)])
    assert max(export.export(model, "torch", tmp_path / "model.pt2", given).values()) < 1e-6


def test_a_model_of_sentences_brings_its_words(runs_of, moved):
    pytest.importorskip("nltk")
    folder = runs_of("stsb_small_ranksim")
    network, loader, rows = own(folder)
    expected = predict(network, loader).predictions
    pairs = list(zip(rows.inputs["first_text"], rows.inputs["second_text"], strict=True))
    model = moved(folder)
    assert torch.equal(model.predict(pairs), expected)
    for wrong, said in (("a text", "compares two sentences"), ([("a", "")], "a sentence has no word")):
        with pytest.raises(ValueError, match=said):
            model.predict(wrong)


@pytest.mark.slow
def test_a_detector_finds(runs_of, moved):
    folder = runs_of("demo_detection", "data.test_transform.shorter=96")
    network, loader, rows = own(folder)
    expected = collect(network, loader)
    pictures = [rows.load(i) for i in range(len(rows))]
    found = (model := moved(folder)).predict(pictures)
    assert len(found) == len(expected)
    assert sum(len(one["scores"]) for one in found)
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("boxes", "labels", "scores"))
        assert one["names"] == [model.facts["classes"][label - 1] for label in one["labels"].tolist()]


def test_what_travels_says_where_it_comes_from(runs_of, tmp_path):
    folder = runs_of("demo_rambo")
    report = json.loads((folder / "report.json").read_text())
    facts = load(folder).facts
    assert facts["checkpoint"] == "best_on_test"
    assert facts["metrics"] == report["results"]["best_on_test"]["metrics"]
    assert facts["measures"]["recall@1"] == {"kind": "share", "higher_is_better": True}
    assert facts["run"]["data"]["fingerprint"] == report["data"]["fingerprint"]
    assert facts["run"]["packages"]["torch"] == report["packages"]["torch"]
    assert facts["model"]["weights"] == "none"
    assert facts["reader"]["transform"]["size"] == 32
    assert str(folder.parent) not in (folder / "model" / "model.json").read_text()
    assert load(folder, "last").facts["metrics"] == report["results"]["last"]["metrics"]
    saved = load(folder, "last").save(tmp_path / "saved")
    assert load(saved).facts["checkpoint"] == "last"


def test_a_run_that_was_stopped_or_is_older_can_be_loaded(runs_of, tmp_path):
    folder = runs_of("omniglot_rambo")
    picture = torch.randint(256, (3, 48, 48), dtype=torch.uint8)
    expected = load(folder).embed([picture])
    metrics = load(folder).facts["metrics"]

    stopped = shutil.copytree(folder, tmp_path / "stopped")
    for name in ("report.json", "DONE", "model/model.safetensors"):
        (stopped / name).unlink()
    assert torch.equal(load(stopped).embed([picture]), expected)
    assert load(stopped).facts["metrics"] == metrics
    with pytest.raises(
        FileNotFoundError, match=r"has no model.safetensors, which a run adds at its end; load the fold"
    ):
        load(stopped / "model")

    shutil.rmtree(stopped / "model")  # as of before it was written
    assert torch.equal(load(stopped).embed([picture]), expected)
    config = runs.read_config(stopped)
    config["data"] |= {"fixture": False, "root": str(tmp_path / "gone")}
    runs.write_config(stopped, config)
    with pytest.raises(FileNotFoundError, match=r"has no model/model.json, as older runs, .* needs its data: no Omni"):
        load(stopped)

    alone = shutil.copytree(folder, tmp_path / "alone")
    shutil.rmtree(alone / "checkpoints")
    assert torch.equal(load(alone).embed([picture]), expected)
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        load(alone, "last")


def test_what_cannot_be_loaded_is_answered_by_a_sentence(runs_of, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no checkpoint average; there are best, best_on_test, last"):
        load(runs_of("demo_rambo"), "average")
    averaged = shutil.copytree(runs_of("demo_rambo"), tmp_path / "averaged")
    for name in ("last", "best_on_test"):
        (averaged / "checkpoints" / f"{name}.pt").rename(averaged / "checkpoints" / f"{name}_average.pt")
    assert load(averaged, "average").facts["checkpoint"] == "best_on_test_average"
    saved = load(runs_of("demo_rambo")).save(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="holds best_on_test, not last; load the folder of the run"):
        load(saved, "last")
    weights, facts = saved / "model.safetensors", read_json(saved / "model.json")
    kept = weights.read_bytes()

    def refused(kind, said, **changes):
        (saved / "model.json").write_text(json.dumps(facts | changes))
        with pytest.raises(kind, match=said):
            load(saved)

    refused(ValueError, "is of format 2, and this version reads 1; install a newer", format=2)
    refused(ValueError, "is not what a run writes", model=None)
    refused(NotAllowedError, "may not build", model={"_target_": "os.system", "command": "true"})
    refused(NotAllowedError, "may not build", reader={"_target_": "os.system", "command": "true"})
    refused(ImportError, "there is no Nothing in rambo.model", model={"_target_": "rambo.model.Nothing"})
    other = facts["model"] | {"embedding_size": 7}
    refused(
        checkpoint.CheckpointError, r"holds another model .*: 2 entries differ: embedding.bias has shape", model=other
    )
    weights.write_bytes(kept[: len(kept) // 2])
    refused(checkpoint.CheckpointError, "model.safetensors is damaged")
    (saved / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model.json is truncated or not JSON"):
        load(saved)


def test_a_model_of_ones_own_needs_no_hooks(tmp_path):
    """The network is there; what it takes, only its owner knows."""
    config = {"model": {"_target_": "toy.Line"}, "data": {}, "metrics": None}
    runs.begin(tmp_path, config)
    standalone.begin(tmp_path, config, PointData(), network := Line(), {})
    checkpoint.save(tmp_path / "checkpoints" / "last.pt", {"model": network.state_dict(), "epoch": 1})
    standalone.finish(tmp_path, {"results": {}})
    model = load(tmp_path / "model", allow=["toy"])
    assert torch.equal(model.network.linear.weight, network.linear.weight)
    with pytest.raises(ValueError, match=r"told no way to read inputs \(for_use\); call .network with a batch"):
        list(model.answers([1]))


def test_pictures_that_are_none_are_refused():
    reader = Images(size=[4, 4])
    assert reader.read(torch.full((1, 4, 4), 0.5))["image"].unique().tolist() == [128]
    assert reader.read(Image.new("L", (9, 7)))["image"].shape == (3, 4, 4)
    whole = torch.zeros(3, 4, 4)
    for wrong, said in ((whole + 2, "from 0 to 1"), (whole[0], r"got torch.float32 \(4, 4\)"), (3, "got int")):
        with pytest.raises(ValueError, match=said):
            reader.read(wrong)
    with pytest.raises(ValueError, match="of one size, got 4 x 4 and 5 x 4"):
        Images.collate([{"image": torch.zeros(3, 4, 4)}, {"image": torch.zeros(3, 5, 4)}])


def test_density_comes_back():
    density = Density([1.0, 2.0, 2.5], Bins.uniform(0, 4, 1), {"many": [1]})
    again = Density.recorded(json.loads(json.dumps(density.record())))
    assert torch.equal(again.counts, density.counts)
    assert (again.lowest, again.highest, again.official_shots) == (1.0, 2.5, {"many": (1,)})
    assert torch.equal(again.shots("official_bins"), density.shots("official_bins"))


def test_the_name_costs_nothing_before_it_is_asked_for():
    program = "import sys, harness.record; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_damaged_weights_are_found_by_what_lies_beside_them(tmp_path):
    """A .safetensors file has no sum of its own."""
    facts, weights = {"format": 1, "model": {}, "checkpoint": "last"}, {"weight": torch.linspace(0, 1, 100)}
    standalone._write(tmp_path, facts, weights)
    path = tmp_path / standalone.WEIGHTS
    whole = path.read_bytes()
    assert torch.equal(pretrained.read_saved(path)["weight"], weights["weight"])
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(checkpoint.CheckpointError, match=r"model.safetensors is damaged \(they are not those that"):
        pretrained.read_saved(path)
    told = json.loads((tmp_path / standalone.FACTS).read_text())
    for name in ("sha256", pretrained.WEIGHTS_SUM):  # as earlier versions wrote it
        del told[name]
    (tmp_path / standalone.FACTS).write_text(json.dumps(told))
    assert not torch.equal(pretrained.read_saved(path)["weight"], weights["weight"])
    path.write_bytes(whole)
    (tmp_path / standalone.FACTS).unlink()
    assert torch.equal(pretrained.read_saved(path)["weight"], weights["weight"])
