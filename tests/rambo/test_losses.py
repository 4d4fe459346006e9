"""The losses: values by hand, references, questions asked of every loss alike, memories, presets, bad input."""

from __future__ import annotations

import copy
import functools
import gc
import io
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from rambo.losses import AveragePrecisionLoss, MeanAveragePrecisionLoss, RecallLoss, SmoothAPLoss, SmoothRecallLoss
from rambo.ranking import Identity, SoftRank
from tests.rambo.retrieval_losses import EVERY_LOSS, LOSSES, embedded

EVERY_RANKING_LOSS = pytest.mark.parametrize(
    "build", [functools.partial(kind, 1.0) for kind in (RecallLoss, AveragePrecisionLoss, MeanAveragePrecisionLoss)]
)


def gradient_of(loss: nn.Module, *inputs: Tensor) -> Tensor:
    leaf = inputs[0].detach().clone().requires_grad_()
    loss(leaf, *inputs[1:]).backward()
    assert leaf.grad is not None
    return leaf.grad


# --- values


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        # relevant items behind 0 and 2 irrelevant ones in the first row, behind 1 in the second
        ("log", ((math.log(1) + math.log(3)) / 2 + math.log(2)) / 2),
        ("loglog", ((0 + math.log(1 + math.log(3))) / 2 + math.log(1 + math.log(2))) / 2),
        (lambda x: x, ((0 + 2) / 2 + 1) / 2),
    ],
)
def test_recall_loss_by_hand(weight, expected):
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1]])
    relevance = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]])
    assert RecallLoss(1.0, weight=weight).from_scores(scores, relevance).item() == pytest.approx(expected)


def test_recall_loss_reductions():
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])
    relevance = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]])  # the third query has nothing to find
    one, two = math.log(2), math.log(3)
    macro = RecallLoss(1.0, weight="log", reduction="macro").from_scores(scores, relevance)
    assert macro.item() == pytest.approx(((one + one) / 2 + two) / 2)
    micro = RecallLoss(1.0, weight="log", reduction="micro").from_scores(scores, relevance)
    assert micro.item() == pytest.approx((one + one + two) / 3)


def test_recall_loss_denormalised_by_rows_or_counts():
    scores, relevance = torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.tensor([[0, 0, 1, 0]])
    options = {"interpolation": 1.0, "weight": "log"}
    assert RecallLoss(**options).from_scores(scores, relevance).item() == pytest.approx(math.log(1 + 2))
    by_rows = RecallLoss(**options, denormalize="rows").from_scores(scores, relevance)
    assert by_rows.item() == pytest.approx(math.log(1 + 2 * 1 / 4))


def test_margin_asks_relevant_items_to_lead():
    scores, relevance = torch.tensor([[0.50, 0.45, 0.10]]), torch.tensor([[1, 0, 0]])
    assert RecallLoss(1.0, margin=0.04).from_scores(scores, relevance) == 0
    assert RecallLoss(1.0, margin=0.06, weight="log").from_scores(scores, relevance).item() == pytest.approx(
        math.log(2)
    )


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]])
    relevance = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]])
    expected = 1 - ((1 / 2 + 2 / 4) / 2 + 1) / 2
    assert AveragePrecisionLoss(1.0).from_scores(scores, relevance).item() == pytest.approx(expected)
    smoothed = AveragePrecisionLoss(1.0, ap_eps=0.5).from_scores(scores, relevance).item()
    assert smoothed == pytest.approx(1 - ((1 / 2 + 2 / 4) / 2.5 + 1 / 1.5) / 2)


def test_mean_average_precision_weighs_both_terms():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.4]])
    relevance = torch.tensor([[0, 0], [1, 0], [0, 1]])
    class_wise = 1 - (1 / 2 + 1) / 2
    between = 1 - (1 / 2 + 2 / 3) / 2  # 0.9, [0.8], [0.4], ...
    loss = MeanAveragePrecisionLoss(1.0, interclass_weight=0.25)
    assert loss(scores, relevance).item() == pytest.approx(0.75 * class_wise + 0.25 * between)


@pytest.mark.parametrize("build", [RecallLoss, AveragePrecisionLoss])
def test_perfect_rankings_cost_nothing_and_the_rest_something(build):
    angles = torch.tensor([0.0, 0.1, 0.2, 3.0, 3.1])
    embeddings, labels = torch.stack([angles.cos(), angles.sin()], dim=1), torch.tensor([0, 0, 0, 1, 1])
    assert build(1.0)(embeddings, labels) == 0
    assert build(1.0)(embeddings, torch.tensor([0, 1, 0, 1, 0])) > 0.1


def test_average_precision_equals_its_definition_on_random_batches():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 30, generator=generator, dtype=torch.float64)
    relevance = torch.rand(6, 30, generator=generator) < 0.3
    expected = []
    for row, wanted in zip(scores, relevance, strict=True):
        found = wanted[row.argsort(descending=True)].double()
        precision = found.cumsum(0) / torch.arange(1, 31)
        expected.append((precision * found).sum() / found.sum())
    loss = AveragePrecisionLoss(1.0).from_scores(scores, relevance)
    torch.testing.assert_close(loss, 1 - torch.stack(expected).mean())


@pytest.mark.slow
def test_steps_along_the_gradient_improve_the_ranking():
    embeddings, labels = embedded(24, 4)
    for build in LOSSES.values():
        loss, moving = build(), embeddings.detach().clone()
        first = loss(moving, labels)
        for _ in range(60):
            moving -= 5 * gradient_of(loss, moving, labels)
        assert loss(moving, labels) < 0.8 * first


# --- smooth AP


def dense_smooth_ap(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The definition, loop by loop."""
    embeddings = normalize(embeddings, dim=1)
    scores, precisions = embeddings @ embeddings.T, []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        wanted = [i for i in others if labels[i] == labels[query]]
        terms = []
        for i in wanted:
            rank = 1 + sum(torch.sigmoid((scores[query, j] - scores[query, i]) / temperature) for j in others if j != i)
            among = 1 + sum(
                torch.sigmoid((scores[query, j] - scores[query, i]) / temperature) for j in wanted if j != i
            )
            terms.append(among / rank)
        if terms:
            precisions.append(torch.stack(terms).mean())
    return 1 - torch.stack(precisions).mean()


def test_smooth_ap_equals_its_definition_on_ragged_classes():
    embeddings, _ = embedded(9)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3, 0, 1])
    loss = SmoothAPLoss(0.05)(embeddings, labels)
    expected = dense_smooth_ap(embeddings, labels, 0.05)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, embeddings)[0], torch.autograd.grad(expected, embeddings)[0])


@pytest.mark.parametrize("labels", [torch.arange(128) // 4, torch.arange(128) % 32])
def test_smooth_ap_of_perfectly_separated_classes_is_zero(labels):
    assert SmoothAPLoss(0.01)(one_hot(labels).float(), labels).item() == pytest.approx(0, abs=1e-6)


# --- questions asked of every loss


@EVERY_LOSS
def test_gradient_is_finite_and_there(build):
    gradient = gradient_of(build(), *embedded())
    assert gradient.isfinite().all()
    assert gradient.count_nonzero()


@EVERY_LOSS
def test_order_of_the_batch_does_not_matter(build):
    embeddings, labels = embedded()
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(build()(embeddings[shuffled], labels[shuffled]), build()(embeddings, labels))
    gradient = gradient_of(build(), embeddings, labels)
    torch.testing.assert_close(gradient_of(build(), embeddings[shuffled], labels[shuffled]), gradient[shuffled])


@EVERY_LOSS
def test_float32_equals_float64(build):
    embeddings, labels = embedded()
    torch.testing.assert_close(build()(embeddings.float(), labels).double(), build()(embeddings, labels))
    single = gradient_of(build(), embeddings.float(), labels).double()
    torch.testing.assert_close(single, gradient_of(build(), embeddings, labels), rtol=1e-4, atol=1e-5)


@EVERY_LOSS
def test_ragged_classes_and_single_images_are_fine(build):
    embeddings, _ = embedded(7)
    gradient = gradient_of(build(), embeddings, torch.tensor([5, 5, 5, -3, -3, 99, 5]))
    assert gradient.isfinite().all()
    assert gradient.count_nonzero()


@EVERY_LOSS
@pytest.mark.parametrize("factor", [65536.0, 1 / 3])
def test_gradient_is_linear_in_what_multiplies_the_loss(build, factor):
    embeddings, labels = embedded()
    (scaled,) = torch.autograd.grad(factor * build()(embeddings, labels), embeddings)
    torch.testing.assert_close(scaled / factor, gradient_of(build(), embeddings, labels))


@EVERY_LOSS
def test_accumulated_halves_equal_the_whole(build):
    embeddings, labels = embedded()
    for _ in range(2):
        (build()(embeddings, labels) / 2).backward()
    torch.testing.assert_close(embeddings.grad, gradient_of(build(), embeddings, labels))


@EVERY_LOSS
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_rank_in_float32(build, half):
    embeddings, labels = embedded(dtype=torch.float32)
    expected = build()(embeddings, labels)
    with torch.autocast("cpu", dtype=half):
        inside = build()(embeddings, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    narrow = embeddings.detach().to(half).requires_grad_()
    loss = build()(narrow, labels)
    assert torch.equal(loss, build()(narrow.detach().float(), labels))
    loss.backward()
    assert narrow.grad.dtype == half


def test_half_precision_scores_survive_a_gradient_scaler():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(8, 20, generator=generator).half().requires_grad_()
    relevance = torch.rand(8, 20, generator=generator) < 0.2
    loss = RecallLoss(4.0).from_scores(scores, relevance)
    (plain,) = torch.autograd.grad(loss, scores, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * 65536, scores)
    assert torch.equal(scaled.float() / 65536, plain.float())
    assert plain.count_nonzero()


@EVERY_LOSS
def test_relevance_of_any_type(build):
    scores = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))
    relevance = torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0]).expand(4, 9)
    results = {
        build().from_scores(scores, relevance.to(kind)).item() for kind in (torch.bool, torch.int64, torch.float32)
    }
    assert len(results) == 1


@pytest.mark.parametrize("counted_at_most", [0, 32])
@pytest.mark.parametrize("options", [{}, {"rule": Identity()}, {"ties": "pessimistic"}])
def test_memory_layout_does_not_matter(options, counted_at_most, monkeypatch):
    monkeypatch.setattr("rambo.ranking.relevant.COUNTED_AT_MOST", counted_at_most)
    generator = torch.Generator().manual_seed(8)
    scores, relevance = torch.randn(9, 6, generator=generator), torch.rand(9, 6, generator=generator) < 0.4
    for loss in (RecallLoss(9.0, 0.1, **options).from_scores, MeanAveragePrecisionLoss(9.0, 0.1, **options)):
        leaves = [scores.clone().requires_grad_(), scores.T.contiguous().T.requires_grad_()]
        for leaf, wanted in zip(leaves, (relevance, relevance.T.contiguous().T), strict=True):
            loss(leaf, wanted).backward()
        assert torch.equal(leaves[0].grad, leaves[1].grad)
        assert leaves[0].grad.count_nonzero()


@EVERY_LOSS
def test_without_a_pair_zero_keeps_the_graph(build):
    embeddings, _ = embedded(4)
    loss = build(on_empty="zero")(embeddings, torch.arange(4))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@EVERY_LOSS
@pytest.mark.parametrize("items", [0, 1, 4])
def test_without_a_pair_nan_and_error_do_not_hide(build, items):
    embeddings = torch.randn(items, 3, requires_grad=True)
    loss = build(on_empty="nan")(embeddings, torch.arange(items))
    assert loss.isnan()
    if items > 1:
        loss.backward()
        assert embeddings.grad.isnan().all()
    with pytest.raises(ValueError, match="nothing is relevant"):
        build(on_empty="error")(embeddings, torch.arange(items))


@EVERY_LOSS
def test_bad_input_is_refused_in_a_sentence(build):
    embeddings, labels = embedded()
    with pytest.raises(ValueError, match=r"12 embeddings but labels of shape \(11,\)"):
        build()(embeddings, labels[:-1])
    with pytest.raises(ValueError, match="2 label columns"):
        build()(embeddings, torch.stack([labels, labels], dim=1))
    with pytest.raises(ValueError, match=r"\(items, dimensions\), got \(12,\)"):
        build()(embeddings[:, 0], labels)
    with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
        build()(embeddings.long(), labels)
    with pytest.raises(ValueError, match="NaN"):
        build()(embeddings * math.nan, labels)
    with pytest.raises(ValueError, match=r"same shape of two dimensions, got \(3, 4\) and \(3, 5\)"):
        build().from_scores(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="two dimensions"):
        build().from_scores(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(TypeError, match="floating point"):
        build().from_scores(torch.zeros(3, 4).long(), torch.zeros(3, 4))


@EVERY_LOSS
def test_options_are_looked_at(build):
    embeddings, labels = embedded()
    stretched = embeddings * torch.rand(12, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(build()(stretched, labels), build()(embeddings, labels))
    assert build(normalize=False)(stretched, labels) != build()(embeddings, labels)
    # kept, an item is its own first neighbour, and so the rest matters less; RS@k only lets it stand in the way
    less = build(exclude_self=False)(embeddings, labels) < build()(embeddings, labels)
    assert less != isinstance(build(), SmoothRecallLoss)


def test_numbers_out_of_range_are_refused():
    for interpolation in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"lambda.*got {interpolation}"):
            RecallLoss(interpolation)
    for margin in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"margin must be >= 0 and finite, got {margin}"):
            RecallLoss(1.0, margin)
    for options in ({"preset": "paper"}, {"ties": "x"}, {"denormalize": "x"}, {"reduction": "x"}, {"on_empty": "x"}):
        with pytest.raises(ValueError, match=r"must be one of .*got '"):
            RecallLoss(1.0, **options)
    with pytest.raises(ValueError, match=r"interclass_weight must be in 0\.\.1, got 2"):
        MeanAveragePrecisionLoss(1.0, interclass_weight=2)
    with pytest.raises(ValueError, match="ap_eps"):
        AveragePrecisionLoss(1.0, ap_eps=-1.0)
    with pytest.raises(ValueError, match="temperature"):
        SmoothAPLoss(math.nan)


# --- weights and rules


def scaled_log(x: Tensor, factor: float) -> Tensor:
    return torch.log1p(factor * x)


def test_own_weight_functions():
    embeddings, labels = embedded()
    built_in = RecallLoss(1.0, weight="log")
    own = RecallLoss(1.0, weight=functools.partial(scaled_log, factor=1.0))
    torch.testing.assert_close(own(embeddings, labels), built_in(embeddings, labels))
    torch.testing.assert_close(gradient_of(own, embeddings, labels), gradient_of(built_in, embeddings, labels))
    assert own.settings["weight"] == "scaled_log(factor=1.0)"
    assert gradient_of(RecallLoss(1.0, weight=torch.sqrt), embeddings, labels).isfinite().all()
    with pytest.raises(ValueError, match=r"be 0 at 0, got 1\.0; subtract"):
        RecallLoss(1.0, weight=lambda x: x + 1)
    with pytest.raises(ValueError, match="act on each entry"):
        RecallLoss(1.0, weight=torch.sum)
    with pytest.raises(ValueError, match="got 'logloglog'"):
        RecallLoss(1.0, weight="logloglog")
    with pytest.raises(TypeError, match="got 3"):
        RecallLoss(1.0, weight=3)


@pytest.mark.parametrize("rule", [Identity(), Identity("std"), SoftRank(0.1)], ids=repr)
def test_other_rules_give_the_same_loss_and_another_gradient(rule):
    embeddings, labels = embedded()
    blackbox, other = RecallLoss(1.0, 0.05), RecallLoss(1.0, 0.05, rule=rule)
    assert torch.equal(blackbox(embeddings, labels), other(embeddings, labels))
    gradient = gradient_of(other, embeddings, labels)
    assert gradient.isfinite().all()
    assert gradient.count_nonzero()
    assert not torch.allclose(gradient, gradient_of(blackbox, embeddings, labels))
    assert other.settings["rule"] == repr(rule)


def test_identity_pushes_relevant_items_only():
    scores = torch.tensor([[0.9, 0.8, 0.7]], requires_grad=True)
    RecallLoss(1.0, weight=lambda x: x, rule=Identity(scale="integer")).from_scores(
        scores, torch.tensor([[0, 0, 1]])
    ).backward()
    assert scores.grad.tolist() == [[0.0, 0.0, -1.0]]


def test_a_tiny_lambda_leaves_no_gradient():
    assert gradient_of(RecallLoss(1e-9), *embedded()).count_nonzero() == 0


# --- memories


def batches(count: int, items: int = 8, sizes: tuple[int, ...] = ()) -> list[tuple[Tensor, Tensor]]:
    return [embedded((sizes or (items,) * count)[k], 3, seed=10 + k) for k in range(count)]


def test_gallery_memory_ranks_stored_items_for_the_current_queries():
    (old, old_labels), (new, new_labels) = batches(2, sizes=(5, 8))
    loss = RecallLoss(1.0, 0.05, memory="gallery", memory_batches=1)
    loss(old, old_labels, ids=torch.arange(5))
    result = loss(new, new_labels, ids=torch.arange(5, 13))

    queries, stored = normalize(new, dim=1), normalize(old, dim=1).detach()
    scores, same = queries @ torch.cat([queries, stored]).T, new_labels[:, None] == torch.cat([new_labels, old_labels])
    keep = ~torch.eye(8, 13, dtype=torch.bool)
    # lambda stays that of the batch, whose items have 7 others
    expected = RecallLoss(1.0, 0.05).from_scores(scores[keep].view(8, 12), same[keep].view(8, 12), items=7)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(torch.autograd.grad(result, new)[0], torch.autograd.grad(expected, new)[0])
    assert old.grad is None


@pytest.mark.parametrize("shared", [False, True])
def test_the_interclass_term_ranks_stored_samples_where_asked_to(shared):
    draws = torch.Generator().manual_seed(5)
    (old, new), relevance = torch.rand(2, 6, 3, generator=draws), torch.rand(2, 6, 3, generator=draws) > 0.7
    settings = {"margin": 0.1, "interclass_weight": 1.0}
    loss = MeanAveragePrecisionLoss(1.0, memory_batches=1, interclass_memory=shared, **settings)
    loss(old, relevance[0])
    new.requires_grad_()
    result = loss(new, relevance[1])

    both = torch.cat([new, old]) if shared else new
    relevant = torch.cat([relevance[1], relevance[0]]) if shared else relevance[1]
    one_class = MeanAveragePrecisionLoss(1.0, 0.1, interclass_weight=0.0)
    expected = one_class(both.reshape(-1, 1), relevant.reshape(-1, 1))
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(torch.autograd.grad(result, new)[0], torch.autograd.grad(expected, new)[0])


def test_row_memory_adds_queries_without_ranking_their_items():
    first, second = batches(2)
    loss = RecallLoss(1.0, weight="log", memory="rows", memory_batches=1)  # corrected otherwise: counts, per query
    alone = [RecallLoss(1.0, weight="log")(*batch) for batch in (first, second)]
    loss(*first)
    torch.testing.assert_close(loss(*second), (alone[0] + alone[1]) / 2)


def test_row_memory_takes_batches_of_other_sizes():
    loss = RecallLoss(1.0, 0.05, "log", "official", memory_batches=2)
    results = [loss(*batch) for batch in batches(3, sizes=(8, 6, 8))]
    assert all(result.isfinite() for result in results)


MEMORIES = {
    "rows": lambda: RecallLoss(1.0, 0.05, memory="rows", memory_batches=2),
    "gallery": lambda: RecallLoss(1.0, 0.05, memory="gallery", memory_batches=2),
    "gallery, AP": lambda: AveragePrecisionLoss(1.0, 0.05, memory_batches=2),
    "classes": lambda: OnClasses(1.0, 0.05, memory_batches=2),
}


class OnClasses(MeanAveragePrecisionLoss):
    """Takes the first three dimensions of an embedding for scores of three classes."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return super().forward(embeddings[:, :3], one_hot(labels, 3))


@pytest.mark.parametrize("build", MEMORIES.values(), ids=MEMORIES)
def test_memory_is_first_in_first_out_and_can_be_emptied(build):
    a, b, c, d = batches(4)
    loss = build()
    for batch in (a, b, c):
        loss(*batch)
    fresh = build()
    for batch in (b, c):
        fresh(*batch)
    assert torch.equal(loss(*d), fresh(*d))
    assert not torch.equal(loss(*d), build()(*d))
    loss.reset_memory()
    assert torch.equal(loss(*d), build()(*d))


@pytest.mark.parametrize("build", MEMORIES.values(), ids=MEMORIES)
def test_memory_is_filled_in_training_only(build):
    first, second = batches(2)
    loss = build()
    loss.eval()(*first)
    with torch.no_grad():
        loss.train()(*first)
    assert len(loss.memory) == 0
    assert torch.equal(loss(*second), build()(*second))
    assert len(loss.memory) == 1


@pytest.mark.parametrize("build", MEMORIES.values(), ids=MEMORIES)
def test_memory_travels_through_a_checkpoint_into_a_fresh_module(build):
    a, b, c = batches(3, sizes=(8, 6, 8))
    loss = build()
    loss(*a)
    loss(*b)
    file = io.BytesIO()
    torch.save(nn.ModuleDict({"loss": loss}).state_dict(), file)
    file.seek(0)
    restored = build()
    nn.ModuleDict({"loss": restored}).load_state_dict(torch.load(file, weights_only=True))
    expected = copy.deepcopy(loss)(*c)
    assert torch.equal(restored(*c), expected)
    assert not torch.equal(expected, build()(*c))


def test_memory_moves_with_the_module_but_keeps_its_precision():
    loss = MEMORIES["gallery"]()
    loss(*batches(1)[0])
    loss.half()
    stored = loss.memory.batches[0]
    assert stored["embeddings"].dtype == torch.float64
    assert stored["labels"].dtype == torch.int64
    loss.to("meta")
    assert loss.memory.batches[0]["embeddings"].device.type == "meta"


def test_contradictions_about_memory_are_refused():
    for options in ({"memory": "rows"}, {"memory": "none", "memory_batches": 2}):
        with pytest.raises(ValueError, match="contradict"):
            RecallLoss(1.0, **options)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        RecallLoss(1.0, memory="rows", memory_batches=-1)
    with pytest.raises(ValueError, match="memory must be one of none, gallery, got 'rows'"):
        AveragePrecisionLoss(1.0, memory="rows", memory_batches=1)
    gallery = MEMORIES["gallery"]()
    with pytest.raises(ValueError, match=r"call the loss with \(embeddings, labels\)"):
        gallery.from_scores(torch.zeros(2, 3), torch.ones(2, 3))
    gallery(*batches(1)[0])
    with pytest.raises(ValueError, match="5 dimensions, this batch has 4; call reset_memory"):
        gallery(torch.randn(4, 4), torch.zeros(4))
    classes = MeanAveragePrecisionLoss(1.0, memory_batches=1)
    classes(torch.randn(4, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match="3 classes, this batch has 2; call reset_memory"):
        classes(torch.randn(4, 2), torch.ones(4, 2))


# --- classes


def test_classes_that_are_absent_are_left_out_of_the_mean():
    scores = torch.tensor([[0.9, 0.3], [0.8, 0.2]], requires_grad=True)
    loss = MeanAveragePrecisionLoss(1.0, interclass_weight=0.0)(scores, torch.tensor([[0, 0], [1, 0]]))
    assert loss.item() == pytest.approx(1 - 1 / 2)
    loss.backward()
    assert torch.equal(scores.grad[:, 1], torch.zeros(2))


@pytest.mark.parametrize("relevant_before", [False, True])
def test_classes_without_any_relevant_sample(relevant_before):
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), requires_grad=True)
    nothing = torch.zeros(4, 3)
    loss = MeanAveragePrecisionLoss(5.0, memory_batches=2)
    if relevant_before:
        loss(torch.zeros(4, 3), torch.eye(4, 3))
    value = loss(scores, nothing)
    value.backward()
    # what was relevant in an earlier batch is ranked among the current scores and pushes them down
    assert (value > 0) == relevant_before
    assert bool(scores.grad.count_nonzero()) == relevant_before
    assert (scores.grad >= 0).all()
    assert len(loss.memory) == 1 + relevant_before
    with pytest.raises(ValueError, match="nothing is relevant"):
        MeanAveragePrecisionLoss(1.0, on_empty="error")(scores, nothing)
    assert MeanAveragePrecisionLoss(1.0, on_empty="nan")(scores, nothing).isnan()


def test_noisy_margin_is_drawn_anew_and_follows_the_seed():
    scores = torch.randn(16, 4, generator=torch.Generator().manual_seed(6))
    relevance = torch.eye(4).repeat(4, 1)
    loss = MeanAveragePrecisionLoss(1.0, margin=1.0, preset="official")
    torch.manual_seed(0)
    first, second = loss(scores, relevance), loss(scores, relevance)
    torch.manual_seed(0)
    assert torch.equal(loss(scores, relevance), first)
    assert not torch.equal(first, second)


def test_class_gradient_is_linear_in_what_multiplies_the_loss():
    scores = torch.randn(10, 4, generator=torch.Generator().manual_seed(7), requires_grad=True)
    relevance, loss = torch.eye(4).repeat(3, 1)[:10], MeanAveragePrecisionLoss(2.0, 0.1)
    (plain,) = torch.autograd.grad(loss(scores, relevance), scores)
    (scaled,) = torch.autograd.grad(65536 * loss(scores, relevance), scores)
    assert torch.equal(scaled, 65536 * plain)
    assert plain.count_nonzero()


# --- what is reported


def test_settings_name_the_preset_and_every_choice():
    official = RecallLoss(0.2, preset="official", memory_batches=3, reduction="macro").settings
    assert official["preset"] == "official"
    assert official["memory"] == "rows"
    assert official["denormalize"] == "rows"
    assert official["reduction"] == "macro"  # overridden
    assert official["ties"] == "last_index_first"
    assert RecallLoss(0.2, memory_batches=3).settings["memory"] == "gallery"
    assert "preset=corrected" in repr(RecallLoss(0.2))
    assert MeanAveragePrecisionLoss(0.2, preset="official").settings["margin_noise"] == "half_normal"


def test_health_tells_of_the_last_call():
    loss = RecallLoss(1.0, weight="log")
    assert loss.health == {}
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]], requires_grad=True)
    loss.from_scores(scores, torch.tensor([[0, 0, 1, 0]])).backward()
    health = {name: number.item() for name, number in loss.health.items()}
    # the relevant item overtakes both before it, so that three of four scores have a gradient
    assert health == {"negatives_before": 2.0, "tie_rate": 0.0, "gradient_share": 0.75}
    assert not any(number.requires_grad for number in loss.health.values())

    with torch.no_grad():
        loss(torch.ones(6, 3), torch.arange(6) // 2)
    assert loss.health["tie_rate"] == 1  # a collapse
    assert "gradient_share" not in loss.health


@EVERY_RANKING_LOSS
def test_health_after_a_batch_without_a_pair_is_not_that_of_the_one_before(build):
    loss = build()
    getattr(loss, "from_scores", loss)(torch.randn(4, 4, requires_grad=True), torch.eye(4))
    assert set(loss.health) == {"negatives_before", "tie_rate", "gradient_share"}
    getattr(loss, "from_scores", loss)(torch.ones(4, 4, requires_grad=True), torch.zeros(4, 4))
    assert loss.health == {"tie_rate": 1.0}


@EVERY_RANKING_LOSS
def test_health_keeps_no_batch_alive_and_travels_with_no_copy(build):
    loss = build()
    fresh = len(pickle.dumps(loss))
    scores = torch.randn(90, 90, requires_grad=True)
    getattr(loss, "from_scores", loss)(scores, torch.eye(90)).backward()
    del scores
    gc.collect()
    held = [found for found in gc.get_objects() if type(found) is Tensor and found.shape == (90, 90)]
    assert held == []
    assert all(number.untyped_storage().nbytes() <= 8 for number in loss.health.values())
    assert len(pickle.dumps(loss)) == fresh
    assert copy.deepcopy(loss).health == {}


def test_a_second_derivative_is_refused():
    embeddings, labels = embedded()
    (gradient,) = torch.autograd.grad(RecallLoss(1.0)(embeddings, labels).square(), embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        gradient.sum().backward()


@pytest.mark.parametrize("rule", [None, Identity("std"), SoftRank()])
@pytest.mark.parametrize("build", [RecallLoss, AveragePrecisionLoss, MeanAveragePrecisionLoss])
def test_the_given_scores_stay_as_they_are(build, rule):
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before, loss = scores.detach().clone(), build(1.0, margin=0.5, rule=rule)
    getattr(loss, "from_scores", loss)(scores, torch.eye(4, 6)).backward()
    assert torch.equal(scores.detach(), before)


# --- weight functions


def behind(before: int, slope: str | None = None, **options) -> tuple[float, float, dict]:
    """A query whose one relevant item stands behind so many: the loss, and its slope in that rank."""
    scores, relevance = torch.arange(8, 0, -1.0)[None].requires_grad_(), torch.zeros(1, 8)
    relevance[0, before] = 1
    loss = RecallLoss(1.0, rule=Identity(scale="integer"), slope=slope, **options)
    value = loss.from_scores(scores, relevance)
    value.backward()
    return value.item(), -scores.grad[0, before].item(), loss.settings


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("k", [1, 3, 7])
def test_recall_at_k_itself_can_be_trained(k, before):
    value, slope, told = behind(before, weight=f"recall@{k}")
    assert value == float(before >= k)  # 1 - recall@k
    assert slope == float(before == k)  # w(r) - w(r - 1)
    assert (told["weight"], told["slope"]) == (f"recall@{k}", "difference")


@pytest.mark.parametrize("before", range(8))
def test_the_slope_is_the_derivative_or_the_difference(before):
    value, slope, told = behind(before, weight="log")
    assert (slope, told["slope"]) == (pytest.approx(1 / (1 + before)), "derivative")
    value, slope, told = behind(before, "difference", weight="log")
    assert value == pytest.approx(math.log1p(before))
    assert slope == pytest.approx(math.log1p(before) - math.log1p(max(0, before - 1)))
    assert told["slope"] == "difference"
    _, slope, _ = behind(before, "difference", weight=lambda x: torch.ceil(x / 4))
    assert slope == (before % 4 == 1)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (lambda x: (x >= 1).float(), 'steps, and a derivative of 0 .* slope="difference"'),
        (lambda x: torch.ceil(x / 4), 'steps, and a derivative of 0 .* slope="difference"'),
        (lambda x: torch.sin(x), "finite and never fall"),
        (lambda x: -x, "finite and never fall"),
        (lambda x: torch.where(x > 3, torch.nan, x), "finite and never fall"),
        (lambda x: x.sum(), "act on each entry"),
        ("recall@0", "positive integer k, got 0"),
        ("recall@x", "log, loglog, recall@k"),
    ],
)
def test_a_weight_that_cannot_be_trained_is_refused_at_once(weight, message):
    with pytest.raises(ValueError, match=message):
        RecallLoss(1.0, weight=weight)
