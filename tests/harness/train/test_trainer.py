import functools
import re
import shutil
from collections import namedtuple

import pytest
import torch
from torch import nn
from toy import InTurn, Line, PointData, Points, SquaredError, closeness, fit, lines

from harness.data.loading import EpochLoader
from harness.device import all_finite, to_device
from harness.train.optimization import build_optimizer
from harness.train.tracking import Tracker
from harness.train.trainer import Trainer

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_training_brings_the_line_closer(tmp_path):
    results, model = fit(tmp_path, epochs=40)
    untrained, last = results["untrained"]["metrics"], results["last"]["metrics"]
    assert last["test/closeness"] > untrained["test/closeness"]
    # With dropout d in {0, 1/0.8} the best weight is 3 E[d] / E[d^2] = 3 * 0.8.
    assert model.linear.weight.item() == pytest.approx(3 * 0.8, abs=0.2)


def test_one_line_an_epoch_says_what_is_best(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path, epochs=1)
    (line,) = [record.message for record in caplog.records if record.message.startswith("epoch 1/1")]
    assert re.match(
        r"epoch 1/1  loss [\d.]+  validation/closeness -[\d.]+ \(best\)  test/closeness -[\d.]+ \(best\)", line
    )


def test_same_seed_same_numbers_and_another_seed_others(tmp_path):
    _, first = fit(tmp_path / "a", seed=1)
    _, second = fit(tmp_path / "b", seed=1)
    _, other = fit(tmp_path / "c", seed=2)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)


def test_worker_processes_change_no_number(tmp_path):
    _, alone = fit(tmp_path / "a", data=PointData(workers=0))
    _, helped = fit(tmp_path / "b", data=PointData(workers=2))
    assert torch.equal(alone.linear.weight, helped.linear.weight)


def slope(weight, micro_batches):
    """Derivative of the squared error at `weight`, averaged over some micro-batches of the first epoch."""
    points = [Points()[0, i] for batch in list(InTurn().batches(0))[micro_batches] for i in batch]
    pairs = [(point["x"].item(), point["y"].item()) for point in points]
    return sum(2 * x * (weight * x - y) for x, y in pairs) / len(pairs)


def test_accumulated_gradients_are_the_mean_of_the_micro_batches(tmp_path):
    """One epoch of 4 micro-batches in one SGD step moves the weight by the mean of the four gradients."""
    model = Line(dropout=0.0)
    start = model.linear.weight.item()
    fit(tmp_path, epochs=1, model=model, optimizer=SGD, accumulate=4)
    assert model.linear.weight.item() == pytest.approx(start - 0.1 * slope(start, slice(4)), abs=1e-6)


def test_an_incomplete_group_of_micro_batches_counts_by_its_own_size(tmp_path):
    """4 micro-batches, 3 to a step: the fourth makes a step of its own, with its whole gradient."""
    model = Line(dropout=0.0)
    start = model.linear.weight.item()
    fit(tmp_path, epochs=1, model=model, optimizer=SGD, accumulate=3, clip_norm=1e6)
    first, last = slice(3), slice(3, 4)
    between = start - 0.1 * slope(start, first)
    assert model.linear.weight.item() == pytest.approx(between - 0.1 * slope(between, last), abs=1e-6)
    norms = abs(slope(start, first)), abs(slope(between, last))
    assert lines(tmp_path)[-1]["gradient_norm"] == pytest.approx(sum(norms) / 2, rel=1e-5)


def test_clipping_bounds_the_step(tmp_path):
    moved = {}
    for norm in (1e-3, None):
        model = Line(dropout=0.0)
        nn.init.constant_(model.linear.weight, -1.0)
        fit(tmp_path / str(norm), epochs=1, model=model, optimizer=SGD, accumulate=4, clip_norm=norm)
        moved[norm] = abs(model.linear.weight.item() + 1.0)
    assert moved[1e-3] == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert moved[None] == pytest.approx(0.1 * abs(slope(-1.0, slice(4))), rel=1e-4)
    assert moved[None] > 100 * moved[1e-3]


def test_the_learning_rate_recorded_is_the_one_that_the_epoch_used(tmp_path):
    fit(tmp_path, epochs=4)  # halved after two epochs
    rates = [line["learning_rate/Line"] for line in lines(tmp_path) if "learning_rate/Line" in line]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("clip_norm", [1e-3, None])
def test_half_precision_makes_the_steps_of_full_precision(tmp_path, precision, clip_norm):
    """With clipping, accumulation and an incomplete group; the gradients must be unscaled before both.

    They are so small that fp16 does not overflow.
    """
    moved, norms = {}, {}
    for name in ("fp32", precision):
        model = Line(dropout=0.0)
        nn.init.constant_(model.linear.weight, -1.0)
        settings = {"precision": name, "accumulate": 3, "clip_norm": clip_norm}
        fit(tmp_path / name, model=model, loss=SquaredError(0.01), optimizer=SGD, **settings)
        moved[name] = model.linear.weight.item() + 1.0
        norms[name] = [line.get("gradient_norm", 0.0) for line in lines(tmp_path / name)]
    assert abs(moved["fp32"]) > 1e-4
    assert moved[precision] == pytest.approx(moved["fp32"], rel=2e-2)
    assert norms[precision] == pytest.approx(norms["fp32"], rel=2e-2)


def test_a_step_that_fp16_skips_has_no_gradient_norm(tmp_path):
    """The scale begins at 2^16, so that these gradients overflow until it has come down."""
    results, _ = fit(tmp_path, epochs=5, precision="fp16", clip_norm=1.0, log_every=1)
    steps = [line for line in lines(tmp_path) if "step/loss" in line]
    assert "step/gradient_norm" not in steps[0]
    assert any(0 < step.get("step/gradient_norm", 0) < 100 for step in steps)
    assert results["last"]["metrics"]["test/closeness"] > results["untrained"]["metrics"]["test/closeness"]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_batches_with_nothing_to_learn_change_nothing(tmp_path, precision):
    class NothingToLearn(nn.Module):
        def forward(self, output, batch):
            return {"loss": torch.zeros(())}

    model = Line()
    start = model.linear.weight.clone()
    fit(tmp_path, epochs=1, model=model, loss=NothingToLearn(), precision=precision, accumulate=3, clip_norm=1.0)
    assert torch.equal(model.linear.weight, start)


class Squares(torch.utils.data.Dataset):
    """Images of one brightness, which is to be told."""

    def __getitem__(self, key):
        y = torch.tensor([key[1] / 8])
        noise = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(key[1]))
        return {"image": y[:, None, None] + 0.1 * noise, "y": y}


class SquareData(PointData):
    def __init__(self):
        super().__init__()
        self.train = EpochLoader(Squares(), InTurn())


class Convolution(nn.Module):
    """Notes whether its images came in the channels-last format."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.formats = set()

    def forward(self, batch):
        self.formats.add(batch["image"].is_contiguous(memory_format=torch.channels_last))
        return self.body(batch["image"]).mean(dim=(2, 3))


def test_channels_last_is_another_format_and_the_same_run(tmp_path):
    trained = {}
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = Convolution()
        start = model.body[0].weight.clone()
        options = {"data": SquareData(), "model": model, "metrics": lambda model, loader: {"closeness": 0.0}}
        fit(tmp_path / str(channels_last), channels_last=channels_last, optimizer=SGD, **options)
        assert model.formats == {channels_last}
        assert model.body[0].weight.is_contiguous(memory_format=torch.channels_last) is channels_last
        assert not torch.allclose(model.body[0].weight, start, atol=1e-3)
        trained[channels_last] = model.body[0].weight
    torch.testing.assert_close(trained[True], trained[False], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++") and not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_makes_the_same_run(tmp_path):
    trained = {}
    for compiled in (False, True):
        model = Line(dropout=0.0)
        nn.init.constant_(model.linear.weight, -1.0)
        fit(tmp_path / str(compiled), model=model, optimizer=SGD, compile=compiled)
        trained[compiled] = model.linear.weight
    assert trained[False].item() > -0.9
    torch.testing.assert_close(trained[True], trained[False], rtol=1e-4, atol=1e-6)
    kept = torch.load(tmp_path / "True" / "checkpoints" / "last.pt", weights_only=True)["model"]
    assert kept.keys() == {"linear.weight"}  # so that it loads into a model that is not compiled


def test_end_of_epoch_hook_is_called_with_the_epochs_done(tmp_path):
    class CountsEpochs(SquaredError):
        seen = ()

        def end_of_epoch(self, model, data, epoch):
            self.seen += (epoch,)

    loss = CountsEpochs()
    fit(tmp_path, loss=loss, epochs=3)
    assert loss.seen == (1, 2, 3)


class Pictures:
    """Cannot draw the splits named in `broken`."""

    def __init__(self, *broken):
        self.asked, self.broken = [], broken

    def __call__(self, model, loader, folder, split):
        assert folder.is_dir()
        self.asked.append((split, *loader))
        if split in self.broken:
            raise KeyError("no such font")
        return {}


def test_pictures_of_every_split_are_asked_for_at_the_end(tmp_path, caplog):
    pictures = Pictures()
    fit(tmp_path, epochs=1, drawing=pictures)
    assert pictures.asked == [("validation", 2.0), ("test", 5.0)]
    assert "no pictures" not in caplog.text


def test_a_picture_that_fails_costs_a_warning_and_not_the_results(tmp_path, caplog):
    pictures = Pictures("validation")
    results, _ = fit(tmp_path, epochs=1, drawing=pictures)
    assert results["last"]["epoch"] == 1
    assert pictures.asked == [("validation", 2.0), ("test", 5.0)]
    assert "no pictures of validation (KeyError: 'no such font')" in caplog.text


def test_the_peak_of_memory_is_counted_anew_in_every_run(tmp_path, monkeypatch):
    devices = []
    monkeypatch.setattr("harness.train.trainer.reset_peak_memory", devices.append)
    fit(tmp_path, epochs=1)
    assert devices == [torch.device("cpu")]


Pair = namedtuple("Pair", "first second")


def test_nested_batches_keep_their_shape_on_the_way_to_the_device():
    batch = {"pair": Pair(torch.zeros(1), "words"), "list": [torch.ones(1, 2, 2, 2)], "tuple": (1, torch.ones(1))}
    moved = to_device(batch, torch.device("meta"))
    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].second == "words"
    assert [type(moved["list"]), type(moved["tuple"]), moved["tuple"][0]] == [list, tuple, 1]
    assert all(x.is_meta for x in (moved["pair"].first, moved["list"][0], moved["tuple"][1]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_found_in_any_nesting(bad):
    fine = {"a": [torch.ones(2), "words", None], "b": Pair(torch.tensor(1), {"c": (torch.zeros(0),)})}
    assert all_finite(fine)
    assert not all_finite(fine | {"d": Pair(1, [{"e": torch.tensor([0.0, bad])}])})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "trainer.epochs must be at least 1, or 0 to evaluate only, got -1"),
        ({"epochs": 1, "precision": "fp8"}, "fp32, bf16, fp16, got 'fp8'"),
        ({"epochs": 1, "clip_norm": -1.0}, "clip_norm must be positive or null, got -1.0"),
        ({"epochs": 1, "device": "warp"}, "trainer.device=warp cannot be used here"),
    ],
)
def test_bad_settings_are_refused_with_their_value(settings, message):
    with pytest.raises(ValueError, match=message):
        Trainer(**settings)


def test_an_unknown_monitor_is_answered_with_the_metrics_there_are(tmp_path):
    torch.manual_seed(0)
    model = Line()
    optimizer = build_optimizer(functools.partial(torch.optim.SGD, lr=0.1), model)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    trainer = Trainer(1, evaluate_first=False)
    tracker = Tracker(tmp_path, {}, "disabled")
    with pytest.raises(ValueError, match=r"trainer.monitor=recall@1 is no metric of validation; there are closeness"):
        trainer.fit(model, SquaredError(), PointData(), closeness, optimizer, scheduler, tracker)


def test_learning_rate_factors_and_frozen_parameters_reach_the_optimizer():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    model.parameter_groups = lambda: [
        {"params": [model.weight], "name": "embedding", "learning_rate_factor": 3.0, "weight_decay": 0.0},
        {"params": [model.bias], "name": "frozen"},
    ]
    optimizer = build_optimizer(functools.partial(torch.optim.Adam, lr=0.1, weight_decay=0.5), model)
    (group,) = optimizer.param_groups
    assert (group["name"], group["lr"], group["weight_decay"]) == ("embedding", pytest.approx(0.3), 0.0)


def test_nothing_to_train_is_said():
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(functools.partial(torch.optim.Adam, lr=0.1), nn.ReLU())
