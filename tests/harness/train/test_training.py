import functools
import itertools
import json
import time
from collections import Counter

import pytest
import torch

from harness.device import choose_device, to_device
from harness.train.tracking import Means, Unread
from tests.harness.host_reads import HostReads
from tests.harness.toy import Line, PointData, SquaredError, closeness, fit, lines


class TwoLines(PointData):
    """Eight steps an epoch, without the loader, which may read as it likes."""

    def __init__(self):
        super().__init__()
        self.train = [{"x": torch.tensor([[k / 8], [1.0]]), "y": torch.tensor([[k / 3], [3.0]])} for k in range(8)]


FUSED = functools.partial(torch.optim.Adam, lr=0.1, fused=True)


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({"clip_norm": 1.0, "average": 0.9}, 0),
        ({"accumulate": 2, "chunk": 1}, 0),
        ({"precision": "bf16", "matmul": "high"}, 0),
        ({"precision": "fp16", "clip_norm": 1.0, "optimizer": FUSED}, 4),  # the state of the scaler, with checkpoints
    ],
    ids=["clipped and averaged", "accumulated chunks", "bf16", "fp16 fused"],
)
def test_a_step_waits_for_the_device_only_where_a_line_is_written(tmp_path, settings, saved):
    """Once for a line and once at the end of an epoch, where the weights are looked at too."""
    with HostReads() as reads:
        fit(tmp_path, epochs=2, data=TwoLines(), log_every=3, **settings)
    found = Counter(place.split(":")[0] for place in reads.found if not place.startswith("tests/"))
    written = sum("step/loss" in line for line in lines(tmp_path))
    assert written == 2 * (8 // settings.get("accumulate", 1) // 3)
    assert found == {"harness/train/tracking.py": written + 2, "harness/train/training.py": 2 + saved}


def test_numbers_that_are_read_late_have_the_means_of_those_read_at_once():
    draws = torch.randn(7, generator=torch.Generator().manual_seed(0))
    late, at_once, unread = Means(), Means(), Unread()
    weight = torch.zeros(())
    for number, draw in enumerate(draws):
        weight.copy_(draw)  # as an optimizer moves a temperature that the loss names
        named = {"loss": draw, "half": draw.bfloat16()[None], "exact": draw.double() / 3, "given": 0.1}
        unread.add(number, named | {"loss": weight})
        at_once.add({name: float(value) for name, value in named.items()})
    read = unread.read()
    assert [step for step, _ in read] == list(range(7))
    assert unread.read() == []
    for _, numbers in read:
        late.add(numbers)
    assert late.values() == at_once.values()


class Watched(Line):
    """Notes how products are computed and in what precision, in training and in evaluation."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.seen = set()

    def forward(self, batch):
        y = super().forward(batch)
        self.seen.add((self.training, how(), y.dtype))
        return y


def how():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


class WatchedError(SquaredError):
    def forward(self, output, batch):
        self.seen = how()
        return super().forward(output, batch)


@pytest.mark.parametrize(
    ("given", "model_has", "loss_has"),
    [
        (None, ("highest", True), ("highest", True)),
        ("highest", ("highest", False), ("highest", False)),
        ("high", ("high", True), ("highest", False)),
        ("medium", ("medium", True), ("highest", False)),
    ],
)
def test_products_are_as_exact_as_asked_in_training_and_nowhere_else(tmp_path, given, model_has, loss_has):
    before, model, loss = how(), Watched(), WatchedError()
    fit(tmp_path, epochs=1, model=model, loss=loss, matmul=given)
    assert how() == before == ("highest", True)
    assert model.seen == {(True, model_has, torch.float32), (False, before, torch.float32)}
    assert loss.seen == loss_has


def test_an_evaluation_may_compute_in_half_precision_and_hands_on_single(tmp_path):
    kinds = set()

    def metrics(model, loader):
        kinds.add(model({"x": torch.tensor(loader)}).dtype)
        return closeness(model, loader)

    model = Watched()
    fit(tmp_path, epochs=1, model=model, metrics=metrics, evaluation_precision="bf16")
    assert kinds == {torch.float32}
    assert {(training, dtype) for training, _, dtype in model.seen} == {(True, torch.float32), (False, torch.bfloat16)}
    assert "forward" not in vars(model)


def test_auto_takes_apples_gpu_where_there_is_no_other(monkeypatch):
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"trainer.device=mps cannot be used here"):  # by this build of torch
        choose_device("auto")


@pytest.mark.parametrize(("kind", "waits"), [("cpu", True), ("meta", False)])
def test_what_is_copied_from_a_device_has_arrived(monkeypatch, kind, waits):
    """A copy to pageable memory that nobody waits for may still be on its way when it is read."""
    given, plain = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda *args, **named: given.append(named) or plain(*args, **named))
    to_device({"x": torch.zeros(1)}, torch.device(kind))
    assert given == [{"non_blocking": not waits}]


def test_a_clock_that_jumps_changes_no_number_and_no_second(tmp_path, monkeypatch):
    """By a day and by a year, in both directions, at every look at it: durations are taken from another clock."""
    whole, _ = fit(tmp_path / "whole", epochs=3)
    days, now = itertools.cycle([0, -365, 365, -1, 1]), time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86400 * next(days))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    fit(tmp_path / "jumping", epochs=2)
    results, _ = fit(tmp_path / "jumping", epochs=3, resume=True)
    clocked = ("seconds", "peak_memory")
    assert {**results, **dict.fromkeys(clocked)} == {**whole, **dict.fromkeys(clocked)}
    assert lines(tmp_path / "jumping") == lines(tmp_path / "whole")
    told = [json.loads(line) for line in (tmp_path / "jumping" / "metrics.jsonl").read_text().splitlines()]
    seconds = [results["seconds"], *(line[key] for line in told for key in line if key.startswith("seconds"))]
    assert len(seconds) > 6
    assert all(0 <= one < 60 for one in seconds)
