"""The regression losses: values, the official code's recorded numbers, and questions asked of every loss alike."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ranksim.bins import Bins, Density
from ranksim.losses.balanced_mse import BatchBalancedMSE, HistogramBalancedMSE, MixtureBalancedMSE
from ranksim.losses.contrastive import ConR, RankNContrast
from ranksim.losses.regression import L1, MSE, FocalL1, FocalMSE, Huber

GOLDEN = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz", allow_pickle=False)


# values


ERRORS = torch.tensor([0.5, -2.0, 0.0, 4.0])
WEIGHT = torch.tensor([1.0, 2.0, 5.0, 0.5])


@pytest.mark.parametrize(
    ("loss", "each"),
    [
        (L1(), [0.5, 2.0, 0.0, 4.0]),
        (MSE(), [0.25, 4.0, 0.0, 16.0]),
        (Huber(beta=2.0), [0.25 / 4, 2.0 - 1.0, 0.0, 4.0 - 1.0]),
        (Huber(beta=5.0), [0.25 / 10, 4.0 / 10, 0.0, 16.0 / 10]),
        (FocalL1("tanh", beta=1.0, gamma=2), [x * np.tanh(x) ** 2 for x in (0.5, 2.0, 0.0, 4.0)]),
        (FocalMSE("tanh", beta=0.5, gamma=1), [x**2 * np.tanh(x / 2) for x in (0.5, 2.0, 0.0, 4.0)]),
        (FocalL1(beta=0.2), [x * (2 / (1 + np.exp(-0.2 * x)) - 1) for x in (0.5, 2.0, 0.0, 4.0)]),
        (FocalMSE(gamma=0.0), [0.25, 4.0, 0.0, 16.0]),
    ],
)
def test_a_loss_is_the_mean_of_weight_times_a_function_of_the_error(loss, each):
    target = torch.tensor([30.0, 31.0, 60.0, 2.0])
    plain = loss(target + ERRORS, target)
    weighted = loss(target + ERRORS, target, WEIGHT)
    assert plain.item() == pytest.approx(sum(each) / 4, rel=1e-5)
    expected = (1.0 * each[0] + 2.0 * each[1] + 5.0 * each[2] + 0.5 * each[3]) / 4
    assert weighted.item() == pytest.approx(expected, rel=1e-5)


def test_columns_and_vectors_give_the_mean_over_numbers():
    target = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert L1()(target + torch.tensor([[1.0, 0.0], [3.0, 0.0]]), target) == (1 + 3) / 4
    weight = torch.tensor([2.0, 1.0])
    assert L1()(target + torch.tensor([[1.0, 0.0], [3.0, 0.0]]), target, weight) == (2 * 1 + 3) / 4
    for shape in ((4,), (4, 1)):
        columns = MSE()(ERRORS.reshape(4, 1), torch.zeros(4, 1), WEIGHT.reshape(shape))
        assert columns == MSE()(ERRORS, torch.zeros(4), WEIGHT)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", [FocalL1, FocalMSE])
def test_the_focal_gradient_at_no_error_is_zero_and_not_nan(kind, gamma):
    prediction = torch.tensor([3.0, 5.0], requires_grad=True)
    kind(gamma=gamma)(prediction, torch.tensor([3.0, 4.0])).backward()
    assert prediction.grad[0] == 0
    assert prediction.grad[1] > 0


def test_huber_with_a_weight_of_zero_for_beta_is_the_absolute_error():
    prediction = torch.tensor([3.0, 0.0], requires_grad=True)
    loss = Huber(legacy_focal_weights=True)(prediction, torch.zeros(2), torch.zeros(2))
    loss.backward()
    assert loss == 3 / 2
    assert prediction.grad.tolist() == [1 / 2, 0.0]


# the official code's numbers


def recorded_cases():
    return sorted({name.split("/")[1] for name in GOLDEN if name.startswith("loss/") and name.endswith("/now")})


def build(case):
    if case in ("l1", "mse"):
        return {"l1": L1, "mse": MSE}[case]()
    if huber := re.fullmatch(r"huber_b([\d.]+)", case):
        return Huber(beta=float(huber[1]))
    kind, activation, beta, gamma = re.fullmatch(r"focal_(l1|mse)_(sigmoid|tanh)_b([\d.]+)_g(\d)", case).groups()
    return {"l1": FocalL1, "mse": FocalMSE}[kind](activation, float(beta), float(gamma))


def recorded(name):
    return torch.from_numpy(GOLDEN[f"loss/{name}"])


def test_the_file_holds_thirty_cases():
    assert len(recorded_cases()) == 30


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("case", recorded_cases())
def test_values_and_gradients_of_the_official_code(case, weighted, columns):
    def shaped(tensor):
        return tensor if columns else tensor[:, 0]

    prediction = shaped(recorded("pred")).clone().requires_grad_()
    loss = build(case)(prediction, shaped(recorded("target")), shaped(recorded("weight")) if weighted else None)
    loss.backward()
    name = f"{case}/{'w' if weighted else 'now'}"
    torch.testing.assert_close(loss.detach(), recorded(name), rtol=2e-6, atol=0)
    torch.testing.assert_close(prediction.grad, shaped(recorded(name + "_grad")), rtol=1e-5, atol=1e-7)


def test_the_weights_that_the_official_code_for_ages_mislays():
    batch = [recorded(name) for name in ("pred", "target", "weight")]
    for loss, name in (
        (FocalL1(legacy_focal_weights=True), "bug_focal_l1_positional"),
        (Huber(legacy_focal_weights=True), "bug_huber_positional"),
    ):
        torch.testing.assert_close(loss(*batch), recorded(name), rtol=2e-6, atol=0)
    for kind in (FocalL1, FocalMSE):
        legacy, correct = kind(legacy_focal_weights=True), kind()
        assert legacy(*batch) == correct(*batch[:2]) != correct(*batch)
    assert Huber(legacy_focal_weights=True)(*batch[:2]) == Huber()(*batch[:2])


# refusals


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FocalL1(activation="relu"), "activation must be one of sigmoid, tanh, got 'relu'"),
        (lambda: FocalMSE(beta=0.0), "beta must be > 0"),
        (lambda: FocalMSE(beta=float("nan")), "beta must be > 0"),
        (lambda: FocalL1(gamma=-1.0), "gamma must be >= 0"),
        (lambda: Huber(beta=0.0), "beta must be > 0 and finite, got 0.0"),
        (lambda: Huber(beta=float("inf")), "beta must be > 0 and finite"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), "weights must be one a sample"),
        (torch.ones(1, 4), "weights must be one a sample"),
        (torch.tensor([1.0, -0.5, 1.0, 1.0]), "must not be negative, got -0.5"),
        (torch.tensor([1.0, 1.0, float("nan"), 1.0]), "weights hold NaN or infinity: 1 of 4, first at row 2"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        L1()(torch.zeros(4), torch.zeros(4), weight)


# questions asked of every loss alike


DENSITY = Density(torch.tensor([20.0, 21.0, 21.0, 22.0, 30.0, 30.0, 45.0, 70.0]), Bins.uniform(0, 121, 1))


def prepared(loss):
    loss.prepare(DENSITY)
    return loss


PREDICTING = {
    "l1": L1,
    "mse": MSE,
    "focal_l1": FocalL1,
    "focal_mse": FocalMSE,
    "focal_l1_tanh": lambda: FocalL1("tanh", gamma=0.5),
    "huber": Huber,
    "balanced_batch": BatchBalancedMSE,
    "balanced_mixture": lambda: prepared(MixtureBalancedMSE(components=2)),
    "balanced_histogram": lambda: prepared(HistogramBalancedMSE()),
}
CONTRASTING = {
    "rank_n_contrast": RankNContrast,
    "rank_n_contrast_cosine": lambda: RankNContrast(similarity="cosine"),
    "conr": ConR,
    "conr_legacy": lambda: ConR(legacy_denominator=True),
}
EVERY = [*PREDICTING, *CONTRASTING]


def batch(name, dtype=torch.float32, rows=24):
    """A loss, what is differentiated, and the arguments that follow; distances are tied, and features near the head."""
    draws = torch.Generator().manual_seed(5)
    target = torch.randint(20, 40, (rows,), generator=draws).to(dtype)
    prediction = target + 4 * torch.randn(rows, generator=draws, dtype=torch.float64).to(dtype)
    if name in PREDICTING:
        return PREDICTING[name](), prediction, (target,)
    features = torch.randn(rows, 6, generator=draws, dtype=torch.float64).to(dtype)
    return CONTRASTING[name](), features, (target, prediction) if name.startswith("conr") else (target,)


def value_and_gradient(loss, leaf, rest):
    leaf = leaf.clone().requires_grad_()
    value = loss(leaf, *rest)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("name", EVERY)
def test_gives_a_finite_number_and_a_finite_gradient(name):
    value, gradient = value_and_gradient(*batch(name))
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", EVERY)
def test_float64_equals_float32(name):
    single, double = value_and_gradient(*batch(name)), value_and_gradient(*batch(name, torch.float64))
    assert (single[0].dtype, double[0].dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single[1].double(), double[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_agrees_with_finite_differences(name):
    loss, leaf, rest = batch(name, torch.float64, rows=7)
    assert torch.autograd.gradcheck(lambda x: loss(x, *rest), leaf.clone().requires_grad_())


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_the_batch_does_not_matter(name):
    loss, leaf, rest = batch(name, torch.float64)
    value, gradient = value_and_gradient(loss, leaf, rest)
    order = torch.randperm(len(leaf), generator=torch.Generator().manual_seed(1))
    shuffled, moved = value_and_gradient(loss, leaf[order], [tensor[order] for tensor in rest])
    torch.testing.assert_close(shuffled, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved, gradient[order], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_worked_out_in_float32(name, dtype):
    loss, leaf, rest = batch(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(loss, leaf.to(dtype), rest)
    expected, _ = value_and_gradient(loss, leaf.to(dtype).float(), rest)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_one_sample_is_no_crash(name):
    value, gradient = value_and_gradient(*batch(name, rows=1))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", EVERY)
def test_one_label_is_no_crash(name):
    loss, leaf, rest = batch(name)
    value, gradient = value_and_gradient(loss, leaf, (torch.full_like(rest[0], 30.0), *rest[1:]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", EVERY)
def test_shapes_that_do_not_fit_are_refused(name):
    loss, leaf, (target, *rest) = batch(name)
    with pytest.raises(ValueError, match="targets"):
        loss(leaf, target[:-1], *rest)
    with pytest.raises(ValueError, match="targets"):
        loss(leaf, target[None], *rest)
    with pytest.raises(ValueError, match=r"(predictions|features) must"):
        loss(torch.tensor(1.0), target, *rest)


@pytest.mark.parametrize("name", PREDICTING)
def test_a_column_against_a_row_of_targets_is_refused(name):
    loss, leaf, (target,) = batch(name)
    with pytest.raises(ValueError, match="broadcasting"):
        loss(leaf[:, None], target)
    with pytest.raises(ValueError, match="broadcasting"):
        loss(leaf, target[:, None])


@pytest.mark.parametrize("name", PREDICTING)
def test_columns_of_both_equal_rows_of_both(name):
    loss, leaf, (target,) = batch(name)
    torch.testing.assert_close(loss(leaf[:, None], target[:, None]), loss(leaf, target))


@pytest.mark.parametrize("name", PREDICTING)
def test_an_empty_batch_is_refused(name):
    with pytest.raises(ValueError, match="the batch is empty"):
        PREDICTING[name]()(torch.zeros(0), torch.zeros(0))


@pytest.mark.parametrize("name", CONTRASTING)
def test_a_term_of_an_empty_batch_is_zero(name):
    loss, leaf, rest = batch(name)
    assert loss(leaf[:0], *[tensor[:0] for tensor in rest]) == 0


@pytest.mark.parametrize("name", EVERY)
def test_integers_are_refused_where_a_gradient_is_needed(name):
    loss, leaf, rest = batch(name)
    with pytest.raises(TypeError, match="must be floating point"):
        loss(leaf.long(), *rest)


@pytest.mark.parametrize("name", EVERY)
def test_integer_targets_are_taken_as_numbers(name):
    loss, leaf, (target, *rest) = batch(name)
    torch.testing.assert_close(loss(leaf, target.long(), *rest), loss(leaf, target, *rest), rtol=1e-6, atol=1e-6)
