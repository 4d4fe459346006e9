"""The trainer over several processes: every option of a step, going on with another number, each sample once.

Batches of 4, 4, 4 and 1 of 13 samples: no number of processes here shares them out evenly.
"""

import functools
import time
from datetime import timedelta
from itertools import chain

import pytest
import torch
import torch.distributed as dist
from pytorch_metric_learning.losses import ProxyAnchorLoss
from spawned import processes
from test_step import recall, regression, retrieval
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toy import fit, lines

from harness import distributed
from harness.data.loading import PADDING, EpochLoader, EvaluationShare, ShuffledBatches
from harness.train.answers import answers

SETTINGS = {
    "clipped": {"clip_norm": 0.3},
    "accumulated, the last group incomplete": {"accumulate": 3, "clip_norm": 0.5},
    "in chunks": {"accumulate": 3, "chunk": 1},
    "bf16": {"precision": "bf16", "accumulate": 3},
    "bf16 in chunks": {"precision": "bf16", "chunk": 2},
    "fp16": {"precision": "fp16", "clip_norm": 0.5},
}
CLOSE = {"fp32": 1e-10, "bf16": 0.1, "fp16": 0.01}  # relative to the length of the way that the weights went


class Numbered(Dataset):
    def __len__(self):
        return 13

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        draws = torch.Generator().manual_seed(100 * epoch + index)
        numbers = torch.randn(6, generator=draws, dtype=torch.float64)
        target = torch.tensor(index % 5 / 2, dtype=torch.float64)
        return {"numbers": numbers, "label": index % 4, "target": target, "index": index}


class Samples:
    def __init__(self, workers=0):
        self.train = self.training_pass(0, workers)
        self.evaluation = {"test": DataLoader(Numbered(), batch_size=3, sampler=EvaluationShare(13, 3))}

    def training_pass(self, epoch, workers=0):
        loader = EpochLoader(Numbered(), ShuffledBatches(13, 4), workers)
        loader.set_epoch(epoch)
        return loader

    def describe(self):
        return {"fingerprint": "of these"}


def length(model, loader):
    """A number in which the answer to every sample has a part of its own."""
    told = answers(model, loader, lambda output, batch: output if isinstance(output, torch.Tensor) else output.features)
    rows = torch.cat(told)
    return {"closeness": (rows.norm(dim=1) * torch.arange(1, len(rows) + 1)).sum().item()}


class Overflowing(nn.Module):
    """The gradient of one sample is infinite in the second epoch; there are four batches in each."""

    def __init__(self, model, index):
        super().__init__()
        self.model, self.index, self.batches = model, index, 0

    def forward(self, batch):
        output = self.model(batch)
        self.batches += self.training
        if self.training and 4 < self.batches <= 8 and self.index in batch["index"]:
            output.register_hook(lambda slope: slope * torch.inf)
        return output


def built(kind):
    torch.manual_seed(0)
    if kind in ("proxies", "overflowing"):
        model, loss = retrieval(ProxyAnchorLoss(num_classes=4, embedding_size=4))
        return Overflowing(model, 5) if kind == "overflowing" else model, loss
    return retrieval(recall(memory="gallery", memory_batches=2)) if kind == "memory" else regression()


def run(folder, kind, epochs=2, **settings):
    """What training leaves: the weights of model and loss, the scale of the gradients, and the record."""
    model, loss = built(kind)
    if "precision" not in settings:  # autocast leaves double precision as it is
        model.double(), loss.double()
    before = weights(model, loss)
    sgd = functools.partial(torch.optim.SGD, lr=0.003, momentum=0.9)
    fit(folder, epochs, model=model, loss=loss, data=Samples(), optimizer=sgd, metrics=length, log_every=1, **settings)
    distributed.wait()  # for the record, which the main process writes
    scale = torch.load(folder / "checkpoints" / "last.pt")["scaler"].get("scale")
    return {"before": before, "after": weights(model, loss), "scale": scale, "lines": lines(folder)}


def run_that_differs(folder):
    """Weights and metrics where the processes come to different ones, as GPUs do by rounding."""
    model, loss = built("proxies")
    factor = 1 + distributed.rank()
    next(loss.parameters()).register_hook(lambda slope: factor * slope)
    sgd = functools.partial(torch.optim.SGD, lr=0.003)
    results, _ = fit(
        folder, 1, model=model.double(), loss=loss.double(), data=Samples(), optimizer=sgd,
        metrics=lambda model, loader: {"closeness": factor},
    )  # fmt: skip
    return weights(model, loss), results["last"]["metrics"]


def weights(*modules):
    return torch.cat([parameter.detach().flatten().clone() for module in modules for parameter in module.parameters()])


def compare(found, wanted, close):
    """Weights, relative to the way that they went, and every number of the record."""
    way, apart = ((wanted["after"] - one["after" if one is found else "before"]).norm() for one in (wanted, found))
    assert apart <= close * way > 0
    assert found["scale"] == wanted["scale"]
    assert len(found["lines"]) == len(wanted["lines"])
    for line, other in zip(found["lines"], wanted["lines"], strict=True):
        assert line == pytest.approx(other, rel=max(10 * close, 1e-9), abs=1e-9)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_processes_make_the_run_of_one(tmp_path):
    """With each option of a step, the last batch smaller than the processes are many; and going on with another number.

    Of two lives of a run, the first of one process and the second of several, or the reverse; with a memory, and with
    the statistics of feature smoothing.
    """
    torch.set_num_threads(1)
    count, goes_on = 3, {"memory": {}, "smoothing": {"chunk": 3}}

    def work(folder=tmp_path / "several"):
        found = {name: run(folder / name, "proxies", **way) for name, way in SETTINGS.items()}
        found["overflow"] = run(folder / "overflow", "overflowing", precision="fp16")
        for kind, way in goes_on.items():
            found[f"first {kind}"] = run(folder / kind, kind, epochs=1, **way)
            found[f"then {kind}"] = run(tmp_path / "one" / kind, kind, resume=True, **way)
        found["differing"] = run_that_differs(folder / "differing")
        return found

    alone = {name: run(tmp_path / "alone" / name, "proxies", **way) for name, way in SETTINGS.items()}
    alone["overflow"] = run(tmp_path / "alone" / "overflow", "overflowing", precision="fp16")
    alone["differing"] = run_that_differs(tmp_path / "alone" / "differing")
    for kind in goes_on:
        alone[kind] = run(tmp_path / "alone" / kind, kind)
        run(tmp_path / "one" / kind, kind, epochs=1)
    found = processes(count, work, tmp_path)
    for rank in range(count):
        for name, way in SETTINGS.items():
            compare(found[rank][name], alone[name], CLOSE[way.get("precision", "fp32")])
        compare(found[rank]["overflow"], alone["overflow"], CLOSE["fp16"])
        for kind in goes_on:
            compare(found[rank][f"then {kind}"], alone[kind], 1e-10)
        torch.testing.assert_close(found[rank]["differing"], alone["differing"])
    for kind in goes_on:
        compare(run(tmp_path / "several" / kind, kind, resume=True), alone[kind], 1e-10)
    assert alone["overflow"]["scale"] == alone["fp16"]["scale"] / 2  # one step more was left out


def orders():
    """The samples of each training batch that this process gets, without and with processes that load them."""
    given = []
    for workers in (0, 2):
        loader = Samples(workers).train
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            given.append([[] if PADDING in batch else batch["index"].tolist() for batch in loader])
    return given


@pytest.mark.parametrize("count", [2, 5])
def test_every_sample_comes_once_whatever_the_number_of_processes(tmp_path, count):
    alone = orders()
    assert [sorted(chain(*epoch)) for epoch in alone] == [list(range(13))] * 4
    found = processes(count, orders, tmp_path)
    for number, epoch in enumerate(alone):
        assert [list(chain(*parts)) for parts in zip(*(given[number] for given in found), strict=True)] == epoch


def test_a_process_that_waits_in_vain_knows_it_and_one_tells_the_end(tmp_path):
    def work():
        waits = dist.new_group(timeout=timedelta(seconds=1))
        if distributed.rank():
            time.sleep(2)
            return True, distributed.tells()
        with pytest.raises(RuntimeError) as error:
            dist.barrier(waits)
        return distributed.others_are_gone(error.value), distributed.tells()

    found = processes(2, work, tmp_path)
    assert [gone for gone, _ in found] == [True, True]
    assert sum(tells for _, tells in found) == 1


def test_processes_that_do_not_find_each_other_say_how_to_start_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = r"the 2 processes .* did not find .*RANK.*torchrun --standalone, or unset"
    with pytest.raises(ConnectionError, match=said), distributed.together():
        pass
