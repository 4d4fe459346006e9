"""The moving average of the weights: its value, its buffers, its place in the record."""

import functools

import pytest
import torch
from torch import nn
from toy import Line, PointData, SquaredError, closeness, fit, lines

from harness import checkpoint
from harness.train.average import Average


class WatchedSGD(torch.optim.SGD):
    """Notes the weight after each step."""

    def __init__(self, groups, lr):
        super().__init__(groups, lr)
        self.seen = [self.param_groups[0]["params"][0].item()]
        self.register_step_post_hook(lambda *_: self.seen.append(self.param_groups[0]["params"][0].item()))


def kept(folder, name):
    model = Line()
    model.load_state_dict(checkpoint.load(folder / "checkpoints" / f"{name}.pt")["model"])
    return model.eval()


def test_a_run_keeps_the_average_of_the_weights_of_every_step(tmp_path):
    """8 batches, 3 to a step: 6 steps, after 2 epochs; the decay is 2/11, 3/12, ... until it is 0.4."""
    made = []
    watched = functools.partial(lambda groups, lr: made.append(WatchedSGD(groups, lr)) or made[0], lr=0.1)
    fit(tmp_path, epochs=3, average=0.4, accumulate=3, optimizer=watched)
    average, *weights = made[0].seen
    assert len(weights) == 6
    for step, weight in enumerate(weights, start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert kept(tmp_path, "last_average").linear.weight.item() == pytest.approx(average, rel=1e-6)


def test_both_are_evaluated_recorded_and_saved_each_with_a_best_of_its_own(tmp_path, caplog):
    caplog.set_level("INFO")
    results, _ = fit(tmp_path, epochs=5, average=0.9)
    without, _ = fit(tmp_path / "without", epochs=5)
    for name in ("last", "best_on_test", "best_on_validation", "untrained"):
        assert results[name] == without[name]  # which the average leaves alone
    points = PointData().evaluation
    for name in ("last_average", "best_on_test_average", "best_on_validation_average"):
        found = {
            f"{split}/closeness": closeness(kept(tmp_path, name), point)["closeness"] for split, point in points.items()
        }
        assert results[name]["metrics"] == pytest.approx(found)
    record = [line for line in lines(tmp_path) if "test_average/closeness" in line]
    assert [line["epoch"] for line in record] == [1, 2, 3, 4, 5]
    assert record[-1]["test_average/closeness"] == results["last_average"]["metrics"]["test/closeness"]
    best = max(line["test_average/closeness"] for line in record)
    assert results["best_on_test_average"]["metrics"]["test/closeness"] == best
    assert "test_average/closeness -" in caplog.text


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.norm = nn.Linear(1, 3).requires_grad_(False), nn.BatchNorm1d(3)
        self.register_buffer("statistics", torch.full((2,), torch.nan))


def test_statistics_of_batch_norm_are_averaged_and_other_buffers_are_the_models_own():
    model = Features()
    average = Average(model, 0.5)
    for step in (20, 21):  # from which the decay is as given
        model.norm(torch.full((4, 3), 8.0 * (step - 19)))
        average.update(step)
    model.statistics = torch.tensor([1.0, 2.0])  # replaced, as at the end of an epoch
    average.finish_epoch()
    raw = 0.9 * 0.8 + 1.6  # the mean of the model itself, after 0.8
    torch.testing.assert_close(model.norm.running_mean, torch.full((3,), raw))
    torch.testing.assert_close(average.model.norm.running_mean, torch.full((3,), 0.5 * 0.4 + 0.5 * raw))
    assert average.model.norm.num_batches_tracked == 2
    assert average.model.statistics.tolist() == [1.0, 2.0]
    assert torch.equal(average.model.frozen.weight, model.frozen.weight)


def test_a_decay_that_is_none_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"trainer.average must lie in \[0, 1\), or be null, got 1"):
        fit(tmp_path, average=1, loss=SquaredError())
