"""Properties of the gradients on random ragged batches, and proof that counting and sorting give the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rambo.losses import AveragePrecisionLoss, MeanAveragePrecisionLoss, RecallLoss, SmoothAPLoss
from rambo.ranking import Blackbox
from rambo.ranking import relevant as ways
from rambo.ranking.exact import TIES
from rambo.ranking.relevant import CountedRanks, RelevantPlaces, SortedRanks, relevant_ranks, score_gradient

SIZES = {"rows": st.integers(1, 6), "items": st.integers(1, 24), "seed": st.integers(0, 10**6)}
PRECISION = st.sampled_from([torch.float32, torch.float64])


def batch(
    rows: int, items: int, seed: int, levels: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Random scores, of so many distinct values if `levels` is given, and a ragged relevance."""
    generator = torch.Generator().manual_seed(seed)
    if levels:
        scores = torch.randint(-levels, levels + 1, (rows, items), generator=generator).to(dtype) / 4
    else:
        scores = torch.randn(rows, items, generator=generator, dtype=dtype)
    relevance = torch.rand(rows, items, generator=generator) < torch.rand(rows, 1, generator=generator)
    relevance[0, 0] = True  # something is relevant
    return scores, relevance


def gradient_of(loss: Any, scores: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    leaf = scores.clone().requires_grad_()
    value = (loss.from_scores if hasattr(loss, "from_scores") else loss)(leaf, relevance)
    value.backward()
    return value.detach(), leaf.grad


@settings(max_examples=150, deadline=None)
@given(
    **SIZES,
    levels=st.integers(1, 10),
    ties=st.sampled_from(TIES),
    dtype=PRECISION,
    block=st.sampled_from([1, 7, 64, 2**20]),
)
def test_counting_and_sorting_find_the_ranks_by_definition(rows, items, seed, levels, ties, dtype, block):
    scores, relevance = batch(rows, items, seed, levels, dtype)
    if seed % 4 == 0:
        scores[scores == levels / 4] = torch.inf
        scores[scores == -levels / 4] = -torch.inf
    relevant, margin = RelevantPlaces(relevance), (seed % 3) / 4
    generator = torch.Generator().manual_seed(seed + 1)
    steps = torch.randint(-8, 9, (len(relevant),), generator=generator).to(dtype) / 4
    lowered = scores - margin * relevance
    before, among, ranked = counted_by_definition(lowered, relevance, ties)
    changes = []
    for step in (steps, -steps):
        moved = lowered.clone()
        moved[relevance] += step
        changes.append(counted_by_definition(moved, relevance, ties)[2] - ranked)
    expected = before[relevance], among[relevance], *changes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ways, "_comparisons_at_once", lambda device: block)
        for kind in (SortedRanks, CountedRanks):
            found = kind(scores, relevant, ties, margin)
            got = found.before, found.among, found.rank_changes(steps), found.rank_changes(-steps)
            for number, reference in zip(got, expected, strict=True):
                assert number.dtype == dtype
                assert torch.equal(number, reference.to(dtype))


def counted_by_definition(scores: Tensor, relevance: Tensor, ties: str) -> tuple[Tensor, Tensor, Tensor]:
    """The slow reference: irrelevant items before each item, its rank among the relevant ones, its rank among all."""
    place = torch.arange(scores.shape[1])
    sooner = (place > place[:, None] if ties == "last_index_first" else place < place[:, None]).expand(
        len(scores), -1, -1
    )
    if ties == "pessimistic":
        same = relevance[:, None, :] == relevance[:, :, None]
        sooner = torch.where(same, sooner, ~relevance[:, None, :])
    other, own = scores[:, None, :], scores[:, :, None]
    stands_before = (other > own) | ((other == own) & sooner)
    irrelevant_before = (stands_before & ~relevance[:, None, :]).sum(2)
    return irrelevant_before, 1 + (stands_before & relevance[:, None, :]).sum(2), 1 + stands_before.sum(2)


@settings(max_examples=60, deadline=None)
@given(**SIZES, levels=st.integers(0, 10), ties=st.sampled_from(TIES), dtype=PRECISION)
def test_counting_and_sorting_give_every_loss_the_same_gradient(rows, items, seed, levels, ties, dtype):
    scores, relevance = batch(rows, items, seed, levels, dtype)
    for build in (
        lambda: RecallLoss(1.0, 0.25, ties=ties),
        lambda: RecallLoss(1.0, 0.25, "log", "official", ties=ties),
        lambda: AveragePrecisionLoss(1.0, 0.25, ties=ties),
        lambda: MeanAveragePrecisionLoss(1.0, 0.25, ties=ties),
    ):
        (value, gradient), (same_value, same_gradient) = counted_and_sorted(build, scores, relevance)
        assert torch.equal(same_gradient, gradient)
        assert torch.equal(same_value, value)


def counted_and_sorted(build: Any, scores: Tensor, relevance: Tensor) -> list[tuple[Tensor, Tensor]]:
    found = []
    for bound in (10**9, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ways, "COUNTED_AT_MOST", bound)
            found.append(gradient_of(build(), scores, relevance))
    return found


@settings(max_examples=40, deadline=None)
@given(**SIZES, levels=st.integers(0, 6), ties=st.sampled_from(TIES))
def test_the_short_way_is_the_general_rule(rows, items, seed, levels, ties):
    scores, relevance = batch(rows, items, seed, levels)
    relevant, rule = RelevantPlaces(relevance), Blackbox(2.0)
    upstream = torch.rand(len(relevant), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.3
    dense = torch.zeros_like(scores)
    dense[relevance] = upstream
    short = score_gradient(rule, relevant_ranks(scores, relevant, ties), upstream)
    assert torch.equal(short, rule.score_gradient(scores, dense, ties, relevance))


@settings(max_examples=60, deadline=None)
@given(**SIZES, interpolation=st.floats(0.01, 20), weight=st.sampled_from(["log", "loglog"]))
def test_each_row_of_the_gradient_sums_to_zero(rows, items, seed, interpolation, weight):
    _, gradient = gradient_of(RecallLoss(interpolation, weight=weight), *batch(rows, items, seed))
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(rows).double(), atol=1e-9, rtol=0)


@settings(max_examples=60, deadline=None)
@given(**SIZES, interpolation=st.floats(0.01, 20), preset=st.sampled_from(["official", "corrected"]))
def test_gradients_are_multiples_of_one_over_items_and_lambda(rows, items, seed, interpolation, preset):
    _, gradient = gradient_of(RecallLoss(interpolation, 0.1, preset=preset), *batch(rows, items, seed))
    multiples = gradient * items * interpolation
    torch.testing.assert_close(multiples, multiples.round(), atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    **SIZES, interpolation=st.floats(0.01, 20), weight=st.sampled_from(["log", "loglog", torch.Tensor.sqrt, torch.tanh])
)
def test_relevant_items_are_raised_and_others_lowered(rows, items, seed, interpolation, weight):
    scores, relevance = batch(rows, items, seed)
    _, gradient = gradient_of(RecallLoss(interpolation, 0.1, weight), scores, relevance)
    assert (gradient[relevance] <= 0).all()
    assert (gradient[~relevance] >= 0).all()


@settings(max_examples=40, deadline=None)
@given(**SIZES, batches=st.integers(1, 4))
def test_row_memory_of_equal_batches_only_reshapes_the_weight(rows, items, seed, batches):
    """k equal batches in the loss give the gradient of one batch under the weight function w(k x) / k."""
    scores, relevance = batch(rows, items, seed)
    remembering = RecallLoss(2.0, 0.1, "log", "official", memory_batches=3)
    for _ in range(batches):
        _, gradient = gradient_of(remembering, scores, relevance)
    reshaped = RecallLoss(2.0, 0.1, lambda x: torch.log1p(batches * x) / batches, "official")
    torch.testing.assert_close(gradient, gradient_of(reshaped, scores, relevance)[1])


def test_long_sequences():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1, 20000, generator=generator)  # float32, so that some are equal
    assert scores.unique().numel() < 20000
    relevance = torch.rand(1, 20000, generator=generator) < 0.01
    (_, counted), (_, sorted_) = counted_and_sorted(lambda: AveragePrecisionLoss(4.0), scores, relevance)
    assert torch.equal(counted, sorted_)
    assert counted.count_nonzero() > 100


EVERY_LOSS = {
    "recall": lambda: RecallLoss(1.0),
    "recall, micro": lambda: RecallLoss(1.0, reduction="micro", denormalize="rows"),
    "average precision": lambda: AveragePrecisionLoss(1.0),
    "mean average precision": lambda: MeanAveragePrecisionLoss(1.0),
    "smooth AP": lambda: SmoothAPLoss(0.01),
    "smooth AP, micro": lambda: SmoothAPLoss(0.01, reduction="micro"),
    "average precision, micro": lambda: AveragePrecisionLoss(1.0, reduction="micro"),
}


@settings(max_examples=80, deadline=None)
@given(**SIZES, dtype=PRECISION, name=st.sampled_from(sorted(EVERY_LOSS)))
def test_a_perfect_ranking_costs_exactly_nothing_and_no_other_less(rows, items, seed, dtype, name):
    scores, relevance = batch(rows, items, seed, dtype=dtype)
    loss = EVERY_LOSS[name]()
    of_scores = getattr(loss, "from_scores", loss)
    assert of_scores(scores, relevance) >= 0
    perfect = of_scores(scores + 100 * relevance, relevance)  # across the rows as well
    assert perfect == 0
    assert perfect.dtype == dtype


@settings(max_examples=80, deadline=None)
@given(**SIZES, name=st.sampled_from(sorted(EVERY_LOSS)))
def test_float64_is_exact_and_float32_near_it(rows, items, seed, name):
    scores, relevance = batch(rows, items, seed, levels=0 if "smooth" in name else 3)
    value, gradient = gradient_of(EVERY_LOSS[name](), scores, relevance)
    single, single_gradient = gradient_of(EVERY_LOSS[name](), scores.float(), relevance)
    torch.testing.assert_close(single.double(), value, rtol=1e-5, atol=1e-4 if "smooth" in name else 1e-6)
    if "smooth" not in name:
        assert (single_gradient.double() - gradient).abs().gt(1e-5).double().mean() < 0.2  # steps that end in a tie
    if name == "average precision":
        expected = 0.0
        order = scores.argsort(dim=1, descending=True, stable=True)
        for row in relevance.gather(1, order).double():
            if row.any():
                precision = row.cumsum(0) / torch.arange(1, items + 1)
                expected += (1 - (precision * row).sum() / row.sum()).item()
        assert value.item() == pytest.approx(expected / relevance.any(1).sum().item(), abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(**SIZES, name=st.sampled_from(sorted(EVERY_LOSS)))
def test_the_order_of_rows_and_columns_changes_nothing(rows, items, seed, name):
    scores, relevance = batch(rows, items, seed)  # without ties, which the order of columns breaks
    value, gradient = gradient_of(EVERY_LOSS[name](), scores, relevance)
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.randperm(rows, generator=generator), torch.randperm(items, generator=generator)
    same, moved = gradient_of(EVERY_LOSS[name](), scores[row][:, column], relevance[row][:, column])
    torch.testing.assert_close(same, value)
    torch.testing.assert_close(moved, gradient[row][:, column])
