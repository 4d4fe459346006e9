import functools
import json
import math

import pytest
import torch
from engine_toy import InTurn, Line, PointData, Points, SquaredError, closeness
from torch import nn

from engine.checkpoint import CheckpointError
from engine.data import EpochLoader
from engine.optimization import build_optimizer
from engine.tracking import Tracker
from engine.trainer import Trainer, TrainingStoppedError


def fit(folder, epochs=3, resume=False, data=None, model=None, loss=None, **settings):
    torch.manual_seed(0)
    model, loss = model or Line(), loss or SquaredError()
    optimizer = build_optimizer(functools.partial(torch.optim.Adam, lr=0.1), model, loss)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2], 0.5)
    trainer = Trainer(epochs, monitor="closeness", device="cpu", **settings)
    tracker = Tracker(folder, {}, wandb="disabled")
    results = trainer.fit(model, loss, data or PointData(), closeness, optimizer, scheduler, tracker, resume)
    return results, model


def lines(folder):
    """The record without the one thing that may differ, time."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if not k.startswith("seconds")} for record in records]


def test_training_brings_the_line_closer(tmp_path):
    results, model = fit(tmp_path, epochs=40)
    untrained, last = results["untrained"]["metrics"], results["last"]["metrics"]
    assert last["test/closeness"] > untrained["test/closeness"]
    # With dropout d in {0, 1/0.8} the best weight is 3 E[d] / E[d^2] = 3 * 0.8.
    assert model.linear.weight.item() == pytest.approx(3 * 0.8, abs=0.2)


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


class KilledError(Exception):
    pass


class DiesInEpoch(EpochLoader):
    """Stops in the middle of the second of its epochs, as a power cut would."""

    def __iter__(self):
        for i, batch in enumerate(super().__iter__()):
            if self.batches.epoch == 2 and i == 2:
                raise KilledError
            yield batch


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path, precision):
    options = {"epochs": 4, "precision": precision, "log_every": 1}
    whole, expected = fit(tmp_path / "whole", **options)
    data = PointData()
    data.train = DiesInEpoch(Points(), InTurn())
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", data=data, **options)
    results, resumed = fit(tmp_path / "killed", resume=True, **options)
    assert torch.equal(expected.linear.weight, resumed.linear.weight)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    for name in ("last", "best_on_test", "best_on_validation", "untrained"):
        assert results[name] == whole[name]


def test_best_of_each_split_is_kept_with_its_model(tmp_path):
    results, _ = fit(tmp_path, epochs=5)
    for split in ("validation", "test"):
        kept = torch.load(tmp_path / "checkpoints" / f"best_on_{split}.pt", weights_only=True)
        best = results[f"best_on_{split}"]
        model = Line()
        model.load_state_dict(kept["model"])
        assert kept["epoch"] == best["epoch"]
        point = PointData().evaluation[split]
        assert closeness(model.eval(), point)["closeness"] == pytest.approx(best["metrics"][f"{split}/closeness"])


class GrowsToNan(SquaredError):
    def __init__(self, good_calls):
        super().__init__()
        self.left = good_calls

    def forward(self, output, batch):
        self.left -= 1
        return {"loss": output.sum() * (1.0 if self.left >= 0 else math.nan)}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingStoppedError, match=r"became nan in epoch 2, step 6; .*end of epoch 1"):
        fit(tmp_path, loss=GrowsToNan(good_calls=5))
    kept = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert kept["epoch"] == 1
    assert torch.isfinite(kept["model"]["linear.weight"]).all()


def test_accumulated_gradients_are_the_mean_of_the_micro_batches(tmp_path):
    """One epoch of 4 micro-batches in one SGD step moves the weight by the mean of the four gradients."""
    model = Line()
    model.dropout.p = 0.0
    start = model.linear.weight.item()
    x = [Points()[0, i]["x"].item() for i in range(8)]
    y = [Points()[0, i]["y"].item() for i in range(8)]
    slope = sum(2 * xi * (start * xi - yi) for xi, yi in zip(x, y, strict=True)) / 8
    optimizer = build_optimizer(functools.partial(torch.optim.SGD, lr=0.01), model)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    trainer = Trainer(1, monitor="closeness", accumulate=4, device="cpu")
    trainer.fit(model, SquaredError(), PointData(), closeness, optimizer, scheduler, Tracker(tmp_path, {}, "disabled"))
    assert model.linear.weight.item() == pytest.approx(start - 0.01 * slope, abs=1e-6)


def test_clipping_bounds_the_step(tmp_path):
    fit(tmp_path, epochs=1, clip_norm=1e-3, log_every=1)
    assert all(line["step/gradient_norm"] > 0 for line in lines(tmp_path) if "step/loss" in line)


def test_end_of_epoch_hook_is_called_with_the_epochs_done(tmp_path):
    class CountsEpochs(SquaredError):
        seen = ()

        def end_of_epoch(self, model, data, epoch):
            self.seen += (epoch,)

    loss = CountsEpochs()
    fit(tmp_path, loss=loss, epochs=3)
    assert loss.seen == (1, 2, 3)


def test_pictures_of_every_split_are_asked_for_at_the_end(tmp_path):
    class WithPictures:
        asked = ()

        def __call__(self, model, loader):
            return closeness(model, loader)

        def pictures(self, model, loader, folder, split):
            assert folder.is_dir()
            self.asked += ((split, *loader),)
            return {}

    metrics = WithPictures()
    model = Line()
    optimizer = build_optimizer(functools.partial(torch.optim.SGD, lr=0.01), model)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    tracker = Tracker(tmp_path, {}, "disabled")
    Trainer(1, monitor="closeness").fit(model, SquaredError(), PointData(), metrics, optimizer, scheduler, tracker)
    assert metrics.asked == (("validation", 2.0), ("test", 5.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "trainer.epochs must be at least 1, got 0"),
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
    with pytest.raises(ValueError, match=r"trainer.monitor=recall@1 is no metric; there are validation/closeness"):
        trainer.fit(model, SquaredError(), PointData(), closeness, optimizer, scheduler, tracker)


def test_resuming_with_another_model_names_what_differs(tmp_path):
    fit(tmp_path, epochs=1)

    class Other(Line):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(2, 2)

    with pytest.raises(CheckpointError, match=r"another model: 2 entries differ, first extra.bias, extra.weight"):
        fit(tmp_path, epochs=2, resume=True, model=Other())


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
