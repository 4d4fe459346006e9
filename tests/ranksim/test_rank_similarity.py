"""Rank similarity: values by hand, a row-by-row reference, the recorded official numbers, and what must not matter."""

from __future__ import annotations

import copy
import io
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rambo.ranking import Blackbox, rank, ranks, unit_vectors
from ranksim.losses import rank_similarity as implementation
from ranksim.losses.rank_similarity import RankSimilarity, one_of_each_label, rank_similarity
from ranksim.losses.similarities import label_similarities

GOLDEN = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz", allow_pickle=False)
TIE_FREE = ["n1_d4", "n2_d4", "n3_d5", "n8_d16", "n32_d24", "n64_d16"]
BACKWARDS = pytest.mark.parametrize("legacy", [False, True], ids=["default", "legacy"])


def read(name: str) -> Tensor:
    return torch.from_numpy(np.array(GOLDEN[name]))


def batch(samples: int, seed: int, dimensions: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features and targets without ties, in random order."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dimensions, generator=generator, dtype=torch.float64)
    return features.to(dtype), torch.rand(samples, generator=generator, dtype=torch.float64).to(dtype) * 100


def gradient(term, features: Tensor, targets: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    leaf = features.clone().requires_grad_()
    loss = term(leaf, targets)
    (loss * scale).backward()
    return loss.detach(), leaf.grad / scale


def row_by_row(features: Tensor, targets: Tensor, interpolation: float, weight: float) -> Tensor:
    """The definition, one row at a time, gradients by autograd."""
    directions = nn.functional.normalize(features.flatten(1), dim=1)
    rows = []
    for direction, target in zip(directions, targets, strict=True):
        by_feature = rank(directions @ direction, Blackbox(interpolation), "last_index_first", normalize=True)
        by_label = ranks(-(targets - target).abs(), "last_index_first").to(features.dtype) / len(targets)
        rows.append((by_feature - by_label).square().mean())
    return weight * torch.stack(rows).sum()


# Values


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 6 / 3 / 3**2),
        ({"weight": 10.0}, 10 * 6 / 3 / 3**2),
        ({"row_reduction": "mean"}, 6 / 3 / 3**2 / 3),
        ({"normalize_ranks": False}, 6 / 3),
        ({"normalize_ranks": False, "row_reduction": "mean", "legacy_backward": True}, 6 / 3 / 3),
    ],
)
def test_three_points_by_hand(options, expected):
    degrees = torch.tensor([0.0, 50.0, 20.0])
    features = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)
    # ranks of labels [[1 2 3] [2 1 3] [3 2 1]], of features [[1 3 2] [3 1 2] [2 3 1]]: six differences of one
    term = RankSimilarity(**options)
    assert term(features, torch.tensor([0.0, 1.0, 10.0])).item() == pytest.approx(expected)
    assert float(term.health["rank_correlation"]) == pytest.approx(1 - 6 * 2 / (3 * (3**2 - 1)))
    assert term.health["distinct_labels"] == 3


def test_gradient_of_the_similarities_by_hand():
    """Features are given as their similarities would be moved: one step of lambda reorders one row of two."""
    directions = torch.eye(3)
    similarities = torch.tensor([[1.0, 0.2, 0.6], [0.2, 1.0, 0.5], [0.6, 0.5, 1.0]])
    moved = torch.tensor([[0.0, -1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    got = implementation._pull_back(moved, similarities, directions, torch.tensor([[2.0], [4.0], [8.0]]))
    both = torch.tensor([[0.0, -1.0, 1.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    along = torch.tensor([-0.2 + 0.6, -0.2, 0.6])
    torch.testing.assert_close(got, (both - along.diag()) / torch.tensor([[2.0], [4.0], [8.0]]))


def test_features_ordered_like_labels_cost_nothing():
    angles = torch.tensor([0.0, 0.2, 0.5])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    loss, slope = gradient(RankSimilarity(), features, angles)
    assert loss == 0
    assert slope.count_nonzero() == 0


def test_labels_of_several_numbers_are_compared_by_cosine():
    targets = torch.tensor([[2.0, 0.0], [3.0, 1.0], [0.0, 0.1], [-5.0, 0.0]])
    assert RankSimilarity()(targets * torch.tensor([[7.0], [1.0], [9.0], [0.5]]), targets) == 0
    distances = RankSimilarity()(targets, targets[:, 0])
    assert distances > 0


def test_labels_of_several_numbers_are_compared_by_distance_if_asked():
    targets = torch.tensor([[1.0, 1.0], [2.0, 2.0], [10.0, 10.0]])
    angles = torch.tensor([0.0, 0.2, 1.2])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert RankSimilarity(label_similarity="distance")(features, targets) == 0
    swapped = features[[0, 2, 1]]
    assert RankSimilarity(label_similarity="distance")(swapped, targets) > 0
    single = RankSimilarity(label_similarity="distance")
    assert single(swapped, targets[:, :1]) == single(swapped, targets)  # all on a line
    assert torch.equal(label_similarities(targets, "cosine").round(decimals=6), torch.ones(3, 3))  # to the cosine, one
    torch.testing.assert_close(label_similarities(targets, "distance")[0], -torch.tensor([0, 2**0.5, 9 * 2**0.5]))


# The slow definition


@BACKWARDS
@pytest.mark.parametrize("samples", [1, 2, 5, 17, 60, 150])
def test_same_as_row_by_row(samples, legacy):
    features, targets = batch(samples, seed=samples)
    for interpolation, weight in ((2.0, 100.0), (0.5, 1.0), (20.0, 3e-4)):
        term = RankSimilarity(interpolation, weight, legacy_backward=legacy)
        loss, slope = gradient(term, features, targets)
        expected, expected_slope = gradient(
            lambda x, y, a=interpolation, b=weight: row_by_row(x, y, a, b), features, targets
        )
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(slope, expected_slope, rtol=1e-9, atol=1e-12)


@BACKWARDS
@pytest.mark.parametrize("options", [{"row_reduction": "mean"}, {"normalize_ranks": False}])
def test_the_gradient_knows_how_the_term_is_scaled(options, legacy):
    """Both options are another weight, and integer ranks another lambda, so they can be had from the plain form."""
    features, targets = batch(12, seed=1)
    got = gradient(RankSimilarity(0.7, 3.0, legacy_backward=legacy, **options), features, targets)
    same = RankSimilarity(0.7, 3.0 / 12) if "row_reduction" in options else RankSimilarity(0.7 / 12, 3.0 * 12**2)
    torch.testing.assert_close(got, gradient(same, features, targets))


# Numbers recorded from the official code


def test_recorded_ranks_and_their_gradient():
    for row, (sequence, upstream) in enumerate(zip(read("rank/seq"), read("rank/grad_out"), strict=True)):
        for which, interpolation in enumerate(GOLDEN["rank/lambdas"]):
            leaf = sequence.clone().requires_grad_()
            ranked = rank(leaf, Blackbox(float(interpolation)), "last_index_first", normalize=True)
            ranked.backward(upstream)
            assert torch.equal(ranked.detach(), read("rank/rank_normalised")[row])
            torch.testing.assert_close(leaf.grad, read("rank/grad_in")[which, row], rtol=0, atol=1e-6)


def test_recorded_ranks_of_ties():
    ages = torch.arange(20.0, 60.0)
    for scores, name in ((read("rank/tie_seq"), "tie_rank"), (-(ages[:, None] - ages).abs(), "tie40_rank")):
        got = ranks(scores, "last_index_first") / scores.shape[1]
        assert torch.equal(got, read(f"rank/{name}_stable"))


@pytest.mark.parametrize("case", TIE_FREE)
def test_recorded_ranks_of_features_and_labels(case):
    features, targets = read(f"ranksim/{case}/features"), read(f"ranksim/{case}/targets").squeeze(1)
    directions = unit_vectors(features)
    similarities = directions @ directions.T
    by_feature = ranks(similarities, "last_index_first")
    by_label = ranks(label_similarities(targets), "last_index_first")
    assert torch.equal(by_feature / len(targets), read(f"ranksim/{case}/feature_rank"))
    assert torch.equal(by_label / len(targets), read(f"ranksim/{case}/label_rank"))


@BACKWARDS
@pytest.mark.parametrize("case", TIE_FREE)
def test_recorded_term(case, legacy):
    features, targets = read(f"ranksim/{case}/features"), read(f"ranksim/{case}/targets")
    for i, interpolation in enumerate(GOLDEN["ranksim/lambdas"]):
        for j, weight in enumerate(GOLDEN["ranksim/gammas"]):
            term = RankSimilarity(float(interpolation), float(weight), legacy_backward=legacy)
            loss, slope = gradient(term, features, targets)
            torch.testing.assert_close(loss / weight, read(f"ranksim/{case}/loss"), rtol=1e-6, atol=0)
            recorded, tolerance = read(f"ranksim/{case}/grad")[i, j], 1e-4 if weight == 100 else 1e-5
            torch.testing.assert_close(slope, recorded, rtol=0, atol=tolerance)


@BACKWARDS
@pytest.mark.parametrize("case", ["ages10", "ages40", "dupA", "dupB", "dupC"])
def test_recorded_term_of_ages(case, legacy):
    features, targets = read(f"ranksim/{case}/features"), read(f"ranksim/{case}/targets")
    if case.startswith("dup"):
        random.seed(int(GOLDEN[f"ranksim/{case}/py_seed"]))
    term = RankSimilarity(2.0, 100.0, subsample="python", legacy_backward=legacy)
    loss, slope = gradient(term, features, targets)
    torch.testing.assert_close(loss / 100, read(f"ranksim/{case}/loss_stable"), rtol=1e-6, atol=0)
    torch.testing.assert_close(slope, read(f"ranksim/{case}/grad_stable"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["dupA", "dupB", "dupC"])
def test_recorded_draws(case):
    targets = read(f"ranksim/{case}/targets").squeeze(1)
    random.seed(int(GOLDEN[f"ranksim/{case}/py_seed"]))
    chosen, distinct = one_of_each_label(targets, RankSimilarity(subsample="python")._drawn)
    assert torch.equal(chosen, read(f"ranksim/{case}/selected"))
    assert distinct == len(chosen)


@BACKWARDS
def test_recorded_term_of_feature_maps(legacy):
    term = RankSimilarity(2.0, 1.0, legacy_backward=legacy)
    loss, slope = gradient(term, read("ranksim/4d/features"), read("ranksim/4d/targets"))
    torch.testing.assert_close(loss, read("ranksim/4d/loss"), rtol=1e-6, atol=0)
    torch.testing.assert_close(slope, read("ranksim/4d/grad"), rtol=0, atol=1e-5)


def test_scaling_the_loss_changes_the_official_gradient_and_not_ours():
    features, targets = read("ranksim/scaling/features"), read("ranksim/scaling/targets")
    recorded = read("ranksim/scaling/grad")
    _, unscaled = gradient(RankSimilarity(2.0, 100.0), features, targets)
    torch.testing.assert_close(unscaled, recorded[0], rtol=0, atol=1e-4)
    for scale, official in zip(GOLDEN["ranksim/scaling/scales"], recorded, strict=True):
        _, ours = gradient(RankSimilarity(2.0, 100.0), features, targets, float(scale))
        assert torch.equal(ours, unscaled)
        _, legacy = gradient(RankSimilarity(2.0, 100.0, legacy_backward=True), features, targets, float(scale))
        torch.testing.assert_close(legacy, official, rtol=0, atol=1e-4)
        assert scale == 1 or (legacy - unscaled).norm() > 0.9 * unscaled.norm()


def test_a_vector_of_zeros_has_no_direction():
    """The official code gives it a gradient of 1e11; every other sample gets the same from both."""
    features, targets = read("ranksim/degenerate/features"), read("ranksim/degenerate/targets")
    _, slope = gradient(RankSimilarity(), features, targets)
    _, legacy = gradient(RankSimilarity(legacy_backward=True), features, targets)
    assert read("ranksim/degenerate/grad")[2].abs().max() > 1e11
    assert slope[2].count_nonzero() == 0
    assert legacy[2].count_nonzero() == 0
    others = torch.tensor([0, 1, 3, 4, 5])
    torch.testing.assert_close(slope[others], legacy[others], rtol=0, atol=1e-5)


def test_recorded_training():
    encoder, head = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 8)), nn.Linear(8, 1)
    for part, layer in (("enc.0", encoder[0]), ("enc.2", encoder[2]), ("head", head)):
        layer.load_state_dict({name: read(f"train/init/{part}.{name}") for name in ("weight", "bias")})
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    inputs, targets = read("train/X"), read("train/Y")
    for step in range(20):
        features = encoder(inputs)
        term = RankSimilarity(2.0, 100.0)(features, targets)
        loss = nn.functional.l1_loss(head(features), targets) + term
        torch.testing.assert_close(term.detach() / 100, read("train/reg")[step], rtol=1e-5, atol=0)
        torch.testing.assert_close(loss.detach(), read("train/total")[step], rtol=1e-5, atol=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(head.weight.detach(), read("train/final_head_weight"), rtol=1e-5, atol=1e-6)


# What must not matter

PROPERTY = {"samples": st.integers(2, 20), "seed": st.integers(0, 10**6)}


@settings(max_examples=50)
@given(**PROPERTY)
def test_a_permuted_batch_has_a_permuted_gradient(samples, seed):
    features, targets = batch(samples, seed)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    term = RankSimilarity(2.0, 10.0)
    loss, slope = gradient(term, features, targets)
    permuted, permuted_slope = gradient(term, features[order], targets[order])
    torch.testing.assert_close(permuted, loss)
    torch.testing.assert_close(permuted_slope, slope[order])


@settings(max_examples=50)
@given(**PROPERTY)
def test_lengths_of_features_do_not_matter(samples, seed):
    features, targets = batch(samples, seed)
    factors = torch.rand(samples, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10 + 0.01
    term = RankSimilarity(2.0, 10.0)
    loss, slope = gradient(term, features, targets)
    scaled, scaled_slope = gradient(term, features * factors, targets)
    torch.testing.assert_close(scaled, loss)
    torch.testing.assert_close(scaled_slope * factors, slope)
    torch.testing.assert_close((slope * features).sum(dim=1), torch.zeros(samples, dtype=torch.float64))


@settings(max_examples=50)
@given(**PROPERTY, interpolation=st.floats(1e-3, 1e3))
def test_the_loss_does_not_depend_on_lambda(samples, seed, interpolation):
    features, targets = batch(samples, seed)
    assert torch.equal(RankSimilarity(interpolation)(features, targets), RankSimilarity(1.0)(features, targets))


@settings(max_examples=50)
@given(**PROPERTY, labels=st.integers(1, 8), subsample=st.sampled_from(["generator", "python"]))
def test_one_sample_of_each_label_gets_a_gradient(samples, seed, labels, subsample):
    features, _ = batch(samples, seed)
    targets = torch.randint(labels, (samples,), generator=torch.Generator().manual_seed(seed)).float()
    _, slope = gradient(RankSimilarity(2.0, 100.0, subsample), features, targets)
    touched = targets[slope.abs().sum(dim=1) > 0]
    assert len(touched.unique()) == len(touched)  # at most one each; features already in order get none


@settings(max_examples=30)
@given(**PROPERTY, steps=st.floats(0.01, 1.5))
def test_points_along_an_arc_cost_nothing(samples, seed, steps):
    angles = torch.rand(samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * steps
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    distances = (angles[:, None] - angles).abs()
    gaps = distances.sort(dim=1).values.diff(dim=1)
    if gaps.min() < 1e-4:  # nearer than a cosine can tell
        return
    assert RankSimilarity()(features, angles) == 0


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8])
def test_shape_and_type_of_targets_do_not_matter(dtype, shape):
    features, _ = batch(9, seed=0)
    targets = torch.tensor([3, 1, 40, 9, 27, 18, 55, 91, 70])
    expected = gradient(RankSimilarity(), features, targets.double())
    got = gradient(RankSimilarity(), features, targets.to(dtype).reshape(shape))
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_whole_numbers_too_large_for_float32_stay_distinct():
    term = RankSimilarity()
    term(batch(3, seed=0)[0], torch.tensor([2**40, 2**40 + 1, 2**40 + 2]))
    assert term.health["distinct_labels"] == 3


def test_single_precision_equals_double():
    for seed in range(20):
        features, targets = batch(16, seed, dtype=torch.float32)
        single = gradient(RankSimilarity(2.0, 10.0), features, targets)
        double = gradient(RankSimilarity(2.0, 10.0), features.double(), targets.double())
        assert (single[0].dtype, double[0].dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(single[0].double(), double[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(single[1].double(), double[1], rtol=1e-4, atol=1e-5)


# Mixed precision, scaling, accumulation


@BACKWARDS
def test_autocast_changes_nothing(legacy):
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(64, 512, generator=generator) + torch.rand(512, generator=generator)
    targets = torch.rand(64, generator=generator)
    term = RankSimilarity(2.0, 100.0, legacy_backward=legacy)
    expected, expected_slope = gradient(term, features, targets)
    leaf = features.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (features @ features.T).dtype == torch.bfloat16
        loss = term(leaf, targets)
    loss.backward()
    assert torch.equal(loss.detach(), expected)
    assert torch.equal(leaf.grad, expected_slope)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_ranked_in_single(dtype):
    features, targets = batch(16, seed=0)[0].to(dtype), batch(16, seed=0)[1]
    loss, slope = gradient(RankSimilarity(2.0, 100.0), features, targets)
    expected, expected_slope = gradient(RankSimilarity(2.0, 100.0), features.float(), targets)
    assert (loss.dtype, slope.dtype) == (torch.float32, dtype)
    assert torch.equal(loss, expected)
    assert torch.equal(slope, expected_slope.to(dtype))


def test_a_gradient_scaler_does_not_change_the_gradient():
    features, targets = batch(16, seed=0, dtype=torch.float32)
    _, expected = gradient(RankSimilarity(2.0, 100.0), features, targets)
    leaf = features.clone().requires_grad_()
    optimizer, scaler = torch.optim.SGD([leaf], lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(RankSimilarity(2.0, 100.0)(leaf, targets)).backward()
    scaler.unscale_(optimizer)
    assert scaler.get_scale() == 2**16
    assert torch.equal(leaf.grad, expected)


def test_accumulation_is_the_mean_of_gradients():
    leaf = batch(16, seed=0)[0].requires_grad_()
    parts = [batch(16, seed)[1] for seed in range(3)]
    for targets in parts:
        (RankSimilarity(2.0, 100.0)(leaf, targets) / 3).backward()
    singly = [gradient(RankSimilarity(2.0, 100.0), leaf.detach(), targets)[1] for targets in parts]
    torch.testing.assert_close(leaf.grad, sum(singly) / 3)


def test_weight_is_inside_the_rule():
    """A hundred times the weight is not a hundred times the gradient, whose entries in S^z stay below 1 / lambda."""
    features, targets = batch(32, seed=0, dimensions=24)
    norms = [gradient(RankSimilarity(2.0, weight), features, targets)[1].norm() for weight in (1.0, 100.0)]
    assert 2 < norms[1] / norms[0] < 20


# Draws


def test_every_sample_of_a_label_is_drawn_equally_often():
    targets, term = torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0]), RankSimilarity(seed=0)
    drawn = torch.stack([one_of_each_label(targets, term._drawn)[0] for _ in range(3000)])
    assert (drawn[:, 0] == 1).all()
    assert (drawn[:, 2] == 4).all()
    counts = drawn[:, 1].bincount(minlength=4)
    assert counts[1] == 0
    deviation = math.sqrt(3000 * (1 / 3) * (2 / 3))
    assert (counts[[0, 2, 3]] - 1000).abs().max() < 4 * deviation


def test_draws_follow_torchs_seed_and_nothing_else():
    features, _ = batch(24, seed=0)
    targets, term = torch.arange(24.0) % 5, RankSimilarity()
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append([gradient(term, features, targets)[1] for _ in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[0][1])
    assert not torch.equal(runs[0][0], runs[2][0])


@pytest.mark.parametrize("subsample", ["generator", "python", "none"])
def test_nothing_is_drawn_if_no_label_occurs_twice(subsample):
    features, targets = batch(8, seed=0)
    before = torch.get_rng_state(), random.getstate()
    RankSimilarity(subsample=subsample)(features, targets)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_python_draws_once_for_each_label():
    targets = torch.tensor([4.0, 2.0, 4.0, 9.0, 4.0, 2.0])
    random.seed(5)
    expected = [random.choice([1, 5]), random.choice([0, 2, 4]), random.choice([3])]
    state = random.getstate()
    random.seed(5)
    term = RankSimilarity(subsample="python")
    assert one_of_each_label(targets, term._drawn)[0].tolist() == expected
    assert random.getstate() == state


def test_without_subsampling_all_samples_take_part():
    features, _ = batch(12, seed=0)
    targets = torch.arange(12.0) % 4
    loss, slope = gradient(RankSimilarity(2.0, 100.0, subsample="none"), features, targets)
    torch.testing.assert_close(loss, row_by_row(features, targets, 2.0, 100.0))
    assert (slope.abs().sum(dim=1) > 0).all()


def test_rows_of_labels_are_the_same_only_as_a_whole():
    targets = torch.tensor([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [1.0, 0.0]])
    chosen, distinct = one_of_each_label(targets, lambda samples: [of_label[-1] for of_label in samples])
    assert (chosen.tolist(), distinct) == ([1, 3, 2], 3)


def test_a_seeded_module_goes_on_where_it_was_saved():
    features, _ = batch(24, seed=0)
    targets = torch.arange(24.0) % 5
    term, untouched = nn.ModuleDict({"term": RankSimilarity(seed=3)}), torch.get_rng_state()
    term["term"](features, targets)
    file = io.BytesIO()
    torch.save(term.state_dict(), file)
    twin = copy.deepcopy(term)
    expected = [gradient(term["term"], features, targets)[1] for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), untouched)

    resumed = nn.ModuleDict({"term": RankSimilarity(seed=4)})
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for other in (resumed, twin):
        assert all(torch.equal(gradient(other["term"], features, targets)[1], slope) for slope in expected)


def test_state_of_a_module_without_a_seed_can_be_saved_too():
    file = io.BytesIO()
    torch.save(RankSimilarity().state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    RankSimilarity().load_state_dict(state)
    seeded = RankSimilarity(seed=1)
    seeded.load_state_dict(state)  # keeps its own
    assert torch.equal(seeded.get_extra_state(), torch.Generator().manual_seed(1).get_state())


# Nothing to order, and what is refused


@pytest.mark.parametrize("subsample", ["generator", "python", "none"])
@pytest.mark.parametrize("samples", [0, 1, 5])
def test_without_two_labels_there_is_a_zero_to_differentiate(samples, subsample):
    features = batch(samples, seed=0, dtype=torch.float32)[0].requires_grad_()
    term = RankSimilarity(2.0, 100.0, subsample)
    loss = term(features, torch.full((samples, 1), 7.0))
    loss.backward()
    assert loss == 0
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert features.grad.count_nonzero() == 0
    assert term.health == {"distinct_labels": min(1, samples)}


def test_the_pure_function_takes_an_empty_batch():
    compared = rank_similarity(torch.zeros(0, 4, requires_grad=True), torch.zeros(0))
    assert compared.loss == 0
    assert compared.flipped == 0


def test_no_weight_means_no_work():
    term, features = RankSimilarity(weight=0.0), torch.full((4, 3), float("nan"), requires_grad=True)
    loss = term(features, torch.arange(4.0))
    assert loss == 0
    assert term.health == {}


def test_features_without_a_graph_give_a_number_without_one():
    features, targets = batch(8, seed=0)
    term = RankSimilarity()
    loss = term(features, targets)
    assert not loss.requires_grad
    assert "flipped" not in term.health
    with torch.no_grad():
        assert torch.equal(term(features.requires_grad_(), targets), loss)


def test_health():
    features, targets = batch(8, seed=0)
    directions = nn.functional.normalize(features, dim=1)
    by_feature, by_label = ranks(directions @ directions.T), ranks(-(targets[:, None] - targets).abs())
    pairs = zip(by_feature.double(), by_label.double(), strict=True)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean()
    # an endless step sorts by difference of rank alone: what stands too far back comes first
    order = (by_feature - by_label).double() + 1e-3 * (directions @ directions.T)
    for weight, flipped in ((1e-9, 0.0), (1e9, (ranks(order) != by_feature).double().mean().item())):
        term = RankSimilarity(weight=weight)
        gradient(term, features, targets)
        assert not term.health["flipped"].requires_grad
        assert not term.health["rank_correlation"].requires_grad
        assert float(term.health["flipped"]) == pytest.approx(flipped)
        assert float(term.health["rank_correlation"]) == pytest.approx(float(correlation))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interpolation": 0.0}, "interpolation .* > 0 and finite, got 0.0"),
        ({"interpolation": -1.0}, "got -1.0"),
        ({"interpolation": math.nan}, "got nan"),
        ({"weight": -1.0}, r"weight \(gamma\) must be >= 0 and finite, got -1.0"),
        ({"weight": math.inf}, "got inf"),
        ({"weight": math.nan}, "got nan"),
        ({"subsample": "numpy"}, "subsample must be one of generator, python, none, got 'numpy'"),
        ({"ties": "pessimistic"}, "ties must be one of last_index_first, first_index_first, got 'pessimistic'"),
        ({"label_similarity": "l1"}, "label_similarity must be one of distance, cosine, got 'l1'"),
        ({"row_reduction": "max"}, "row_reduction must be one of sum, mean, got 'max'"),
        ({"subsample": "python", "seed": 1}, "a seed needs subsample='generator'"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        RankSimilarity(**settings)


@pytest.mark.parametrize(
    ("features", "targets", "error", "message"),
    [
        (torch.ones(4, 3), torch.ones(5), ValueError, r"targets must be one a sample, \(4,\) or \(4, k\), got \(5,\)"),
        (torch.ones(4, 3), torch.ones(4, 1, 1), ValueError, r"got \(4, 1, 1\)"),
        (torch.ones(4, 3), torch.ones(4, 0), ValueError, r"got \(4, 0\)"),
        (torch.ones(4, 3), torch.ones(()), ValueError, r"got \(\)"),
        (torch.ones(4), torch.ones(4), ValueError, r"features must have the shape \(samples, ...\), got \(4,\)"),
        (torch.ones(4, 3).long(), torch.ones(4), TypeError, "floating point, got torch.int64"),
        (
            torch.ones(2, 3),
            torch.tensor([1.0, math.nan]),
            ValueError,
            "targets hold NaN or infinity: 1 of 2, first at row 1",
        ),
        (
            torch.ones(2, 3),
            torch.tensor([1.0, -math.inf]),
            ValueError,
            "targets hold NaN or infinity: 1 of 2, first at row 1",
        ),
        (torch.tensor([[1.0], [math.nan]]), torch.arange(2.0), ValueError, "features hold NaN"),
        (torch.tensor([[1.0], [math.inf]]), torch.arange(2.0), ValueError, "features hold NaN or infinity"),
    ],
)
def test_refuses_inputs(features, targets, error, message):
    for call in (RankSimilarity(), rank_similarity, RankSimilarity(legacy_backward=True)):
        with pytest.raises(error, match=message):
            call(features, targets)


def test_single_numbers_have_no_cosine():
    with pytest.raises(ValueError, match="single numbers have no cosine"):
        RankSimilarity(label_similarity="cosine")(torch.ones(4, 3), torch.arange(4.0))
