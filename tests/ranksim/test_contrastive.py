"""Rank-N-Contrast and ConR: their arithmetic, slow definitions, and what training with them does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranksim.bins import Bins, Density
from ranksim.imbalance import Reweighting
from ranksim.losses.contrastive import ConR, RankNContrast, label_distances, rank_n_contrast
from ranksim.losses.rank_similarity import RankSimilarity
from ranksim.losses.regression import L1
from ranksim.model import Regressed
from ranksim.objective import RegressionObjective

CASES = {"rows": st.integers(1, 9), "levels": st.integers(1, 6), "seed": st.integers(0, 10**6)}


def drawn(rows, levels, seed, features=4):
    """Features, integer targets with ties, and predictions near them, in float64."""
    draws = torch.Generator().manual_seed(seed)
    target = torch.randint(0, levels, (rows,), generator=draws).double()
    prediction = target + 1.5 * torch.randn(rows, generator=draws, dtype=torch.float64)
    return torch.randn(rows, features, generator=draws, dtype=torch.float64), target, prediction


# Rank-N-Contrast


def slow_rank_n_contrast(features, targets, temperature, similarity):
    """The definition, one pair at a time."""
    n = len(features)

    def likeness(i, j):
        if similarity == "cosine":
            return torch.dot(features[i], features[j]) / (features[i].norm() * features[j].norm())
        return -(features[i] - features[j]).norm()

    def apart(i, j):
        return (targets[i] - targets[j]).abs().sum()

    total = torch.zeros((), dtype=features.dtype)
    for i in range(n):
        for j in range(n):
            if j != i:
                rivals = [k for k in range(n) if k != i and apart(i, k) >= apart(i, j)]
                terms = torch.stack([(likeness(i, k) / temperature).exp() for k in rivals])
                total = total - ((likeness(i, j) / temperature).exp() / terms.sum()).log()
    return total / max(1, n * (n - 1))


@pytest.mark.parametrize("similarity", ["negative_l2", "cosine"])
@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_rank_n_contrast_equals_its_definition_also_with_ties(similarity, rows, levels, seed):
    features, target, _ = drawn(rows, levels, seed)
    fast, slow = features.clone().requires_grad_(), features.clone().requires_grad_()
    value = RankNContrast(weight=3.0, temperature=0.7, similarity=similarity)(fast, target)
    expected = 3.0 * slow_rank_n_contrast(slow, target, 0.7, similarity)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.backward()
    if rows > 1:
        expected.backward()
        torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-7, atol=1e-10)
    else:
        assert value == 0
        assert fast.grad.abs().max() == 0


def test_three_samples_on_a_line():
    features, target = torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([10.0, 20.0, 40.0])
    got = RankNContrast(temperature=1.0)(features, target)
    # nearer of two: its share among both; the farther one is compared with itself alone and costs nothing
    first = math.log(math.exp(-1) + math.exp(-4)) + 1
    second = math.log(math.exp(-1) + math.exp(-3)) + 1
    third = math.log(math.exp(-3) + math.exp(-4)) + 3
    assert got.item() == pytest.approx((first + second + third) / 6, rel=1e-6)


def test_one_label_compares_with_everybody():
    features, _, _ = drawn(6, 1, seed=0)
    got = RankNContrast()(torch.zeros(6, 3), torch.full((6,), 30.0))
    assert got.item() == pytest.approx(math.log(5), rel=1e-6)
    assert RankNContrast()(features, torch.zeros(6)) > math.log(5)


def test_features_in_the_order_of_labels_cost_less():
    target = torch.arange(12.0)
    ordered = target[:, None] * 3
    shuffled = ordered[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    assert RankNContrast()(ordered, target) < RankNContrast()(shuffled, target) / 3


def test_training_with_it_orders_features_by_label():
    draws = torch.Generator().manual_seed(7)
    target = torch.rand(24, generator=draws) * 100
    features = torch.randn(24, 2, generator=draws).requires_grad_()
    optimizer, loss = torch.optim.Adam([features], lr=0.1), RankNContrast()

    def disorder():
        """Share of triples whose features disagree with their labels on who is nearer."""
        near, alike = label_distances(target), torch.cdist(features, features)
        return ((near[:, :, None] < near[:, None]) & (alike[:, :, None] > alike[:, None])).double().mean().item()

    before = disorder()
    for _ in range(150):
        optimizer.zero_grad()
        loss(features, target).backward()
        optimizer.step()
    assert disorder() < before / 10
    assert 0 < loss.health["pair_probability"] < 1


def test_features_far_apart_neither_overflow_nor_vanish():
    for scale in (1e-6, 1e4):
        leaf = (drawn(8, 4, seed=1)[0].float() * scale).requires_grad_()
        loss = RankNContrast()(leaf, drawn(8, 4, seed=1)[1].float())
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(leaf.grad).all()


def test_equal_features_have_a_finite_gradient():
    for loss in (RankNContrast(), RankNContrast(similarity="cosine"), ConR()):
        for value in (0.0, 2.0):
            leaf = torch.full((5, 3), value, requires_grad=True)
            target = torch.tensor([1.0, 1.0, 5.0, 5.0, 9.0])
            loss(leaf, *((target, torch.full((5,), 4.0)) if isinstance(loss, ConR) else (target,))).backward()
            assert torch.isfinite(leaf.grad).all()
            assert leaf.grad.abs().max() < 1e3


def test_close_features_far_from_the_origin_are_told_apart():
    """Distances worked out from products would lose them: beside 1000^2, float32 has no room for 0.01^2."""
    target = torch.arange(40.0)
    features = (1000 + 0.02 * target + 0.02 * torch.rand(40, generator=torch.Generator().manual_seed(0)))[:, None]
    exact = RankNContrast(temperature=0.02)(features.double(), target)
    torch.testing.assert_close(RankNContrast(temperature=0.02)(features, target).double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("power", ["l1", "l2"])
def test_vectors_are_as_far_apart_as_their_norm_says(power):
    target = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 6.0]])
    expected = {"l1": [7.0, 6.0, 5.0], "l2": [5.0, 6.0, math.sqrt(13)]}[power]
    got = label_distances(target, power)
    assert torch.equal(got, got.T)
    assert [got[0, 1].item(), got[0, 2].item(), got[1, 2].item()] == pytest.approx(expected)
    # the two disagree on who is nearer to the first, so their orders, and values, differ
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    nearest = 1 if expected[0] < expected[1] else 2
    alike = -torch.cdist(features, features) / 2
    first = torch.logsumexp(alike[0, 1:], 0) - alike[0, nearest]
    pairs = rank_n_contrast(alike, got)
    torch.testing.assert_close(pairs[0], torch.stack([first, torch.zeros(())]), rtol=1e-5, atol=1e-6)
    value = RankNContrast(label_distance=power)(features, target)
    torch.testing.assert_close(value, pairs.mean(), rtol=1e-5, atol=1e-6)


def test_two_views_are_a_batch_of_twice_the_rows():
    features, target, prediction = drawn(5, 3, seed=3)
    views, twice = torch.cat([features, features + 0.1]), torch.cat([target, target])
    expected = slow_rank_n_contrast(views, twice, 2.0, "negative_l2")
    torch.testing.assert_close(RankNContrast()(views, twice), expected)
    loss = ConR()
    loss(views, twice, torch.cat([prediction, prediction]))
    assert loss.health["positives"] >= 1  # the other view


# ConR


def slow_conr(features, targets, predictions, window, temperature, pushing, weights=None, legacy=False):
    """The definition, one anchor at a time."""
    n = len(features)
    unit = [row / row.norm() for row in features]
    total = torch.zeros((), dtype=features.dtype)
    for i in range(n):
        positives = [j for j in range(n) if j != i and abs(targets[i] - targets[j]) <= window]
        negatives = [
            j
            for j in range(n)
            if abs(targets[i] - targets[j]) > window and abs(predictions[i] - predictions[j]) <= window
        ]
        if not positives or not negatives:
            continue
        weight = 1.0 if weights is None else weights[i]
        likeness = [(torch.dot(unit[i], unit[j]) / temperature).exp() for j in range(n)]
        push = sum(weight * math.exp(pushing * abs(targets[i] - targets[j])) * likeness[j] for j in negatives)
        share = sum(likeness[j] for j in positives) + push + (n - len(positives) if legacy else 0)
        total = total + weight * sum(-(likeness[j] / share).log() for j in positives) / len(positives)
    return total / n


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_conr_equals_its_definition(weighted, legacy, rows, levels, seed):
    features, target, prediction = drawn(rows, levels, seed)
    weights = torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    weights = weights if weighted else None
    fast, slow = features.clone().requires_grad_(), features.clone().requires_grad_()
    options = {"window": 1.0, "temperature": 0.3, "pushing": 0.4}
    value = ConR(weight=4.0, **options, legacy_denominator=legacy)(fast, target, prediction, weights)
    expected = 4.0 * slow_conr(slow, target, prediction, **options, weights=weights, legacy=legacy)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.backward()
    if expected.requires_grad:
        expected.backward()
        torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-7, atol=1e-10)
    else:
        assert value == 0
        assert fast.grad.abs().max() == 0


def test_the_definition_is_met_by_cases_with_and_without_anchors():
    """So that the comparison above is not one of zeros."""
    counts = []
    for seed in range(20):
        loss, (features, target, prediction) = ConR(), drawn(8, 6, seed)
        loss(features, target, prediction)
        counts.append(loss.health["anchors"].item())
    assert min(counts) < 0.5 < max(counts)


def test_three_samples_of_which_one_is_predicted_wrongly():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    target, prediction = torch.tensor([30.0, 31.0, 60.0]), torch.tensor([30.0, 40.0, 30.5])
    loss = ConR(weight=2.0, temperature=0.5, pushing=0.01)
    # only the first has a positive (the second) and a negative (the third): cosines 0 and -1
    share = 1 / (1 + math.exp(0.01 * 30) * math.exp(-2))
    assert loss(features, target, prediction).item() == pytest.approx(2 * -math.log(share) / 3, rel=1e-6)
    assert {name: round(value.item(), 6) for name, value in loss.health.items()} == {
        "anchors": round(1 / 3, 6),
        "positives": round(2 / 3, 6),
        "negatives": round(2 / 3, 6),
    }
    legacy = ConR(weight=2.0, temperature=0.5, pushing=0.01, legacy_denominator=True)
    share = 1 / (1 + math.exp(0.01 * 30) * math.exp(-2) + 2)
    assert legacy(features, target, prediction).item() == pytest.approx(2 * -math.log(share) / 3, rel=1e-6)


def test_what_is_predicted_well_costs_nothing():
    features, target, _ = drawn(10, 5, seed=4)
    leaf = features.clone().requires_grad_()
    loss = ConR()(leaf, 10 * target, 10 * target)
    loss.backward()
    assert loss == 0
    assert leaf.grad.abs().max() == 0


def test_the_gradient_pushes_negatives_away_and_the_harder_the_farther_the_label():
    def push(label, weights=None):
        leaf = torch.tensor([[1.0, 0.2], [1.0, 0.0], [1.0, 0.1]], requires_grad=True)
        target = torch.tensor([30.0, 30.0, label])
        ConR(pushing=0.05)(leaf, target, torch.tensor([30.0, 40.0, 30.0]), weights).backward()
        return leaf.grad[2]

    near, far, rare = push(35.0), push(80.0), push(35.0, torch.tensor([3.0, 1.0, 1.0]))
    towards = torch.tensor([-0.1, 1.0])  # of the anchor's direction, along the circle
    assert torch.dot(near, towards) > 0  # descent moves it the other way
    assert torch.dot(far, towards) > torch.dot(near, towards)
    assert torch.dot(rare, towards) > 3 * torch.dot(near, towards)


def test_predictions_choose_pairs_but_get_no_gradient():
    features, target, prediction = drawn(8, 4, seed=5)
    prediction.requires_grad_()
    ConR()(features.requires_grad_(), target, prediction).backward()
    assert prediction.grad is None
    assert ConR.wants_predictions


def test_an_anchor_of_no_weight_counts_nothing():
    features, target, prediction = drawn(8, 4, seed=5)
    leaf = features.clone().requires_grad_()
    loss = ConR()(leaf, target, prediction, torch.zeros(8))
    loss.backward()
    assert loss == 0
    assert leaf.grad.abs().max() == 0


def test_a_sample_of_no_weight_with_negatives_alone_has_no_gradient():
    leaf = drawn(4, 4, seed=5)[0].requires_grad_()
    target = torch.tensor([1.0, 1.0, 9.0, 20.0])
    ConR()(leaf, target, torch.full((4,), 5.0), torch.tensor([1.0, 1.0, 0.0, 0.0])).backward()
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad[2].abs().sum() > 0  # as a negative of the first two


def test_features_of_any_shape_are_flattened_and_their_length_does_not_matter_to_conr():
    features, target, prediction = drawn(8, 4, seed=6, features=12)
    flat = ConR()(features, target, prediction)
    torch.testing.assert_close(ConR()(features.reshape(8, 3, 2, 2), target, prediction), flat)
    torch.testing.assert_close(ConR()(features * 7, target[:, None], prediction[:, None]), flat)
    torch.testing.assert_close(RankNContrast()(features.reshape(8, 3, 2, 2), target), RankNContrast()(features, target))


# as part of an objective


def test_the_weights_of_the_samples_reach_conr_and_not_ranksim():
    features, target, prediction = (part.float() for part in drawn(12, 4, seed=5))
    weighting = Reweighting("inverse")
    weighting.prepare(Density(torch.tensor([0.0, 0, 0, 1, 2, 2, 3]), Bins.uniform(0, 4, 1)))
    output = Regressed(prediction, features, features)

    def term(regularizer):
        return RegressionObjective(L1(), weighting, regularizer).eval()(output, {"target": target})["regularizer"]

    weights = weighting(target)
    assert weights.min() < weights.max()
    assert term(ConR()) == ConR()(features, target, prediction, weights) != ConR()(features, target, prediction)
    ranksim = RankSimilarity(subsample="none")
    assert term(ranksim) == ranksim(features, target)
    assert term(RankNContrast()) == RankNContrast()(features, target)


def test_the_record_says_that_one_view_is_given():
    for regularizer in (ConR(), RankNContrast()):
        settings = RegressionObjective(L1(), regularizer=regularizer).settings
        assert settings["regularizer"].endswith(", on one view of each sample (its paper: 2)")
    assert "view" not in RegressionObjective(L1(), regularizer=RankSimilarity()).settings["regularizer"]


# refusals


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConR(weight=-1.0), "weight must be >= 0 and finite, got -1.0"),
        (lambda: RankNContrast(weight=float("nan")), "weight must be >= 0"),
        (lambda: RankNContrast(temperature=0.0), "temperature must be > 0"),
        (lambda: ConR(window=-1.0), "window must be >= 0"),
        (lambda: ConR(pushing=float("inf")), "pushing must be >= 0"),
        (lambda: RankNContrast(similarity="dot"), "similarity must be one of negative_l2, cosine, got 'dot'"),
        (lambda: ConR(label_distance="max"), "label_distance must be one of l1, l2"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_inputs_that_do_not_fit_conr_are_refused():
    features, target, prediction = drawn(4, 3, seed=0)
    with pytest.raises(ValueError, match="predictions must be one a sample"):
        ConR()(features, target, prediction[:3])
    with pytest.raises(ValueError, match="do not match targets"):
        ConR()(features, target, torch.stack([prediction, prediction], dim=1))
    with pytest.raises(ValueError, match="predictions hold NaN"):
        ConR()(features, target, prediction / 0.0 * 0.0)
    with pytest.raises(ValueError, match="weights must not be negative, got -1"):
        ConR()(features, target, prediction, -torch.ones(4))


def test_weight_zero_switches_a_term_off():
    features, target, prediction = drawn(8, 4, seed=5)
    assert RankNContrast(weight=0.0)(features, target) == 0
    assert ConR(weight=0.0)(features, target, prediction) == 0


def test_settings_are_shown():
    assert "temperature=0.2" in repr(ConR())
    assert "health" not in repr(RankNContrast())
