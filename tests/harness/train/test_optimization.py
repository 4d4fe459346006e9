"""How the learning rate goes: torch's own curves, by steps or epochs, after a warm-up."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR
from toy import HALVED, fit, lines, scheduled

from harness.train.optimization import Schedule, build_scheduler


def rates_of(partial, steps, batches=range(10), accumulate=1):
    """Those of each step, relative to the rate of its group, of which one learns at half the rate."""
    layers = nn.Linear(1, 1), nn.Linear(1, 1)
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (0.2, 0.1), strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    scheduler = build_scheduler(partial, optimizer, batches, accumulate)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / 0.2)
        assert optimizer.param_groups[1]["lr"] / 0.1 == pytest.approx(found[-1])
        optimizer.step()
        scheduler.step()
    return found


def test_a_cosine_after_a_warm_up_by_steps():
    """Three epochs of 10 batches, of which 3 make a step: 12 steps, 4 of them warm up from a hundredth."""
    found = rates_of(scheduled("cosine_warmup", epochs=3), steps=13, accumulate=3)
    rising = [0.01 + 0.99 * step / 4 for step in range(4)]
    falling = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)]
    assert found == pytest.approx(rising + falling)


def test_a_straight_line_after_a_warm_up_told_in_steps():
    found = rates_of(scheduled("linear_warmup", epochs=1, warmup_epochs=0, warmup_steps=2, warmup_start=0.5), steps=11)
    assert found == pytest.approx([0.5, 0.75, *(1 - step / 8 for step in range(9))], abs=1e-12)


def test_one_cycle_rises_to_the_rate_of_each_group_and_ends_with_the_run():
    found = rates_of(scheduled("one_cycle", epochs=2), steps=20)
    assert found[0] == pytest.approx(1 / 25)
    assert max(found) == pytest.approx(found[5]) == pytest.approx(1.0)  # 0.3 of 20 steps, the first being number 0
    assert found[-1] == pytest.approx(1 / 25 / 10_000)


def test_any_scheduler_goes_by_epochs_or_by_steps_with_lengths_of_its_own():
    decay = functools.partial(ExponentialLR, gamma=0.5)
    by_epoch = functools.partial(Schedule, scheduler=decay, interval="epoch", warmup_epochs=2, warmup_start=0.5)
    assert rates_of(by_epoch, steps=5, batches=iter(())) == pytest.approx([0.5, 0.75, 1, 0.5, 0.25])
    assert rates_of(functools.partial(Schedule, scheduler=decay), steps=3) == pytest.approx([1, 0.5, 0.25])


def test_the_record_of_a_run_by_steps_has_the_rate_of_each_and_their_mean(tmp_path):
    fit(tmp_path, epochs=1, schedule=scheduled("linear_warmup", epochs=1, warmup_epochs=0.5), log_every=1)
    record = lines(tmp_path)
    by_step = [line["step/learning_rate/Line"] for line in record if "step/loss" in line]
    assert by_step == pytest.approx([0.1 * factor for factor in (0.01, 0.505, 1, 0.5)])
    assert record[-1]["learning_rate/Line"] == pytest.approx(sum(by_step) / 4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"interval": "batch"}, "scheduler.interval must be step or epoch, got 'batch'"),
        ({"warmup_start": 0}, r"warmup_start must lie in \(0, 1\], got 0"),
        ({"warmup_steps": 3}, "warmup_steps needs scheduler.interval=step and scheduler.warmup_epochs=0"),
        ({"warmup_epochs": -1}, "must be at least 0, got -10"),
        ({"warmup_epochs": 0.5, "interval": "epoch"}, "warmup_epochs=0.5 is not whole: set scheduler.interval=step"),
        ({"warmup_epochs": 2.5}, "a warm-up of 25 steps is longer than the run, 20"),
        ({"epochs": None}, "scheduler.length=T_max needs scheduler.epochs"),
    ],
)
def test_what_makes_no_schedule_is_told(settings, says):
    with pytest.raises(ValueError, match=says):
        rates_of(scheduled("cosine_warmup", **{"epochs": 2, **settings}), steps=0)


def test_a_cycle_takes_no_other_warm_up_and_steps_need_a_length():
    with pytest.raises(ValueError, match="a cycle warms up by itself"):
        rates_of(scheduled("one_cycle", epochs=2, warmup_epochs=1), steps=0)
    with pytest.raises(ValueError, match="does not tell its length"):
        rates_of(functools.partial(Schedule, scheduler=functools.partial(ConstantLR)), 0, batches=iter(()))
    assert rates_of(HALVED, steps=3, batches=iter(())) == pytest.approx([1, 1, 0.5])
