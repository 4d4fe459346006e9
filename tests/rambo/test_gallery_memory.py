"""The memory of embeddings: what is ranked, who is who, when it acts, and what becomes of lambda."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rambo.losses import AveragePrecisionLoss, GalleryMemory, MeanAveragePrecisionLoss, RecallLoss, SmoothAPLoss
from rambo.objective import RetrievalObjective

# each remembers two batches
REMEMBERING = {
    "recall": lambda: RecallLoss(1.0, 0.05, memory_batches=2),
    "average precision": lambda: AveragePrecisionLoss(1.0, 0.05, memory_batches=2),
    "recall, wrapped": lambda: GalleryMemory(RecallLoss(1.0, 0.05), 2),
    "smooth AP, wrapped": lambda: GalleryMemory(SmoothAPLoss(0.1), 2),
}
EVERY_MEMORY = pytest.mark.parametrize("build", REMEMBERING.values(), ids=REMEMBERING)


def embedded(items: int, seed: int, first: int = 0, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, labels and ids."""
    draws = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(items, 5, generator=draws, dtype=torch.float64).requires_grad_()
    return embeddings, torch.arange(items) % classes, torch.arange(first, first + items)


def gradient(value: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(value, leaf, retain_graph=True)[0]


def test_the_option_and_the_wrapper_are_one_memory():
    inside, around = REMEMBERING["recall"](), REMEMBERING["recall, wrapped"]()
    for step in range(4):
        embeddings, labels, ids = embedded(6 + step, seed=step, first=4 * step)
        one, other = inside(embeddings, labels, ids=ids), around(embeddings, labels, ids=ids)
        assert one == other
        assert torch.equal(gradient(one, embeddings), gradient(other, embeddings))


@EVERY_MEMORY
def test_images_seen_again_are_not_their_own_relevant_items(build):
    loss, (embeddings, _, ids) = build(), embedded(4, seed=0)
    singles = torch.arange(4)  # nothing to find, ever
    getattr(loss, "loss", loss).on_empty = "nan"
    for _ in range(3):
        assert loss(embeddings, singles, ids=ids).isnan()
    assert loss(embeddings + 1, singles, ids=ids + 4).isfinite()  # others of the same classes are in the memory


@EVERY_MEMORY
@pytest.mark.parametrize("when", ["never", "before", "now"])
def test_what_could_be_the_query_itself_is_ignored(build, when):
    """Without ids, stored items of the same class count neither way, and those of other classes do."""
    (old, old_labels, _), (new, labels, _) = embedded(5, seed=1), embedded(8, seed=2)
    ids = {"never": (None, None), "before": (torch.arange(5), None), "now": (None, torch.arange(5, 13))}[when]
    loss = build()
    loss(old, old_labels, ids=ids[0])
    value = loss(new, labels, ids=ids[1])
    queries = normalize(new, dim=1)
    scores = queries @ torch.cat([queries, normalize(old, dim=1).detach()]).T
    relevance = labels[:, None] == torch.cat([labels, old_labels])
    ignored = torch.cat([torch.eye(8, dtype=torch.bool), relevance[:, 8:]], dim=1)
    alone = getattr(loss, "loss", loss)
    alone = alone if isinstance(alone, SmoothAPLoss) else type(alone)(1.0, 0.05)
    settings = {} if isinstance(alone, SmoothAPLoss) else {"items": 7}
    expected = alone.from_scores(scores, relevance, ignored, **settings)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, new), gradient(expected, new))


def test_an_image_twice_in_a_batch_does_not_find_itself():
    embeddings, labels, _ = embedded(6, seed=0)
    twice, ids = torch.cat([embeddings, embeddings]), torch.arange(6).repeat(2)
    for loss in (RecallLoss(1.0), AveragePrecisionLoss(1.0), SmoothAPLoss(0.1)):
        own = ids[:, None] == ids
        expected = loss(twice, labels.repeat(2), ignored=own)
        assert loss(twice, labels.repeat(2), ids=ids) == expected != loss(twice, labels.repeat(2))


@pytest.mark.parametrize("scale", ["normalized", "integer"])
@pytest.mark.parametrize("build", [RecallLoss, AveragePrecisionLoss])
def test_columns_that_can_never_matter_leave_the_step_alone(build, scale):
    labels = torch.arange(8) // 2
    embeddings = torch.cat([torch.ones(8, 1), 0.1 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))], 1)
    embeddings.requires_grad_()
    useless, useless_labels = -embeddings.detach().mean(0).expand(24, 5), torch.arange(100, 124)  # cosines near -1
    plain = build(4.0, scale=scale)
    expected = gradient(plain(embeddings, labels), embeddings)
    assert expected.count_nonzero()
    remembering = [build(4.0, scale=scale, memory_batches=1), GalleryMemory(build(4.0, scale=scale), 1)]
    for loss in remembering:
        loss(useless, useless_labels)
        torch.testing.assert_close(gradient(loss(embeddings, labels), embeddings), expected)
    both = torch.cat([embeddings, useless]), torch.cat([labels, useless_labels])
    ids = torch.arange(32)
    value = plain(embeddings, labels, ref_emb=both[0], ref_labels=both[1], ids=ids[:8], ref_ids=ids)
    torch.testing.assert_close(gradient(value, embeddings), expected)

    units = normalize(embeddings.detach(), dim=1)
    scores, relevance = units @ units.T, (labels[:, None] == labels) & ~torch.eye(8, dtype=torch.bool)
    scores.requires_grad_()
    far, never = torch.full((8, 60), -1.0), torch.zeros(8, 60, dtype=torch.bool)
    more = plain.from_scores(torch.cat([scores, far], 1), torch.cat([relevance, never], 1), items=8)
    expected = plain.from_scores(scores, relevance)
    assert torch.equal(gradient(more, scores), gradient(expected, scores))


@EVERY_MEMORY
def test_in_evaluation_nothing_is_recalled_and_nothing_stored(build):
    (old, old_labels, old_ids), (new, labels, ids) = embedded(8, seed=1), embedded(6, seed=2, first=8)
    loss = build()
    expected = loss.eval()(new, labels, ids=ids)
    loss.train()(old, old_labels, ids=old_ids)
    assert torch.equal(loss.eval()(new, labels, ids=ids), expected)
    assert len(loss.memory) == 1
    assert not torch.equal(loss.train()(new, labels, ids=ids), expected)


def test_in_evaluation_no_rows_and_no_samples_are_recalled():
    rows, samples = RecallLoss(1.0, memory="rows", memory_batches=2), MeanAveragePrecisionLoss(1.0, memory_batches=2)
    draws = torch.Generator().manual_seed(0)
    scores, relevance = torch.randn(3, 6, 4, generator=draws), torch.rand(3, 6, 4, generator=draws) > 0.6
    for loss, call in ((rows, rows.from_scores), (samples, samples)):
        loss.eval()
        expected = call(scores[0], relevance[0])
        loss.train()
        call(scores[1], relevance[1])
        loss.eval()
        assert torch.equal(call(scores[0], relevance[0]), expected)
        loss.train()
        assert not torch.equal(call(scores[0], relevance[0]), expected)


def test_rows_without_a_relevant_item_are_remembered_as_in_the_official_code():
    """There r is a share of a row, times all rows in the memory, whether something was relevant in them or not."""
    draws = torch.Generator().manual_seed(0)
    scores, relevance = torch.randn(4, 6, generator=draws), torch.rand(4, 6, generator=draws) > 0.6
    loss = RecallLoss(1.0, weight="log", preset="official", memory_batches=1)
    assert loss.from_scores(torch.randn(8, 6, generator=draws), torch.zeros(8, 6)).isnan()
    before = [
        int((~row_relevant & (row > row[item])).sum())
        for row, row_relevant in zip(scores, relevance, strict=True)
        for item in row_relevant.nonzero()
    ]
    expected = torch.log1p(torch.tensor(before) / 6 * (4 + 8)).mean()
    torch.testing.assert_close(loss.from_scores(scores, relevance), expected)


class Apart(nn.Module):
    """Any loss of pairs: the mean cosine of irrelevant pairs, less that of relevant ones."""

    def forward(self, embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None):
        anchors, positives, others, negatives = indices_tuple
        cosines = normalize(embeddings, dim=1) @ normalize(ref_emb, dim=1).T
        return cosines[others, negatives].mean() - cosines[anchors, positives].mean()


def test_any_loss_can_remember():
    first, second = embedded(4, seed=1), embedded(6, seed=2, first=2)
    loss = GalleryMemory(Apart(), batches=1)
    loss(*first[:2], ids=first[2])
    cosines = normalize(second[0], dim=1) @ normalize(torch.cat([second[0], first[0].detach()]), dim=1).T
    relevant = second[1][:, None] == torch.cat([second[1], first[1]])
    itself = second[2][:, None] == torch.cat([second[2], first[2]])
    assert itself.sum() == 8  # each in its batch, and two of them in the memory
    expected = cosines[~relevant & ~itself].mean() - cosines[relevant & ~itself].mean()
    value = loss(*second[:2], ids=second[2])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, second[0]), gradient(expected, second[0]))
    assert loss.settings["memory_of"].endswith("Apart")


def test_a_loss_of_pytorch_metric_learning_remembers_as_in_its_own_queue():
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="optional extra: peers")
    (old, old_labels, old_ids), (new, labels, ids) = embedded(6, seed=1), embedded(6, seed=2, first=6)
    ours, queue = (
        GalleryMemory(losses.MultiSimilarityLoss(), 1),
        losses.CrossBatchMemory(losses.MultiSimilarityLoss(), 5, 12),
    )
    for batch in ((old, old_labels, old_ids), (new, labels, ids)):
        value, expected = ours(*batch[:2], ids=batch[2]), queue(*batch[:2])
        torch.testing.assert_close(value, expected)


def test_a_miner_restricts_the_batch_and_not_the_memory():
    (old, old_labels, _), (new, labels, _) = embedded(4, seed=1, classes=2), embedded(4, seed=2, classes=2)
    chosen = tuple(torch.tensor([place]) for place in (0, 2, 1))
    seen = []
    loss = GalleryMemory(RecallLoss(1.0), 1)
    loss.loss.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    loss(old, old_labels, ids=torch.arange(4))
    loss(new, labels, chosen, ids=torch.arange(4, 8))
    pairs = set(zip(*(side.tolist() for side in seen[1][2][:2]), strict=True))
    assert {pair for pair in pairs if pair[1] < 4} == {(0, 2)}
    assert len(pairs) == 1 + 4 * 2


def test_a_memory_brings_its_own_references():
    embeddings, labels, _ = embedded(4, seed=0)
    for build in REMEMBERING.values():
        with pytest.raises(ValueError, match=r"a (gallery )?memory brings its own references"):
            build()(embeddings, labels, ref_emb=embeddings, ref_labels=labels)
    wrapped = REMEMBERING["recall, wrapped"]()
    wrapped(embeddings, labels, ids=torch.arange(4))
    with pytest.raises(ValueError, match="5 dimensions, this batch has 3; call reset_memory"):
        wrapped(embeddings[:, :3], labels)
    fresh = copy.deepcopy(wrapped)
    fresh.reset_memory()
    fresh.load_state_dict(wrapped.state_dict())
    again = {"labels": labels, "ids": torch.arange(2, 6)}
    assert torch.equal(fresh(embeddings + 1, **again), wrapped(embeddings + 1, **again))


def test_the_objective_says_which_image_is_which():
    loss = RecallLoss(1.0, memory_batches=1, on_empty="error")
    objective, (embeddings, _, _) = RetrievalObjective(loss), embedded(4, seed=0)
    pairs, singles = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    objective(embeddings, {"label": pairs, "index": torch.arange(4)})
    with pytest.raises(ValueError, match="nothing is relevant"):
        objective(embeddings, {"label": singles + 10, "index": torch.arange(4)})
    with_others = RetrievalObjective(GalleryMemory(RecallLoss(1.0), 1))
    with_others(embeddings, {"label": singles, "index": torch.arange(4)})
    assert with_others(embeddings, {"label": singles, "index": torch.arange(4)})["loss"] == 0
    assert with_others(embeddings.flip(0), {"label": singles, "index": torch.arange(4, 8)})["loss"] > 0
