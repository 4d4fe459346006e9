"""Starting from what a run of ours has learned: to train on, to evaluate, or with another head."""

import logging
import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from torch import nn

import train
from harness import checkpoint
from harness.data.backbones import SmallConvNet
from harness.data.pretrained import own_start, read_state_dict, start_from
from harness.record import runs
from harness.record.restored import UNTRAINED, restored
from harness.record.standalone import Trained
from rambo.model import RetrievalModel

# Of each kind, a recipe small enough to be run here, and where its weights are named.
RECIPES = {
    "retrieval": ("demo_rambo", "model.weights", ()),
    "regression": ("agedb_ranksim", "model.encoder.weights", ("model=small_convnet_regression",)),
    "detection": ("demo_detection", "model.weights", ()),
}


@pytest.fixture
def run(tmp_path):
    def made(kind, name, *overrides):
        experiment, _, changes = RECIPES[kind]
        common = ("scale=fixture", "workers=0", "threads=1", "trainer.device=cpu", f"paths.data={tmp_path}")
        with initialize_config_dir(str(train.CONFIGS), version_base="1.3"):
            config = compose("train", [f"experiment={experiment}", *common, *changes, *overrides])
        return tmp_path / name, train.train(config, tmp_path / name, experiment, list(overrides))

    return made


@pytest.mark.parametrize("kind", [*list(RECIPES)[:2], pytest.param("detection", marks=pytest.mark.slow)])
def test_zero_epochs_from_a_run_of_ours_measure_what_it_measured_at_its_end(kind, run, caplog):
    first, report = run(kind, "first", "trainer.epochs=1", "trainer.pictures=false")
    key = RECIPES[kind][1]
    for weights in (first, first / "checkpoints" / "last.pt"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            folder, again = run(kind, f"again {weights.name}", "trainer.epochs=0", f"{key}='{weights}'")
        assert again["results"]["last"]["metrics"] == pytest.approx(report["results"]["last"]["metrics"], nan_ok=True)
        assert again["results"]["last"]["epoch"] == 0
        assert (folder / "DONE").exists()
        assert f"starts from all weights of {first / 'checkpoints' / 'last.pt'}" in caplog.messages
    for weights in (UNTRAINED, "last"):  # both are those of the first run
        model = restored(folder, weights).model
        taken = checkpoint.load(first / "checkpoints" / "last.pt")["model"]
        assert all(torch.equal(model.state_dict()[name], taken[name]) for name, _ in model.named_parameters())


def test_a_saved_model_is_a_start_too(tmp_path):
    def model():
        return RetrievalModel(SmallConvNet(2), embedding_size=3, weights="none")

    saved = Trained(model(), None, {"format": 1}).save(tmp_path / "artifact")
    config, start = own_start({"weights": str(saved), "embedding_size": 3})
    assert config == {"weights": "none", "embedding_size": 3}
    start_from(other := model(), start)
    assert torch.equal(other.embedding.weight, load_file(saved / "model.safetensors")["embedding.weight"])
    (saved / "model.safetensors").write_bytes(b"half")
    with pytest.raises(checkpoint.CheckpointError, match=r"model.safetensors is damaged .* copy or export it again"):
        start_from(other, start)


def test_another_head_begins_anew_and_is_named(run, caplog):
    first, _ = run("retrieval", "first", "trainer.epochs=1", "trainer.pictures=false")
    with caplog.at_level(logging.INFO):
        folder, report = run(
            "retrieval", "other", "trainer.epochs=0", "model.embedding_size=7", f"model.weights={first}"
        )
    assert any("weights of" in said and "but of embedding, which has another shape" in said for said in caplog.messages)
    before, after = (checkpoint.load(f / "checkpoints" / "last.pt")["model"] for f in (first, folder))
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("backbone."))
    assert after["embedding.weight"].shape[0] == 7
    assert math.isfinite(report["results"]["last"]["metrics"]["test/recall@1"])
    with pytest.raises(ValueError, match=r"last.pt does not fit RetrievalModel: \d+ entries differ: backbone"):
        run("retrieval", "wider", "model.backbone.width=4", f"model.weights={first}")


def test_a_regressor_takes_the_backbone_of_a_retrieval_model(tmp_path):
    class Model(nn.Module):
        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                self.add_module(name, part)

    retrieval = Model(backbone=nn.Linear(2, 3), embedding=nn.Linear(3, 4))
    regressor = Model(encoder=Model(backbone=nn.Linear(2, 3)), head=nn.Linear(3, 1))
    checkpoint.save(tmp_path / "last.pt", {"model": retrieval.state_dict(), "epoch": 1})
    start_from(regressor, tmp_path / "last.pt")
    assert torch.equal(regressor.encoder.backbone.weight, retrieval.backbone.weight)
    assert read_state_dict(tmp_path / "last.pt").keys() == {"weight", "bias"}  # for whoever builds a backbone alone


def test_a_bit_turned_in_the_weights_of_a_run_is_found_before_they_are_a_start(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"weight": torch.ones(1000)}, "epoch": 1})
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(8).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    _, start = own_start({"weights": str(path)})
    with pytest.raises(checkpoint.CheckpointError, match=r"last.pt is truncated or not a checkpoint"):
        start_from(nn.Linear(1000, 1, bias=False), start)


def test_weights_from_elsewhere_are_left_to_the_backbone(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "w.pt")
    for weights in ("hub", "packaged", "none", str(tmp_path / "w.pt"), str(tmp_path / "nowhere.pt"), str(tmp_path)):
        config = {"weights": weights}
        assert own_start(config) == (config, None)
    assert own_start({"encoder": {"layers": 2}}) == ({"encoder": {"layers": 2}}, None)


def test_a_finished_run_goes_on_and_ends_as_one_that_was_longer_from_the_start(run):
    same = ("scheduler=constant", "trainer.pictures=false", "trainer.evaluate_first=false")
    whole, expected = run("retrieval", "whole", *same, "trainer.epochs=2")
    folder, _ = run("retrieval", "first", *same, "trainer.epochs=1")
    with pytest.raises(FileExistsError, match=r"that run is finished; .* new run: model.weights="):
        run("retrieval", "first", *same, "trainer.epochs=1", f"resume={folder}")
    assert (folder / "DONE").exists()
    _, report = run("retrieval", "first", *same, "trainer.epochs=2", f"resume={folder}")
    assert all(report["results"][name] == expected["results"][name] for name in ("last", "best_on_test"))
    ends = [checkpoint.load(one / "checkpoints" / "last.pt")["model"] for one in (folder, whole)]
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())
    assert runs.read_report(folder)["config"]["trainer"]["epochs"] == 2
    assert (folder / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
