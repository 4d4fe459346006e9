"""The losses where a loss of pytorch-metric-learning stands: its arguments, miners, wrappers and trainers."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from rambo.losses import RecallLoss
from tests.rambo.retrieval_losses import EVERY_LOSS, LOSSES, embedded

pytest.importorskip("pytorch_metric_learning", reason="optional extra: peers")
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning import miners, reducers, trainers
from pytorch_metric_learning.utils import loss_and_miner_utils as pairing


def both(value: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    """The value and its gradient."""
    return value.detach(), torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0]


def same(value: Tensor, expected: Tensor, leaf: Tensor) -> None:
    torch.testing.assert_close(both(value, leaf), both(expected, leaf))


# --- a call as that library makes it


@EVERY_LOSS
def test_all_pairs_and_no_pairs_are_the_same_call(build):
    embeddings, labels = embedded()
    expected = build()(embeddings, labels)
    same(build()(embeddings, labels, None), expected, embeddings)
    same(build()(embeddings, labels, pairing.get_all_pairs_indices(labels)), expected, embeddings)
    same(build()(embeddings, labels, pairing.get_all_triplets_indices(labels)), expected, embeddings)
    # as there, references that are the batch itself do not find themselves
    same(build()(embeddings, labels, ref_emb=embeddings, ref_labels=labels), expected, embeddings)
    assert build()(embeddings, labels, ref_emb=embeddings.detach(), ref_labels=labels) == expected


@EVERY_LOSS
def test_references_take_the_place_of_the_batch(build):
    embeddings, labels = embedded()
    gallery, gallery_labels = embedded(7, seed=1)
    gallery.requires_grad_(False)
    scores = nn.functional.normalize(embeddings, dim=1) @ nn.functional.normalize(gallery, dim=1).T
    settings = {} if build is LOSSES["smooth AP"] else {"items": 11}
    expected = build().from_scores(scores, labels[:, None] == gallery_labels, **settings)
    same(build()(embeddings, labels, None, gallery, gallery_labels), expected, embeddings)


@EVERY_LOSS
@pytest.mark.parametrize("miner", [miners.MultiSimilarityMiner(), miners.TripletMarginMiner(), miners.BatchHardMiner()])
def test_only_the_pairs_of_a_miner_count(build, miner):
    embeddings, labels = embedded(16, 4)
    chosen = miner(embeddings.detach(), labels)
    anchors, positives, others, negatives = pairing.convert_to_pairs(chosen, labels)
    ignored = torch.ones(16, 16, dtype=torch.bool)
    ignored[anchors, positives] = ignored[others, negatives] = False
    assert ignored.sum() > 16  # the miner leaves something out beside the diagonal
    expected = build()(embeddings, labels, ignored=ignored)
    same(build()(embeddings, labels, chosen), expected, embeddings)
    assert expected != build()(embeddings, labels)


def test_one_query_and_its_pairs_by_hand():
    scores = torch.tensor([[1.0, 0.9, 0.8, 0.7, 0.6]])
    embeddings = torch.cat([scores.T, (1 - scores.T.square()).sqrt()], dim=1)  # the first has these cosines to all
    labels = torch.tensor([0, 1, 1, 0, 1])
    loss = RecallLoss(1.0, weight="log")
    assert loss(embeddings, labels, (torch.tensor([0]), torch.tensor([3]), torch.tensor([2]))).item() == pytest.approx(
        math.log(2)  # of the two irrelevant items before the relevant one, one is among the triplets
    )


@EVERY_LOSS
def test_pairs_that_do_not_fit_are_refused(build):
    embeddings, labels = embedded(4, 2)
    with pytest.raises(ValueError, match=r"anchors, positives, negatives.*got 2"):
        build()(embeddings, labels, (torch.tensor([0]), torch.tensor([2])))
    with pytest.raises(ValueError, match="does not fit 4 queries and 4 items"):
        build()(embeddings, labels, (torch.tensor([0]), torch.tensor([4]), torch.tensor([1])))
    for wrong in ({"ref_labels": labels}, {"ref_emb": embeddings}, {"ref_ids": labels}):
        with pytest.raises(ValueError, match="ref_emb"):
            build()(embeddings, labels, **wrong)
    with pytest.raises(ValueError, match="ref_emb has 3 dimensions, embeddings 5"):
        build()(embeddings, labels, ref_emb=embeddings[:, :3], ref_labels=labels)
    with pytest.raises(ValueError, match=r"4 ref_emb but ref_labels of shape \(3,\)"):
        build()(embeddings, labels, ref_emb=embeddings.detach(), ref_labels=labels[:3])


# --- its wrappers and trainers


@EVERY_LOSS
def test_in_multiple_losses(build):
    embeddings, labels = embedded()
    together = theirs.MultipleLosses([build(), theirs.TripletMarginLoss()], weights=[1, 0.5])
    expected = build()(embeddings, labels) + 0.5 * theirs.TripletMarginLoss()(embeddings, labels)
    same(together(embeddings, labels), expected, embeddings)


@EVERY_LOSS
def test_in_a_cross_batch_memory(build):
    (old, old_labels), (new, new_labels) = embedded(5, seed=1), embedded(8)
    queue = theirs.CrossBatchMemory(build(), 5, memory_size=20)
    same(queue(old, old_labels), one_sided(build(), old, old_labels), old)
    # the queue holds the old batch and then the new one, and the new one does not find itself
    expected = build()(
        new,
        new_labels,
        ref_emb=torch.cat([old, new]).detach(),
        ref_labels=torch.cat([old_labels, new_labels]),
        ids=torch.arange(5, 13),
        ref_ids=torch.arange(13),
    )
    same(queue(new, new_labels), expected, new)


def one_sided(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    """That library's queue holds the batch itself without a graph."""
    value: Tensor = loss(embeddings, labels, ref_emb=embeddings.detach(), ref_labels=labels)
    return value


@EVERY_LOSS
def test_in_a_self_supervised_loss(build):
    (views, _), (others, _), labels = embedded(6), embedded(6, seed=1), torch.arange(6)
    same(
        theirs.SelfSupervisedLoss(build())(views, others), build()(torch.cat([views, others]), labels.repeat(2)), views
    )
    expected = build()(views, labels, ref_emb=others, ref_labels=labels.clone())
    same(theirs.SelfSupervisedLoss(build(), symmetric=False)(views, others), expected, views)


def test_a_cross_batch_memory_with_a_miner_and_its_other_losses():
    embeddings, labels = embedded(16, 4)
    queue = theirs.CrossBatchMemory(RecallLoss(1.0), 5, 32, miner=miners.MultiSimilarityMiner())
    assert queue(embeddings, labels).isfinite()
    theirs.CrossBatchMemory(theirs.ContrastiveLoss(), 5)
    with pytest.raises(Exception, match="not supported for ArcFaceLoss"):
        theirs.CrossBatchMemory(theirs.ArcFaceLoss(4, 5), 5)


@EVERY_LOSS
def test_values_of_queries_in_its_reducers(build):
    embeddings, labels = embedded()
    each = build(reduction="none")(embeddings, labels)
    terms = {"loss": {"losses": each, "indices": torch.arange(12), "reduction_type": "element"}}
    same(reducers.MeanReducer()(terms, embeddings, labels), each.mean(), embeddings)
    weights = torch.tensor([1.0, 2.0, 4.0])
    weighted = reducers.ClassWeightedReducer(weights)(terms, embeddings, labels)
    same(weighted, (each * weights[labels]).mean(), embeddings)


class Points(torch.utils.data.Dataset):
    def __init__(self):
        self.points, self.labels = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) // 8

    def __len__(self):
        return 32

    def __getitem__(self, place):
        return self.points[place], self.labels[place]


@pytest.mark.parametrize("kind", ["MetricLossOnly", "TrainWithClassifier"])
def test_in_its_trainers(kind):
    torch.manual_seed(0)
    models = {"trunk": nn.Linear(6, 4), "embedder": nn.Identity()}
    criteria = {"metric_loss": theirs.CrossBatchMemory(RecallLoss(1.0, 0.1), 4, 64)}
    if kind == "TrainWithClassifier":
        models["classifier"], criteria["classifier_loss"] = nn.Linear(4, 4), nn.CrossEntropyLoss()
    before = models["trunk"].weight.detach().clone()
    trainer = getattr(trainers, kind)(
        models=models,
        optimizers={"trunk_optimizer": torch.optim.SGD(models["trunk"].parameters(), lr=0.1)},
        batch_size=16,
        loss_funcs=criteria,
        dataset=Points(),
        mining_funcs={"tuple_miner": miners.MultiSimilarityMiner(epsilon=0.5)},
        dataloader_num_workers=0,
    )
    trainer.train(num_epochs=2)
    assert not torch.equal(models["trunk"].weight, before)


PROCESS = """
import os, sys, torch, torch.distributed as dist
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from pytorch_metric_learning.losses import CrossBatchMemory
from rambo.losses import AveragePrecisionLoss, GalleryMemory, RecallLoss, SmoothAPLoss

rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
whole = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
labels = torch.arange(12) % 3
for build in (lambda: RecallLoss(1.0, 0.05), lambda: AveragePrecisionLoss(1.0), lambda: SmoothAPLoss(0.1)):
    leaf = whole.clone().requires_grad_()
    expected = build()(leaf, labels)
    expected.backward()
    for loss in (build(), CrossBatchMemory(build(), 5, 12)):
        mine = whole[rank::2].clone().requires_grad_()
        value = DistributedLossWrapper(loss)(mine, labels[rank::2])
        torch.testing.assert_close(value / 2, expected)
        value.backward()
        assert mine.grad.isfinite().all() and mine.grad.count_nonzero()
        if not isinstance(loss, CrossBatchMemory):  # whose batch has a gradient as queries alone
            torch.testing.assert_close(mine.grad / 2, leaf.grad[rank::2])
    mine = whole[rank::2].clone().requires_grad_()
    DistributedLossWrapper(build(), efficient=True)(mine, labels[rank::2]).backward()
    assert mine.grad.count_nonzero()
DistributedLossWrapper(GalleryMemory(RecallLoss(1.0), 1))(whole, labels)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_in_a_distributed_loss_wrapper(tmp_path):
    command = [sys.executable, "-c", PROCESS]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stderr=subprocess.PIPE, env=environment)
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
