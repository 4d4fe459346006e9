"""Properties of the gradients on random ragged batches, and proof that every strategy gives the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rambo.losses import AveragePrecisionLoss, MeanAveragePrecisionLoss, RecallLoss, SmoothAPLoss
from rambo.ranking import Blackbox
from rambo.ranking import strategies as rank_strategies
from rambo.ranking.exact import TIES
from rambo.ranking.relevant import Relevant
from rambo.ranking.relevant_ranks import STRATEGIES, fastest, relevant_ranks, score_gradient
from rambo.ranking.strategies import CountedRanks, MergedRanks, SortedRanks

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
def test_every_strategy_finds_the_same_ranks_and_changes(rows, items, seed, levels, ties, dtype, block):
    scores, relevance = batch(rows, items, seed, levels, dtype)
    if seed % 4 == 0:
        scores[scores == levels / 4] = torch.inf
        scores[scores == -levels / 4] = -torch.inf
    relevant, margin = Relevant(relevance), (seed % 3) / 4
    generator = torch.Generator().manual_seed(seed + 1)
    steps = torch.randint(-8, 9, (len(relevant),), generator=generator).to(dtype) / 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_strategies, "_block_size", lambda device: block)
        expected, *others = [
            (found.before, found.among, found.rank_changes(steps), found.rank_changes(-steps))
            for found in (kind(scores, relevant, ties, margin) for kind in (SortedRanks, CountedRanks, MergedRanks))
        ]
    for other in others:
        for got, reference in zip(other, expected, strict=True):
            assert got.dtype == dtype
            assert torch.equal(got, reference)


@settings(max_examples=60, deadline=None)
@given(**SIZES, levels=st.integers(0, 10), ties=st.sampled_from(TIES), dtype=PRECISION)
def test_every_strategy_gives_every_loss_the_same_gradient(rows, items, seed, levels, ties, dtype):
    scores, relevance = batch(rows, items, seed, levels, dtype)
    for build in (
        lambda strategy: RecallLoss(1.0, 0.25, ties=ties, strategy=strategy),
        lambda strategy: RecallLoss(1.0, 0.25, "log", "official", ties=ties, strategy=strategy),
        lambda strategy: AveragePrecisionLoss(1.0, 0.25, ties=ties, strategy=strategy),
        lambda strategy: MeanAveragePrecisionLoss(1.0, 0.25, ties=ties, strategy=strategy),
    ):
        value, gradient = gradient_of(build("sorted"), scores, relevance)
        for strategy in ("counting", "merging", "auto"):
            same_value, same_gradient = gradient_of(build(strategy), scores, relevance)
            assert torch.equal(same_gradient, gradient)
            torch.testing.assert_close(same_value, value)


@settings(max_examples=40, deadline=None)
@given(**SIZES, levels=st.integers(0, 6), ties=st.sampled_from(TIES))
def test_the_short_way_is_the_general_rule(rows, items, seed, levels, ties):
    scores, relevance = batch(rows, items, seed, levels)
    relevant, rule = Relevant(relevance), Blackbox(2.0)
    upstream = torch.rand(len(relevant), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.3
    dense = torch.zeros_like(scores)
    dense[relevance] = upstream
    short = score_gradient(rule, relevant_ranks(scores, relevant, ties), scores, relevant, upstream, ties)
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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_long_sequences(strategy):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1, 20000, generator=generator)  # float32, so that some are equal
    assert scores.unique().numel() < 20000
    relevance = torch.rand(1, 20000, generator=generator) < 0.01
    expected = gradient_of(AveragePrecisionLoss(4.0, strategy="sorted"), scores, relevance)[1]
    assert torch.equal(gradient_of(AveragePrecisionLoss(4.0, strategy=strategy), scores, relevance)[1], expected)
    assert expected.count_nonzero() > 100


def test_the_strategy_suits_the_shape():
    assert fastest(128, 127, 3, 384) == "counting"
    assert fastest(20, 32768, 1000, 20000) == "merging"
    assert fastest(20, 32768, 1000, 20000, threads=2) == "sorted"  # which gains more from a second thread
    assert fastest(1, 320000, 2000, 2000, threads=2) == "merging"  # but not on a single row
    assert fastest(1, 320000, 160000, 160000) == "sorted"
    assert fastest(4, 0, 0, 0) == "sorted"


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
