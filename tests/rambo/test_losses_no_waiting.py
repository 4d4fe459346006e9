"""The losses of rankings work on a device without the CPU waiting for it, and give the numbers of the CPU there."""

import contextlib

import pytest
import torch
from pretend_gpu import DEVICE, OnDevice, PretendGPU, WaitedForError

from harness.device import to_device
from harness.train.step import Step
from rambo.losses import (
    AveragePrecisionLoss,
    MeanAveragePrecisionLoss,
    PNPLoss,
    RecallLoss,
    RoadmapLoss,
    SiMix,
    SmoothAPLoss,
    SmoothRecallLoss,
    SupAPLoss,
    SupRecallLoss,
)
from rambo.objective import RetrievalObjective

LOSSES = {
    "recall": lambda: RecallLoss(4.0, 0.02),
    "recall, official": lambda: RecallLoss(4.0, 0.02, preset="official"),
    "recall@k": lambda: RecallLoss(4.0, 0.02, "recall@2", reduction="class"),
    "recall, each query": lambda: RecallLoss(4.0, reduction="none"),
    "recall, memory of items": lambda: RecallLoss(4.0, 0.02, memory_batches=2),
    "recall, memory of queries": lambda: RecallLoss(4.0, 0.02, memory="rows", memory_batches=2),
    "AP": lambda: AveragePrecisionLoss(4.0, 0.02),
    "AP, pessimistic": lambda: AveragePrecisionLoss(4.0, 0.02, ties="pessimistic", reduction="micro"),
    "AP, memory": lambda: AveragePrecisionLoss(4.0, 0.02, memory_batches=2),
    "SmoothAP": lambda: SmoothAPLoss(0.1),
    "SmoothAP, memory": lambda: SmoothAPLoss(0.1, memory_batches=2),
    "RS@k": lambda: SmoothRecallLoss((1, 2)),
    "RS@k, SiMix": lambda: SiMix(SmoothRecallLoss((1, 2))),
    "SupAP": SupAPLoss,
    "ROADMAP": RoadmapLoss,
    "SupRecall": lambda: SupRecallLoss((1, 2)),
    "PNP": PNPLoss,
    "PNP, lone queries": lambda: PNPLoss("D_q", lone="count"),
}
PER_CLASS = {"equal classes": torch.arange(24) // 4, "other classes": torch.arange(24).float().sqrt().long()}


def batches(labels):
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        embeddings = torch.randn(len(labels), 6, generator=generator)
        yield embeddings, {"label": labels, "index": torch.arange(len(labels)) + 7 * step}


def gradient(loss, embeddings, batch):
    leaf = embeddings.clone() if not isinstance(embeddings, OnDevice) else OnDevice(embeddings.numbers.clone())
    leaf.requires_grad_()
    torch.manual_seed(0)
    value = loss(leaf, batch)["loss"]
    value.sum().backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("labels", PER_CLASS.values(), ids=PER_CLASS)
@pytest.mark.parametrize("kind", LOSSES)
def test_nobody_waits_where_labels_come_from_the_cpu(kind, labels):
    here, there = RetrievalObjective(LOSSES[kind]()), RetrievalObjective(LOSSES[kind]())
    for embeddings, batch in batches(labels):
        expected = gradient(here, embeddings, batch)
        with PretendGPU():
            found = gradient(there, OnDevice(embeddings), to_device(batch, DEVICE))
        assert all(each.device == DEVICE for each in found)
        for got, wanted in zip(found, expected, strict=True):
            assert torch.equal(got.numbers, wanted)


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if "SiMix" not in kind])
def test_nor_where_items_have_several_labels(kind):
    test_nobody_waits_where_labels_come_from_the_cpu(kind, (torch.arange(24)[:, None] % torch.arange(2, 9)) == 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("labels", PER_CLASS.values(), ids=PER_CLASS)
@pytest.mark.parametrize("kind", LOSSES)
def test_a_gpu_is_not_waited_for_and_finds_the_same(kind, labels):
    device = torch.device("cuda")
    here, there = RetrievalObjective(LOSSES[kind]()), RetrievalObjective(LOSSES[kind]())
    for embeddings, batch in batches(labels):
        wanted, moved = gradient(here, embeddings, batch), embeddings.to(device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = gradient(there, moved, to_device(batch, device))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close([each.cpu() for each in found], list(wanted), rtol=1e-4, atol=1e-6)


def test_labels_of_a_device_alone_have_to_be_waited_for():
    embeddings, batch = next(batches(PER_CLASS["equal classes"]))
    with PretendGPU(), pytest.raises(WaitedForError, match="nonzero"):
        gradient(RetrievalObjective(RecallLoss(4.0)), OnDevice(embeddings), {"label": OnDevice(batch["label"])})


def test_labels_that_stay_on_the_cpu_and_a_relevance_of_the_cpu_will_do():
    embeddings, batch = next(batches(PER_CLASS["equal classes"]))
    scores, relevance = embeddings @ embeddings.T, batch["label"][:, None] == batch["label"]
    loss, classes = RecallLoss(4.0, reduction="class"), MeanAveragePrecisionLoss(0.5, memory_batches=2)
    expected = [loss(embeddings, batch["label"]), loss.from_scores(scores, relevance, classes=batch["label"])]
    expected += [classes(scores, relevance) for _ in range(2)]
    classes.reset_memory()
    with PretendGPU():
        found = [loss(OnDevice(embeddings), batch["label"])]
        found += [loss.from_scores(OnDevice(scores), relevance, classes=batch["label"])]
        found += [classes(OnDevice(scores), relevance) for _ in range(2)]
    assert [each.numbers for each in found] == expected


@pytest.mark.parametrize("labels", [*PER_CLASS.values(), torch.arange(24)], ids=[*PER_CLASS, "no pairs"])
@pytest.mark.parametrize("kind", LOSSES)
def test_nan_becomes_a_loss_of_nan_and_no_finite_number(kind, labels):
    embeddings, batch = next(batches(labels))
    embeddings[5, 2] = torch.nan
    with PretendGPU():
        value, slopes = gradient(RetrievalObjective(LOSSES[kind]()), OnDevice(embeddings), to_device(batch, DEVICE))
    if value.dim() == 0 or len(labels.unique()) < len(
        labels
    ):  # a query without a relevant item costs 0, whatever it is
        assert value.numbers.isnan().any()
    assert slopes.numbers.isnan().any()


def test_a_step_in_chunks_does_not_wait_either():
    embeddings, batch = next(batches(PER_CLASS["equal classes"]))
    here = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    there = OnDevice(here.detach().clone()).requires_grad_()
    loss, scaler = RetrievalObjective(RecallLoss(4.0)), torch.amp.GradScaler("cpu", enabled=False)
    given = {"image": embeddings, **batch}
    Step(lambda part: part["image"] @ here, loss, contextlib.nullcontext, scaler, chunk=8)(given)
    with PretendGPU():
        step = Step(lambda part: part["image"] @ there, loss, contextlib.nullcontext, scaler, chunk=8)
        step(to_device(given, DEVICE))
    assert torch.equal(there.grad.numbers, here.grad)
