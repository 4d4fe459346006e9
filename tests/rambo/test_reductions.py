"""Items to be ignored, the ways from queries to a loss, and what may stand for labels: of every retrieval loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rambo.losses import AveragePrecisionLoss, MeanAveragePrecisionLoss, RecallLoss
from rambo.ranking import Blackbox, Identity, SoftRank
from tests.rambo.retrieval_losses import EVERY_LOSS, LOSSES


def drawn(seed: int = 0, rows: int = 7, items: int = 12) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, items, generator=draws, dtype=torch.float64)
    return scores.requires_grad_(), torch.rand(rows, items, generator=draws) < 0.3


def gradient(value: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0]


# --- ignored items


@EVERY_LOSS
def test_ignored_columns_are_as_if_they_were_not_there(build):
    scores, relevance = drawn()
    ignored = torch.tensor([1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0]).expand(7, 12)
    there = ignored[0] == 0
    value, expected = (
        build().from_scores(scores, relevance, ignored),
        build().from_scores(scores[:, there], relevance[:, there]),
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, scores), gradient(expected, scores))


@EVERY_LOSS
def test_what_each_row_ignores_is_its_own_affair(build):
    scores, relevance = drawn()
    ignored = torch.rand(7, 12, generator=torch.Generator().manual_seed(1)) < 0.4
    each = build(reduction="none").from_scores(scores, relevance, ignored)
    for row in range(7):
        there = ~ignored[row]
        if not relevance[row, there].any():
            assert not each[row] > 0
            continue
        alone = build(reduction="none")
        if build is LOSSES["recall, official"]:
            continue  # counts r in rows of the batch
        (value,) = alone.from_scores(scores[row : row + 1, there], relevance[row : row + 1, there])
        torch.testing.assert_close(each[row], value)
        torch.testing.assert_close(gradient(each[row], scores), gradient(value, scores))


OPTIONS: list[dict[str, Any]] = [{}]
OPTIONS += [{"ties": ties} for ties in ("last_index_first", "pessimistic")]
OPTIONS += [{"rule": rule} for rule in (Identity(), SoftRank(0.3), Blackbox(1.0, projection="std"))]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("counted_at_most", [0, 32])
def test_every_way_to_rank_knows_of_ignored_items(options, counted_at_most, monkeypatch):
    monkeypatch.setattr("rambo.ranking.relevant.COUNTED_AT_MOST", counted_at_most)
    scores, relevance = drawn(2)
    scores = (scores.detach() * 2).round().div(2).requires_grad_()  # many ties
    ignored = torch.arange(12).expand(7, 12) % 3 == torch.arange(7)[:, None] % 3
    rows = [scores[row, ~ignored[row]] for row in range(7)], [relevance[row, ~ignored[row]] for row in range(7)]
    value = RecallLoss(1.0, 0.1, **options).from_scores(scores, relevance, ignored)
    expected = RecallLoss(1.0, 0.1, **options).from_scores(torch.stack(rows[0]), torch.stack(rows[1]))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, scores), gradient(expected, scores))
    assert (gradient(value, scores)[ignored] == 0).all()


@EVERY_LOSS
def test_nan_and_infinity_may_stand_where_nobody_looks(build):
    scores, relevance = drawn()
    ignored = torch.zeros(7, 12, dtype=torch.bool)
    ignored[:, 3] = True
    expected = build().from_scores(scores, relevance, ignored)
    for odd in (math.nan, math.inf, -math.inf):
        strange = scores.detach().clone()
        strange[:, 3] = odd
        strange.requires_grad_()
        value = build().from_scores(strange, relevance, ignored)
        assert value == expected
        assert torch.equal(gradient(value, strange), gradient(expected, scores))


@EVERY_LOSS
def test_ignored_pairs_of_a_batch(build):
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    doubtful = torch.zeros(6, 6)
    doubtful[:, 5] = 1
    assert build()(embeddings, labels, ignored=doubtful) != build()(embeddings, labels)
    with pytest.raises(ValueError, match=r"ignored must have the shape \(6, 6\), got \(6, 5\)"):
        build()(embeddings, labels, ignored=doubtful[:, 1:])
    with pytest.raises(ValueError, match=r"ignored must have the shape \(7, 12\), got \(1, 12\)"):
        build().from_scores(*drawn(), ignored=torch.zeros(1, 12))


@pytest.mark.parametrize(
    "options", [{}, {"memory_batches": 2}, {"memory_batches": 2, "interclass_memory": True}], ids=str
)
def test_ignored_samples_of_classes(options):
    """Ignored in every class, a sample is as if it were not there, now and in the memory."""
    scores, relevance = drawn(4, rows=10, items=3)
    ignored = torch.arange(10) % 3 == 1
    some, fewer = (MeanAveragePrecisionLoss(1.0, 0.1, **options) for _ in range(2))
    for _ in range(3):
        value = some(scores, relevance, ignored[:, None].expand(10, 3))
        expected = fewer(scores[~ignored], relevance[~ignored])
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient(value, scores), gradient(expected, scores))
    if options:
        torch.testing.assert_close(some(scores, relevance), fewer(scores, relevance))
    one = MeanAveragePrecisionLoss(1.0, interclass_weight=0.0)
    doubtful = torch.tensor([[1, 0], [0, 0], [0, 0]])  # by class
    value = one(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.4]]), torch.tensor([[0, 0], [1, 0], [0, 1]]), doubtful)
    assert value.item() == 0


# --- reductions


@EVERY_LOSS
def test_a_value_for_each_query_and_the_means_of_them(build):
    scores, relevance = drawn()
    relevance[2] = False
    counts, there = relevance.sum(1), relevance.any(1)
    classes = torch.tensor([5, 5, 9, -1, 5, -1, 9])
    each = build(reduction="none").from_scores(scores, relevance)
    assert each.shape == (7,)
    values = each[there]
    expected = {
        "macro": values.mean(),
        "micro": (values * counts[there]).sum() / counts.sum(),
        "class": torch.stack([each[(classes == k) & there].mean() for k in (5, 9, -1)]).mean(),
    }
    for reduction, value in expected.items():
        found = build(reduction=reduction).from_scores(scores, relevance, classes=classes)
        torch.testing.assert_close(found, value)
        assert gradient(found, scores).isfinite().all()


@EVERY_LOSS
def test_classes_weigh_alike_whatever_their_size(build):
    embeddings = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0] * 7 + [1] * 3 + [2] + [3])
    each = build(reduction="none")(embeddings, labels)
    balanced = build(reduction="class")(embeddings, labels)
    torch.testing.assert_close(balanced, (each[:7].mean() + each[7:10].mean()) / 2)
    assert build(reduction="class").settings["reduction"] == "class"
    with pytest.raises(ValueError, match="needs the class of each query"):
        build(reduction="class").from_scores(*drawn())
    with pytest.raises(ValueError, match=r"7 queries but classes of shape \(6,\)"):
        build(reduction="class").from_scores(*drawn(), classes=range(6))
    with pytest.raises(ValueError, match=r"7 queries but classes of shape \(7, 2\)"):
        build(reduction="class").from_scores(*drawn(), classes=[[0, 1]] * 7)
    with pytest.raises(ValueError, match="reduction must be one of macro, micro, class, none"):
        build(reduction="sum")


@pytest.mark.parametrize("build", [RecallLoss, AveragePrecisionLoss])
def test_the_mean_of_values_has_the_gradient_of_n_times_the_lambda(build):
    scores, relevance = drawn(3)
    relevance[4] = False
    queries = int(relevance.any(1).sum())
    each = build(0.5, reduction="none").from_scores(scores, relevance)
    found = gradient(each.sum() / queries, scores)
    torch.testing.assert_close(found, gradient(build(0.5 * queries).from_scores(scores, relevance), scores))
    assert not torch.equal(found, gradient(build(0.5).from_scores(scores, relevance), scores))
    weights = torch.arange(7.0, dtype=torch.float64)  # and it is linear in what each is multiplied by
    torch.testing.assert_close(
        gradient(each * weights, scores), gradient(each, scores) * weights[:, None], equal_nan=True
    )


@EVERY_LOSS
def test_queries_with_nothing_to_find(build):
    scores, relevance = drawn()
    relevance[2] = False
    for on_empty, value in (("zero", 0.0), ("nan", math.nan), ("error", math.nan)):
        each = build(reduction="none", on_empty=on_empty).from_scores(scores, relevance)
        assert each[2].item() == value or (math.isnan(value) and each[2].isnan())
        assert each.isfinite().sum() == 7 - math.isnan(value)
        assert not gradient(each, scores)[2].any()
    nothing = torch.zeros(7, 12)
    assert torch.equal(
        build(reduction="none", on_empty="zero").from_scores(scores, nothing), torch.zeros(7, dtype=torch.float64)
    )
    assert build(reduction="none", on_empty="nan").from_scores(scores, nothing).isnan().all()
    with pytest.raises(ValueError, match="nothing is relevant"):
        build(reduction="none", on_empty="error").from_scores(scores, nothing)


def test_a_memory_of_rows_has_one_mean():
    for reduction in ("class", "none"):
        with pytest.raises(ValueError, match=f"reduction='{reduction}' has no place for"):
            RecallLoss(1.0, memory="rows", memory_batches=1, reduction=reduction)


# --- labels


@EVERY_LOSS
def test_labels_of_any_kind_that_says_exactly_which_class(build):
    embeddings, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), [0, 2, 2, 0, 1, 0]
    expected = build()(embeddings, torch.tensor(labels))
    kinds = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.float32, torch.float64, torch.float16]
    for given in [labels, np.array(labels), np.array(labels, dtype=np.uint16)] + [
        torch.tensor(labels).to(k) for k in kinds
    ]:
        assert build()(embeddings, given) == expected
        ids = list(range(6))
        ids = torch.tensor(ids).to(given.dtype) if isinstance(given, Tensor) else np.array(ids)
        assert build()(embeddings, labels, None, embeddings.clone(), given, ids=ids, ref_ids=ids) == expected


@EVERY_LOSS
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.tensor([1, 2, 2049, 2048]).half(), "float16 hold 2048.*merged; give integers"),
        (torch.tensor([1, 2, 257, 256]).bfloat16(), "bfloat16 hold 256.*merged"),
        (torch.tensor([0, 1, 2**24, 2**24 + 1]).float(), "float32 hold 1.67772e"),
        (torch.tensor([0.0, 0.5, 1.0, 1.0]), "float32 hold 0.5, which is not whole"),
        (np.array([0.0, math.nan, 1.0, 1.0]), "float64 hold nan"),
    ],
)
def test_labels_that_would_merge_classes_are_refused(build, labels, told):
    with pytest.raises(ValueError, match=told):
        build()(torch.randn(4, 3), labels)


@EVERY_LOSS
@pytest.mark.parametrize(
    "labels", [None, ["cat", "dog", "cat", "dog"], np.array(["a", "a", "b", "b"]), torch.ones(4) * 1j]
)
def test_what_is_no_number_is_refused_in_a_sentence(build, labels):
    with pytest.raises(TypeError, match="labels must be whole numbers in a tensor, an array or a list, got"):
        build()(torch.randn(4, 3), labels)
