"""One step, three ways: in one piece, in chunks, over several processes; the same losses and the same weights."""

import contextlib
import functools

import pytest
import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss
from spawned import processes
from torch import nn
from torch.utils.data import DataLoader

from harness import distributed
from harness.data.loading import PADDING, EpochLoader, EvaluationShare, ShuffledBatches
from harness.train.answers import answers
from harness.train.step import Step, chunks, divisible
from rambo.detection.model import FasterRCNN
from rambo.detection.objective import DetectionObjective
from rambo.detection.settings import AnchorSettings, ProposalSettings, RegionSettings
from rambo.losses import AveragePrecisionLoss, MeanAveragePrecisionLoss, RecallLoss
from rambo.objective import RetrievalObjective
from ranksim.bins import Bins, Density
from ranksim.imbalance import Reweighting
from ranksim.losses import MSE, ConR, RankSimilarity
from ranksim.model import Regressor
from ranksim.objective import RegressionObjective
from ranksim.smoothing import FeatureSmoothing

SAMPLES, STEPS = 22, 5


class Embedder(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 4))
        self.unused = nn.Linear(1, 1)

    def forward(self, batch):
        return self.layers(batch["numbers"].to(self.unused.weight.dtype))


class Encoder(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh())

    def forward(self, batch):
        return self.layers(batch["numbers"])


def batches(size=SAMPLES):
    draws = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        numbers = torch.randn(size, 6, generator=draws, dtype=torch.float64)
        label = torch.randint(5, (size,), generator=draws)
        yield {
            "numbers": numbers,
            "label": label,
            "labels": nn.functional.one_hot(torch.stack([label, label.roll(3)]), 5).any(dim=0),
            "index": torch.arange(size),
            "target": (12 * torch.rand(size, generator=draws, dtype=torch.float64)).round() / 4,  # some more than once
        }


def pictures(size=5):
    """Of other heights and widths, every third without an object, from labels 1 to 3."""
    draws = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        sides = torch.randint(33, 80, (size, 2), generator=draws).tolist()
        corners = torch.randint(0, 10, (size, 2, 2), generator=draws).float()
        boxes = torch.cat([corners, corners + torch.randint(8, 22, (size, 2, 2), generator=draws)], dim=2)
        labels = torch.randint(1, 4, (size, 2), generator=draws)
        yield {
            "images": [torch.randint(256, (3, *side), dtype=torch.uint8, generator=draws) for side in sides],
            "targets": [{"boxes": boxes[i, : i % 3], "labels": labels[i, : i % 3]} for i in range(size)],
            "index": torch.arange(size),
        }


def detection(classification):
    model = FasterRCNN(
        "test_resnet",
        weights="none",
        levels=(2, 3),
        pyramid_channels=16,
        extra_level=False,
        classes=3,
        anchors=AnchorSettings(scales=(3,)),
        proposals=ProposalSettings(samples=30, train_before_nms=60, train_after_nms=60),
        regions=RegionSettings(samples=14, hidden=32),
    )
    return model, DetectionObjective(classification)


def retrieval(loss, dropout=0.0):
    return Embedder(dropout), RetrievalObjective(loss)


class OfSeveralLabels(RetrievalObjective):
    def forward(self, output, batch):
        return super().forward(output, {"label": batch["labels"], "index": batch["index"]})


def regression(regularizer=None):
    """LDS, FDS and a term that ranks the batch."""
    bins = Bins.uniform(0, 3, 0.25)
    weighting = Reweighting("inverse", kernel="gaussian")
    weighting.prepare(Density(torch.linspace(0, 2.99, 50), bins))
    model = Regressor(Encoder(), functools.partial(FeatureSmoothing, bins=bins))
    for seed in (1, 2):
        features = torch.randn(50, 8, generator=torch.Generator().manual_seed(seed))
        model.smoothing.update(features, torch.linspace(0, 2.99, 50))
    term = RankSimilarity(interpolation=2.0, weight=3.0) if regularizer is None else regularizer
    return model, RegressionObjective(MSE(), weighting, term)


recall = functools.partial(RecallLoss, interpolation=0.5, margin=0.02)
CASES = {
    "recall": lambda: retrieval(recall(scale="normalized")),
    "recall with a gallery memory": lambda: retrieval(recall(memory="gallery", memory_batches=2)),
    "recall with a row memory": lambda: retrieval(recall(memory="rows", memory_batches=2)),
    "average precision": lambda: retrieval(AveragePrecisionLoss(interpolation=0.5, margin=0.02)),
    "recall of several labels": lambda: (
        Embedder(),
        OfSeveralLabels(recall(memory="gallery", memory_batches=2, reduction="class")),
    ),
    "proxies": lambda: retrieval(ProxyAnchorLoss(num_classes=5, embedding_size=4)),
    "rank similarity, LDS and FDS": regression,
    "rank similarity as officially drawn": lambda: regression(RankSimilarity(interpolation=2.0, subsample="python")),
    "ConR": lambda: regression(ConR(weight=1.0)),
}
mean_average_precision = functools.partial(MeanAveragePrecisionLoss, interpolation=0.5, margin=0.15)
DETECTION = {
    "detection by cross-entropy": lambda: detection("cross_entropy"),
    "detection": lambda: detection(mean_average_precision(margin_noise="half_normal")),
    "detection with a memory": lambda: detection(mean_average_precision(memory_batches=2)),
}


def trained(case, chunk=None, accumulate=1, size=None):
    """Losses and weights after some steps, each on this process's share of every batch."""
    torch.manual_seed(0)
    model, loss = (CASES | DETECTION)[case]()
    model.double(), loss.double()
    parameters = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)
    step = Step(model, loss, contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False), chunk)
    step.seed(torch.device("cpu"), 1)
    losses, given = [], [size] if size else []
    for number, batch in enumerate((pictures if case in DETECTION else batches)(*given), start=1):
        own = distributed.share(len(batch["index"]))
        part = {key: value[own] for key, value in batch.items()}
        if not len(part["index"]):
            part = {key: value[:1] for key, value in batch.items()} | {PADDING: True}
        losses.append(step(part, accumulate)["loss"].detach().double())
        if number % accumulate == 0 or number == STEPS:
            distributed.add_up_gradients(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
    return torch.stack(losses), torch.cat([parameter.detach().flatten() for parameter in parameters])


@functools.cache
def alone(case, **way):
    """What one process gives, which is asked for more than once."""
    return trained(case, **way)


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [1, 5, 11, 100])
def test_chunks_change_no_loss_and_no_weight(case, chunk):
    same(trained(case, chunk), alone(case))


def test_a_chunk_goes_through_with_the_same_draws_twice(monkeypatch):
    """With dropout, the outputs that are ranked are those that the gradient goes through; later draws are as ever."""
    monkeypatch.setitem(CASES, "dropout", lambda: retrieval(recall(), dropout=0.5))
    seen = []
    model, loss = CASES["dropout"]()
    model.layers[2].register_forward_hook(lambda module, given, output: seen.append(output.detach() != 0))
    step = Step(model.double(), loss, contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False), 8)
    torch.manual_seed(4)
    step(next(batches()))
    after = torch.rand(1)
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(seen[0], seen[1])
    torch.manual_seed(4)
    with torch.no_grad():
        for part in chunks(next(batches()), 8):
            model(part)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_change_no_loss_and_no_weight(tmp_path, count):
    """Of every loss, in pieces of unequal size, with chunks and without, with accumulation and a share of nothing."""
    ways = [{}, {"chunk": 3}, {"accumulate": 2}, {"chunk": 4, "accumulate": 2}]
    plans = [(case, way) for case in CASES for way in ways] + [("recall", {"size": 2}), ("proxies", {"size": 1})]
    plans += [(case, {}) for case in DETECTION] + [("detection with a memory", {"accumulate": 2, "size": 2})]
    torch.set_num_threads(1)
    found = processes(count, lambda: [trained(case, **way) for case, way in plans], tmp_path)
    for number, (case, way) in enumerate(plans):
        wanted = alone(case, **{key: value for key, value in way.items() if key != "chunk"})
        for rank in range(count):
            same(found[rank][number], wanted)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match=r"batch norm that trains \(0\) would see a part .* or set trainer.chunk=null"):
        divisible(nn.Sequential(nn.BatchNorm1d(3)), 4, torch.device("cpu"))
    divisible(nn.Sequential(nn.BatchNorm1d(3)), None, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"^a detector pads pictures [^.;]* in turn; set trainer\.chunk=null$"):
        divisible(DETECTION["detection"]()[0], 4, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"a batch of 3 samples has 2 'b', so it cannot be cut .* trainer.chunk=null"):
        chunks({"a": torch.zeros(3), "b": torch.zeros(2)}, 2)


class Numbered(torch.utils.data.Dataset):
    """13 samples, so that no number of processes shares them out evenly."""

    def __len__(self):
        return 13

    def __getitem__(self, key):
        index = key[1] if isinstance(key, tuple) else key
        numbers = torch.randn(6, generator=torch.Generator().manual_seed(index))
        return {"numbers": numbers, "target": torch.tensor(index / 5), "index": index}


class Passes:
    def training_pass(self, epoch):
        loader = EpochLoader(Numbered(), ShuffledBatches(13, 4))
        loader.set_epoch(epoch)
        return loader


def gone_through():
    """The statistics of feature smoothing after an epoch, and what a model answers to an evaluation loader."""
    torch.manual_seed(0)
    model = regression()[0]
    model.end_of_epoch(model, Passes(), 2)
    loader = DataLoader(Numbered(), batch_size=3, sampler=EvaluationShare(13, 3))
    kept = answers(model, loader, lambda output, batch: (output.prediction, batch["index"]))
    return model.smoothing.state_dict(), [torch.cat(column) for column in zip(*kept, strict=True)]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_processes_share_out_a_pass_and_an_evaluation(tmp_path, count):
    """Each sample once, in the order of one process, also where a process has no share of the last batch."""
    torch.set_num_threads(1)
    statistics, (predictions, indices) = gone_through()
    assert indices.tolist() == list(range(13))
    for found, told in processes(count, gone_through, tmp_path):
        torch.testing.assert_close(found, statistics)
        torch.testing.assert_close(told, [predictions, indices])
