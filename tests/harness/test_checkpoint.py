import errno
import functools
import math
import os
from pathlib import Path

import pytest
import torch
from killing import same
from torch import nn
from toy import InTurn, Line, PointData, Points, SquaredError, closeness, fit, lines, scheduled

from harness import checkpoint
from harness.checkpoint import CheckpointError
from harness.data.loading import EpochLoader
from harness.files import WriteError
from harness.train.trainer import TrainingStoppedError


def test_what_is_saved_comes_back(tmp_path):
    state = {"weight": torch.arange(3.0), "epoch": 2, "best": {"test": 0.5}}
    checkpoint.save(tmp_path / "a" / "last.pt", state)
    back = checkpoint.load(tmp_path / "a" / "last.pt")
    assert torch.equal(back.pop("weight"), state.pop("weight"))
    assert back == state


def test_a_full_disk_leaves_the_checkpoint_before_unharmed(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    def full(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match=r"No space left on device.*last.pt|last.pt.*No space left on device"):
        checkpoint.save(path, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_disk_that_is_really_full_is_reported(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead of the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(WriteError, match="could not write"):
            checkpoint.save(path, {"weight": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert checkpoint.load(path) == {"epoch": 1}


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weight": torch.zeros(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(CheckpointError, match=r"last.pt is truncated or not a checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"model": functools.partial(print, "run")}, path)
    with pytest.raises(CheckpointError, match=r"evil.pt is truncated or not a checkpoint"):
        checkpoint.load(path)


def test_something_else_than_a_dict_is_refused(tmp_path):
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(CheckpointError, match="holds a Tensor, wanted the dict"):
        checkpoint.load(tmp_path / "tensor.pt")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*none.pt"):
        checkpoint.load(tmp_path / "none.pt")


def broken(path):
    path.write_bytes(path.read_bytes()[:200])


def test_the_one_before_is_there_when_the_last_is_damaged_or_gone(tmp_path):
    """A good one is never replaced by a damaged one, and both good ones are kept as soon as there are two again."""
    last, previous = tmp_path / checkpoint.LAST, tmp_path / checkpoint.PREVIOUS
    for epoch in range(3):
        checkpoint.save(last, {"epoch": epoch}, previous)
    assert [checkpoint.load(path)["epoch"] for path in (last, previous)] == [2, 1]
    assert checkpoint.newest(tmp_path) == (last, {"epoch": 2}, None)
    broken(last)
    path, state, fault = checkpoint.newest(tmp_path)
    assert (path, state) == (previous, {"epoch": 1})
    assert str(fault).startswith(f"{last} is truncated")
    broken(previous)
    with pytest.raises(CheckpointError, match=r"last.pt is truncated or not a checkpoint"):
        checkpoint.newest(tmp_path)
    checkpoint.save(previous, {"epoch": 1})
    last.unlink()
    assert checkpoint.is_there(tmp_path)
    assert checkpoint.newest(tmp_path) == (previous, {"epoch": 1}, None)
    previous.unlink()
    assert not checkpoint.is_there(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*last.pt"):
        checkpoint.newest(tmp_path)


def unsupported(*given):
    raise PermissionError(errno.EPERM, "Operation not permitted")


MOMENTS = [(True, "unlink", 1), (True, "link", 1), (True, "replace", 1)]
MOMENTS += [(False, "unlink", 1), (False, "replace", 1), (False, "replace", 2)]  # a file system without links


@pytest.mark.parametrize(("links", "call", "nth"), MOMENTS)
def test_at_every_moment_of_a_save_one_good_checkpoint_is_there(tmp_path, monkeypatch, links, call, nth):
    """Ended before each call that changes a name; without links there is one at which only the older name is there."""
    last, previous = tmp_path / checkpoint.LAST, tmp_path / checkpoint.PREVIOUS
    for epoch in range(2):
        checkpoint.save(last, {"epoch": epoch}, previous)
    place = Path if call == "unlink" else os
    real, calls = getattr(place, call), []

    def killed(*given, **named):
        calls.append(given)
        if len(calls) >= nth:
            raise KilledError
        return real(*given, **named)

    if not links:
        monkeypatch.setattr(os, "link", unsupported)
    monkeypatch.setattr(place, call, killed)
    with pytest.raises(KilledError):
        checkpoint.save(last, {"epoch": 2}, previous)
    monkeypatch.undo()
    assert last.exists() == (nth == 1)
    assert checkpoint.newest(tmp_path).state["epoch"] == 1
    checkpoint.save(last, {"epoch": 3}, previous)
    assert checkpoint.newest(tmp_path).state["epoch"] == 3


def test_a_file_system_without_links_keeps_the_one_before_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", unsupported)
    last, previous = tmp_path / checkpoint.LAST, tmp_path / checkpoint.PREVIOUS
    for epoch in range(3):
        checkpoint.save(last, {"epoch": epoch}, previous)
    assert [checkpoint.load(path)["epoch"] for path in (last, previous)] == [2, 1]


class KilledError(Exception):
    pass


class DiesInEpoch(EpochLoader):
    """Stops in the middle of the second of its epochs, as a power cut would."""

    def __iter__(self):
        for i, batch in enumerate(super().__iter__()):
            if self.batches.epoch == 2 and i == 2:
                raise KilledError
            yield batch


FP16 = {"precision": "fp16", "clip_norm": 1.0, "accumulate": 3, "loss": SquaredError(8.0)}  # which overflows at first

WARMED = {"schedule": scheduled("cosine_warmup", epochs=4, warmup_epochs=1.5)}  # killed in epoch 2
AVERAGED = {"average": 0.9, "chunk": 1}
CYCLE = {"schedule": scheduled("one_cycle", epochs=4), "accumulate": 3}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # fp16 may skip all steps of epoch 1
@pytest.mark.parametrize("settings", [{"precision": "fp32"}, {"precision": "bf16"}, FP16, WARMED, CYCLE, AVERAGED])
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path, settings):
    options = {"epochs": 4, "log_every": 1, **settings}
    whole, expected = fit(tmp_path / "whole", **options)
    data = PointData()
    data.train = DiesInEpoch(Points(), InTurn())
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", data=data, **options)
    results, resumed = fit(tmp_path / "killed", resume=True, **options)
    assert torch.equal(expected.linear.weight, resumed.linear.weight)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    for name in results.keys() - {"seconds", "peak_memory"}:
        assert results[name] == whole[name]
    assert {"last", "best_on_test", "best_on_validation", "untrained"} <= results.keys() == whole.keys()
    if settings is AVERAGED:
        kept = [checkpoint.load(tmp_path / run / "checkpoints" / "last_average.pt") for run in ("whole", "killed")]
        assert kept[0]["epoch"] == 4
        assert torch.equal(*(one["model"]["linear.weight"] for one in kept))
    scalers = [checkpoint.load(tmp_path / run / "checkpoints" / "last.pt")["scaler"] for run in ("whole", "killed")]
    assert scalers[0] == scalers[1]
    if settings is FP16:  # it has moved on from where it begins, so that forgetting it would show
        assert 1 < scalers[0]["scale"] < 2**16
        assert scalers[0]["_growth_tracker"] > 0


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_goes_on_from_the_one_before_a_damaged_checkpoint(tmp_path, gone, caplog):
    """It is told, repeats an epoch, and ends with the same record, the same best and the same two checkpoints."""
    options = {"epochs": 4, "log_every": 1, "average": 0.9}
    whole, _ = fit(tmp_path / "whole", **options)
    fit(tmp_path / "parts", **{**options, "epochs": 3})
    folder = tmp_path / "parts" / "checkpoints"
    if gone:
        (folder / "last.pt").unlink()
    else:
        broken(folder / "last.pt")
    parts, _ = fit(tmp_path / "parts", resume=True, **options)
    warned = [
        record.getMessage()
        for record in caplog.records
        if record.name == "harness.train.training" and record.levelname == "WARNING"
    ]
    wanted = [f"{folder / 'last.pt'} is truncated or not a checkpoint ("]
    assert [text.partition("(")[0] + "(" for text in warned] == ([] if gone else wanted)
    assert all(text.endswith("); goes on from previous.pt, the end of epoch 2") for text in warned)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert {**parts, "seconds": 0, "peak_memory": 0} == {**whole, "seconds": 0, "peak_memory": 0}
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole" / "checkpoints").iterdir())
    for name in names:
        assert same(*(checkpoint.load(tmp_path / run / "checkpoints" / name) for run in ("whole", "parts"))), name


def test_the_good_one_stays_until_another_is_written_over_the_damaged(tmp_path):
    fit(tmp_path, epochs=3)
    folder = tmp_path / "checkpoints"
    broken(folder / "last.pt")
    fit(tmp_path, epochs=3, resume=True)
    assert [checkpoint.load(folder / name)["epoch"] for name in ("last.pt", "previous.pt")] == [3, 2]


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
        if not output.isfinite().all():
            raise ValueError("NaN has no rank")
        return {"loss": output.sum() * (1.0 if self.left >= 0 else math.nan)}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    """Looked at after the step that follows it, which the weights that it broke have stopped: it is the one named."""
    with pytest.raises(TrainingStoppedError, match=r"became nan in epoch 2, step 6; .*end of epoch 1"):
        fit(tmp_path, loss=GrowsToNan(good_calls=5))
    kept = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert kept["epoch"] == 1
    assert torch.isfinite(kept["model"]["linear.weight"]).all()


class BreaksTheGradient(SquaredError):
    """A loss that stays finite; its gradient at one call does not."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def forward(self, output, batch):
        self.left -= 1
        numbers = super().forward(output, batch)
        if self.left == 0:
            numbers["loss"] = numbers["loss"] + (0 * output).sqrt().sum()  # whose derivative is 0 / 0
        return numbers


@pytest.mark.parametrize("evaluate_every", [1, 3])
def test_weights_that_are_not_finite_are_not_saved_over_good_ones(tmp_path, evaluate_every):
    """The last of the 4 steps of epoch 2 breaks them, when no later loss of the epoch can show it."""
    with pytest.raises(TrainingStoppedError, match=r"linear.weight of the model .* epoch 2, step 8; .*end of epoch 1"):
        fit(tmp_path, loss=BreaksTheGradient(call=8), evaluate_every=evaluate_every)
    kept = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    assert kept["epoch"] == 1
    assert torch.isfinite(kept["model"]["linear.weight"]).all()


class Refuses(SquaredError):
    """As ranking losses do: NaN has no rank."""

    def forward(self, output, batch):
        if not output["scores"][0].isfinite().all() or self.strict:
            raise ValueError("scores hold NaN and cannot be ranked")
        return super().forward(output["scores"][0], batch)

    strict = False


class Overflows(Line):
    """From the sixth training batch on, when told to."""

    left = 5

    def forward(self, batch):
        y = super().forward(batch)
        if not self.training:
            return y
        self.left -= 1
        return {"scores": [y if self.left >= 0 else y / 0]}


def test_a_loss_that_refuses_output_that_is_not_finite_stops_with_the_same_advice(tmp_path):
    with pytest.raises(TrainingStoppedError, match=r"output .* epoch 2, step 6; .*end of epoch 1; try a lower") as stop:
        fit(tmp_path, model=Overflows(), loss=Refuses())
    assert "cannot be ranked" in str(stop.value.__cause__)


def test_a_loss_that_refuses_finite_output_is_heard_itself(tmp_path):
    loss = Refuses()
    loss.strict = True
    with pytest.raises(ValueError, match="scores hold NaN and cannot be ranked"):
        fit(tmp_path, model=Overflows(), loss=loss)


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    fit(tmp_path, epochs=1, data=PointData(fingerprint="aaa"))
    with pytest.raises(CheckpointError, match=r"last.pt was saved on other data: their fingerprint was aaa, .* is bbb"):
        fit(tmp_path, epochs=2, data=PointData(fingerprint="bbb"), resume=True)
    results, _ = fit(tmp_path, epochs=2, data=PointData(fingerprint="aaa"), resume=True)
    assert results["last"]["epoch"] == 2


def test_resuming_with_another_model_names_what_differs(tmp_path):
    fit(tmp_path, epochs=1)

    class Other(Line):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(2, 2)

    with pytest.raises(CheckpointError, match=r"another model: 2 entries differ: extra.bias is missing, extra.weight"):
        fit(tmp_path, epochs=2, resume=True, model=Other())


def test_resuming_with_another_optimizer_is_said(tmp_path):
    fit(tmp_path, epochs=1)

    class TrainedScale(SquaredError):
        """Trains a number that it does not save: one group more, and the same state_dict."""

        def parameter_groups(self):
            return [{"params": [nn.Parameter(torch.zeros(1))]}]

    with pytest.raises(CheckpointError, match=r"last.pt was saved by another optimizer: loaded state dict has a diff"):
        fit(tmp_path, epochs=2, resume=True, loss=TrainedScale())


def test_a_bit_turned_in_the_weights_is_found(tmp_path):
    """torch reads other numbers then, and says nothing."""
    path, weight = tmp_path / "last.pt", torch.linspace(0, 1, 1000)
    checkpoint.save(path, {"epoch": 3, "model": {"weight": weight}})
    whole = path.read_bytes()
    at = whole.index(weight.numpy().tobytes()) + 2002
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["weight"], weight)
    with pytest.raises(CheckpointError, match=r"last.pt is truncated or not a checkpoint \(Bad CRC-32 for file"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match=r"last.pt is damaged \(Bad CRC-32 .*move it away"):
        checkpoint.check(path)
    assert checkpoint.load(path, mapped=True)["epoch"] == 3  # who looks at no tensor reads none


def test_a_bit_turned_in_the_plain_values_is_found_whoever_asks(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"results": {"recall@1": 0.612}, "weight": torch.zeros(10)})
    whole = path.read_bytes()
    at = whole.index(b"recall@1") + 20
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for mapped in (False, True):
        with pytest.raises(CheckpointError, match=r"Bad CRC-32"):
            checkpoint.load(path, mapped)


@pytest.mark.parametrize("file", ["best_on_test.pt", "../metrics.jsonl"])
def test_what_a_resumed_run_could_not_make_again_is_looked_at_first(tmp_path, file):
    fit(tmp_path, epochs=2)
    path = tmp_path / "checkpoints" / file
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"epoch": 1,', b'"epoch": 9,') if path.suffix == ".jsonl" else whole[:-9])
    error, said = (CheckpointError, "is damaged") if path.suffix == ".pt" else (ValueError, "up to step 8 it is not")
    with pytest.raises(error, match=rf"{path.name} {said}|{path.name} is damaged: {said}"):
        fit(tmp_path, epochs=3, resume=True)
    path.unlink()
    assert fit(tmp_path, epochs=3, resume=True)[0]["last"]["epoch"] == 3


def test_a_checkpoint_of_before_there_were_sums_of_the_record_goes_on(tmp_path):
    fit(tmp_path, epochs=2)
    last = tmp_path / "checkpoints" / "last.pt"
    state = checkpoint.load(last)
    del state["record"]
    checkpoint.save(last, state)
    before = lines(tmp_path)
    fit(tmp_path, epochs=3, resume=True)
    assert lines(tmp_path)[: len(before)] == before
