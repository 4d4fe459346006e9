import json
import random

import pytest
import torch
from toy import Line, PointData, SquaredError, fit

from harness import checkpoint, seeds
from harness.record import runs
from harness.record.restored import UNTRAINED, names_of, recorded, restored

TOYS = ("toy", "test_restored")


class PlacedData(PointData):
    """Points that are somewhere."""

    def __init__(self, root, fingerprint="a"):
        super().__init__(fingerprint=fingerprint)
        self.root = root


class PreparedError(SquaredError):
    """A loss that wants to know the data first."""

    def prepare(self, data):
        self.seen = data


class Prepared(Line):
    """A model whose weights are drawn once it knows the data."""

    def __init__(self):
        super().__init__()
        del self.linear

    def prepare(self, data):
        self.seen, self.linear = data, torch.nn.Linear(1, 1, bias=False)


def target(kind, **arguments):
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **arguments}


def made(folder, model=Line, fingerprint="a", seed=3):
    """A run of the toy, with the config that it would have had; returns the model that it ended with."""
    config = {
        "seed": seed,
        "data": target(PlacedData, root="here", fingerprint=fingerprint),
        "model": target(model),
        "loss": target(PreparedError, factor=2.0),
        "metrics": {"_target_": "toy.closeness", "_partial_": True},
    }
    runs.begin(folder, config)
    seeds.seed_everything(seed, "initial weights")
    data, network = PlacedData("here", fingerprint), model()
    if hasattr(network, "prepare"):
        network.prepare(data)
    begun = network.linear.weight.item()
    _, network = fit(folder, data=data, model=network)
    return begun, network.linear.weight.item()


def test_the_last_weights_come_back(tmp_path):
    begun, ended = made(tmp_path)
    run = restored(tmp_path, allow=TOYS)
    assert begun != ended
    assert run.model.linear.weight.item() == ended
    assert not run.model.training
    assert run.data.root == "here"
    assert run.config["loss"]["factor"] == 2.0
    assert run.metrics(run.model, run.data.evaluation["test"]) == {"closeness": pytest.approx(-5 * abs(ended - 3))}


@pytest.mark.parametrize("model", [Line, Prepared])
def test_untrained_weights_are_those_that_the_run_began_with(tmp_path, model):
    begun, _ = made(tmp_path, model)
    assert restored(tmp_path, UNTRAINED, allow=TOYS).model.linear.weight.item() == begun


def test_another_checkpoint_can_be_asked_for(tmp_path):
    made(tmp_path)
    best = checkpoint.load(tmp_path / "checkpoints" / "best_on_test.pt")["model"]["linear.weight"].item()
    assert restored(tmp_path, "best_on_test", allow=TOYS).model.linear.weight.item() == best


def test_the_loss_is_built_and_prepared(tmp_path):
    made(tmp_path)
    run = restored(tmp_path, allow=TOYS)
    loss = run.loss()
    assert loss.factor == 2.0
    assert loss.seen is run.data


def test_looking_at_a_run_leaves_the_global_generators_alone(tmp_path):
    made(tmp_path)
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3).tolist(), random.random()
    torch.manual_seed(5)
    random.seed(5)
    restored(tmp_path, UNTRAINED, allow=TOYS)
    assert (torch.rand(3).tolist(), random.random()) == expected


def test_data_may_have_moved_but_must_be_the_same(tmp_path):
    made(tmp_path)
    assert restored(tmp_path, data_root="there", allow=TOYS).data.root == "there"
    config = runs.read_config(tmp_path)
    config["data"]["fingerprint"] = "b"
    runs.begin(tmp_path, config)
    with pytest.raises(checkpoint.CheckpointError, match=r"other data: their fingerprint was a, .* at hand is b; give"):
        restored(tmp_path, allow=TOYS)
    restored(tmp_path, "best_on_test", allow=TOYS)  # whose file does not say which data; the report does
    (tmp_path / "report.json").write_text(json.dumps({"data": {"fingerprint": "a"}}))
    with pytest.raises(checkpoint.CheckpointError, match="on other data: their fingerprint was a"):
        restored(tmp_path, "best_on_test", allow=TOYS)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        restored(tmp_path / "nowhere")
    made(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint best; there are .*, last, untrained"):
        restored(tmp_path, "best", allow=TOYS)
    with pytest.raises(ValueError, match="device"):
        restored(tmp_path, device="abacus", allow=TOYS)
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"PK")
    with pytest.raises(checkpoint.CheckpointError, match=r"last\.pt is truncated"):
        restored(tmp_path, allow=TOYS)


def test_records_are_read_by_step(tmp_path):
    text = (
        '{"step": 0, "epoch": 0}\n{"step": 3, "a": 0.5}\n{"step": 6, "a": null}\n{"step": 9, "a": 1}\n{"step": 12, "a'
    )
    (tmp_path / "metrics.jsonl").write_text(text)
    assert recorded(tmp_path, "a") == {3: 0.5, 9: 1.0}
    assert recorded(tmp_path, "b") == {}
    (tmp_path / "metrics.jsonl").write_text("none\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is not JSON"):
        recorded(tmp_path, "a")
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl is missing"):
        recorded(tmp_path / "elsewhere", "a")


def test_runs_are_named_by_what_they_differ_in():
    first = {"seed": 0, "workers": 4, "loss": {"margin": 0.0, "weight": "log"}}
    second = {"seed": 0, "workers": 0, "loss": {"margin": 0.02, "weight": "log"}}
    third = {"seed": 1, "loss": {"margin": 0.02}}
    assert names_of([first, second]) == ["margin=0", "margin=0.02"]
    assert names_of([second, third]) == ["seed=0, weight=log", "seed=1, weight=None"]
    assert names_of([first, first]) == ["run 1", "run 2"]
    assert names_of([first]) == ["run 1"]
    assert names_of([dict.fromkeys("abcd", 0), dict.fromkeys("abcd", 1)]) == ["run 1", "run 2"]
