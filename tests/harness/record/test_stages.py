import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from harness import checkpoint
from harness.record import stages


class TwoParts(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, 1)


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    model = TwoParts()
    checkpoint.save(tmp_path / "best.pt", {"model": model.state_dict(), "epoch": 3})
    return model, tmp_path / "best.pt"


def test_all_but_the_head_is_taken_over_and_frozen(trained):
    source, path = trained
    torch.manual_seed(1)
    model = TwoParts()
    fresh = model.head.weight.clone()
    stages.take_over(model, path, ["head"])
    assert torch.equal(model.encoder[0].weight, source.encoder[0].weight)
    assert torch.equal(model.head.weight, fresh)
    assert not torch.equal(fresh, source.head.weight)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]


def test_another_model_or_an_unknown_part_is_refused(trained):
    _, path = trained
    with pytest.raises(checkpoint.CheckpointError, match=r"another model: encoder\.0\.weight is missing"):
        stages.take_over(TwoParts(width=4), path, ["head"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"retrain": ["tail"]}, "no part tail; it has encoder, head"),
        ({"checkpoint": "best_on_dev"}, "checkpoint=best_on_dev: there are last, best_on_validation, best_on_test"),
    ],
)
def test_what_the_second_stage_could_not_do_is_refused_before_the_first(changes, sentence):
    config = OmegaConf.create({"first_stage": {"retrain": ["head"], "checkpoint": "last", "changes": None, **changes}})
    with pytest.raises(ValueError, match=sentence):
        stages.check(TwoParts(), config, ["validation", "test"])


def test_the_second_stage_may_take_over_averaged_weights_if_the_first_leaves_them():
    first = {"retrain": ["head"], "checkpoint": "last_average", "changes": {"trainer": {"average": 0.9}}}
    stages.check(TwoParts(), OmegaConf.create({"first_stage": first}), ["test"])
    with pytest.raises(ValueError, match="there are last, best_on_test"):
        stages.check(TwoParts(), OmegaConf.create({"first_stage": first | {"changes": None}}), ["test"])


def test_the_first_stage_differs_where_it_says(tmp_path):
    config = OmegaConf.create(
        {
            "first_stage": {"changes": {"weighting": {"kind": "none"}, "fds": None}, "retrain": ["head"]},
            "weighting": {"kind": "inverse"},
            "fds": {"size": 5},
            "model": {"smoothing": "${fds}"},
            "resume": "somewhere",
        }
    )
    first = stages.first_stage(config, tmp_path)
    assert first.weighting.kind == "none"
    assert first.model.smoothing is None
    assert first.first_stage is None
    assert first.resume is None
    assert config.weighting.kind == "inverse"
    checkpoint.save(tmp_path / "checkpoints" / "last.pt", {})
    assert stages.first_stage(config, tmp_path).resume == str(tmp_path)
