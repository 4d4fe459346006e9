"""Balanced MSE: its arithmetic, how its three forms hang together, and that it undoes the pull of common labels."""

from __future__ import annotations

import copy
import functools
import math
import sys

import pytest
import torch

from harness.train.optimization import build_optimizer
from ranksim.bins import Bins, Density
from ranksim.losses.balanced_mse import (
    SMALLEST_NOISE,
    BatchBalancedMSE,
    HistogramBalancedMSE,
    MixtureBalancedMSE,
)

MIXTURE = {"weights": [0.7, 0.3], "means": [30.0, 60.0], "variances": [16.0, 100.0]}
AGES = Bins.uniform(0, 121, 1)


def of_mixture(mixture, **noise):
    loss = MixtureBalancedMSE(**noise)
    loss.set_density(**mixture)
    return loss


def normal(x, mean, variance):
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def drawn_from_mixture(count, seed=0):
    draws = torch.Generator().manual_seed(seed)
    which = torch.multinomial(torch.tensor(MIXTURE["weights"]), count, replacement=True, generator=draws)
    means, deviations = torch.tensor(MIXTURE["means"])[which], torch.tensor(MIXTURE["variances"]).sqrt()[which]
    return means + deviations * torch.randn(count, generator=draws)


# arithmetic


def test_two_samples_by_batch():
    loss = BatchBalancedMSE(initial_noise=2.0)(torch.tensor([3.0, 8.0]), torch.tensor([4.0, 6.0]))
    # sample 1: squared errors 1 to its own target and 9 to the other; sample 2: 4 and 16; divided by 2 * 2^2
    first = math.log(1 + math.exp(-(9 - 1) / 8))
    second = math.log(1 + math.exp(-(16 - 4) / 8))
    assert loss.item() == pytest.approx(8 * (first + second) / 2, rel=1e-6)


def test_one_sample_by_mixture():
    loss = of_mixture(MIXTURE, initial_noise=3.0)(torch.tensor([40.0]), torch.tensor([37.0]))
    integral = 0.7 * normal(40, 30, 16 + 9) + 0.3 * normal(40, 60, 100 + 9)
    assert loss.item() == pytest.approx(2 * 9 * (-math.log(normal(37, 40, 9)) + math.log(integral)), rel=1e-5)


def test_one_sample_by_histogram():
    loss = HistogramBalancedMSE(initial_noise=3.0)
    loss.prepare(Density(torch.tensor([20.0, 20.0, 20.0, 50.0]), AGES))
    got = loss(torch.tensor([30.0]), torch.tensor([25.0]))
    integral = 3 / 4 * normal(20, 30, 9) + 1 / 4 * normal(50, 30, 9)
    assert got.item() == pytest.approx(2 * 9 * (-math.log(normal(25, 30, 9)) + math.log(integral)), rel=1e-5)


def test_the_integral_is_that_of_the_density_times_the_prediction():
    """Numerically, over a fine grid: what the closed form of a mixture stands for."""
    weights, means, variances = (torch.tensor(MIXTURE[name], dtype=torch.float64) for name in MIXTURE)
    grid = torch.arange(-100, 250, 0.01, dtype=torch.float64)

    def density(x, mean, variance):
        return torch.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * math.pi * variance).sqrt()

    prior = (weights * density(grid[:, None], means, variances)).sum(1)
    variance = torch.tensor(49.0, dtype=torch.float64)
    for prediction, target in ((25.0, 30.0), (48.0, 31.0), (90.0, 70.0)):
        integral = (prior * density(grid, prediction, variance)).sum() * 0.01
        expected = -density(torch.tensor(target), prediction, variance).log() + integral.log()
        inputs = (torch.tensor([x], dtype=torch.float64) for x in (prediction, target))
        got = of_mixture(MIXTURE, initial_noise=7.0)(*inputs) / (2 * variance)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("components", [1, 3])
def test_by_batch_equals_a_slow_loop(components):
    draws = torch.Generator().manual_seed(1)
    target = torch.randn(9, components, generator=draws, dtype=torch.float64)
    prediction = target + torch.randn(9, components, generator=draws, dtype=torch.float64)
    target[3] = target[5]
    noise, each = 0.8, []
    for i in range(9):
        logits = [-sum((prediction[i, k] - target[j, k]) ** 2 for k in range(components)) / 1.28 for j in range(9)]
        each.append(-(logits[i] - math.log(sum(math.exp(logit) for logit in logits))))
    inputs = (prediction[:, 0], target[:, 0]) if components == 1 else (prediction, target)
    loss = BatchBalancedMSE(initial_noise=noise)(*inputs)
    torch.testing.assert_close(loss, 1.28 * torch.stack(each).mean(), rtol=1e-6, atol=0)


# how the three hang together


def test_by_batch_is_the_histogram_of_the_batch():
    target = drawn_from_mixture(50).round()
    prediction = target + 3 * torch.randn(50, generator=torch.Generator().manual_seed(2))
    histogram = HistogramBalancedMSE(initial_noise=4.0)
    histogram.prepare(Density(target, AGES))
    constant = 2 * 4.0**2 * math.log(50)  # one sums over the batch, the other averages
    by_batch = BatchBalancedMSE(initial_noise=4.0)(prediction, target)
    torch.testing.assert_close(by_batch - constant, histogram(prediction, target), rtol=1e-5, atol=1e-3)


def test_a_large_batch_approaches_the_mixture_it_was_drawn_from():
    mixture = of_mixture(MIXTURE, initial_noise=5.0)
    gaps = {}
    for size in (100, 4000):
        target = drawn_from_mixture(size, seed=3)
        leaf = (target + 5 * torch.randn(size, generator=torch.Generator().manual_seed(4))).requires_grad_()
        (batch,) = torch.autograd.grad(BatchBalancedMSE(initial_noise=5.0)(leaf, target) * size, leaf)
        (exact,) = torch.autograd.grad(mixture(leaf, target) * size, leaf)
        gaps[size] = ((batch - exact).square().mean() / exact.square().mean()).sqrt().item()
    assert gaps[4000] < 0.05
    assert gaps[4000] < gaps[100] / 3  # Monte-Carlo: 1 / sqrt(40) is 1 / 6.3


def test_with_balanced_labels_the_gradient_is_that_of_the_squared_error():
    """A flat density exerts no pull, away from its ends: what Balanced MSE promises of balanced data."""
    histogram = HistogramBalancedMSE(initial_noise=3.0)
    histogram.prepare(Density(torch.arange(0.0, 121.0), AGES))
    flat = of_mixture({"weights": [1], "means": [60.0], "variances": [1e10]}, initial_noise=3.0)
    target = torch.arange(40.0, 80.0, dtype=torch.float64)
    leaf = (target + 5 * torch.randn(40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)).detach()
    leaf.requires_grad_()
    expected = 2 * (leaf - target).detach() / 40
    for loss in (histogram, flat):
        (gradient,) = torch.autograd.grad(loss(leaf, target), leaf)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)
    (pulled,) = torch.autograd.grad(of_mixture(MIXTURE, initial_noise=3.0)(leaf, target), leaf)
    assert (pulled - expected).abs().max() > 0.1


def test_common_labels_no_longer_pull_the_prediction():
    """Labels N(30, 25), seen through noise of variance 9: MSE shrinks to the mean, and Balanced MSE must not.

    The balanced prediction is the observation itself, slope 1 and intercept 0; that of MSE has slope 25 / (25 + 9).
    """
    draws = torch.Generator().manual_seed(6)
    target = 30 + 5 * torch.randn(800, generator=draws, dtype=torch.float64)
    seen = target + 3 * torch.randn(800, generator=draws, dtype=torch.float64)
    mixture = {"weights": [1.0], "means": [30.0], "variances": [25.0]}

    def slope(loss):
        line = torch.tensor([0.5, 30.0], dtype=torch.float64, requires_grad=True)
        leaves = [line, *(parameter for parameter in loss.parameters() if parameter.requires_grad)]
        optimizer = torch.optim.LBFGS(leaves, max_iter=30, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            # the factor 2 s^2 is without gradient, which a line search cannot take: divide it out
            scale = 1 if isinstance(loss, torch.nn.MSELoss) else 2 * loss.noise.detach() ** 2
            value = loss(line[1] + line[0] * (seen - 30), target) / scale
            value.backward()
            return value

        optimizer.step(closure)
        return line[0].item(), line[1].item()

    shrunk = slope(torch.nn.MSELoss())
    assert shrunk[0] == pytest.approx(25 / 34, abs=0.03)
    for loss in (of_mixture(mixture), BatchBalancedMSE()):
        balanced = slope(loss)
        assert balanced[0] == pytest.approx(1.0, abs=0.05)
        assert balanced[1] == pytest.approx(30.0, abs=0.3)
        assert loss.noise.item() == pytest.approx(3.0, abs=0.2)  # and the noise is learnt


# the noise


@pytest.mark.parametrize("noise", [0.01, 0.5, 10.0, 300.0])
def test_the_noise_starts_where_it_is_told(noise):
    assert BatchBalancedMSE(initial_noise=noise).noise.item() == pytest.approx(noise, rel=1e-5)


def test_the_noise_is_learnt_at_its_own_rate_and_without_decay():
    model, loss = torch.nn.Linear(1, 1), BatchBalancedMSE(learning_rate_factor=50.0)
    optimizer = build_optimizer(functools.partial(torch.optim.Adam, lr=1e-4, weight_decay=0.1), model, loss)
    noise = optimizer.param_groups[1]
    assert noise["params"] == [loss.raw_noise]
    assert noise["lr"] == pytest.approx(50 * 1e-4)
    assert noise["weight_decay"] == 0.0
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    before = loss.noise.item()
    loss(torch.tensor([3.0, 8.0]), torch.tensor([4.0, 6.0])).backward()
    optimizer.step()
    assert abs(loss.noise.item() - before) == pytest.approx(50 * 1e-4, rel=0.01)  # where large, a step of itself


def test_a_fixed_noise_stays():
    loss = BatchBalancedMSE(learn_noise=False)
    assert not [parameter for parameter in loss.parameters() if parameter.requires_grad]
    leaf = torch.tensor([3.0, 8.0], requires_grad=True)
    loss(leaf, torch.tensor([4.0, 6.0])).backward()
    assert loss.raw_noise.grad is None
    assert leaf.grad.abs().sum() > 0


def test_the_noise_cannot_leave_the_positive_numbers():
    loss, target = BatchBalancedMSE(initial_noise=0.1), torch.tensor([1.0, 2.0, 3.0])
    with torch.no_grad():
        loss.raw_noise.fill_(-1e4)
    assert loss.noise.item() == pytest.approx(SMALLEST_NOISE)
    leaf = (target + 0.25).requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()
    assert torch.isfinite(loss.raw_noise.grad)
    assert loss.health["noise"].item() == pytest.approx(SMALLEST_NOISE)


@pytest.mark.parametrize("far", [1e4, -1e6, 1e12])
@pytest.mark.parametrize("kind", [BatchBalancedMSE, lambda: of_mixture(MIXTURE)])
def test_gradients_are_finite_and_point_home_however_far_the_prediction(kind, far):
    leaf = torch.tensor([far, 30.0, 60.0], requires_grad=True)
    loss = kind()
    loss(leaf, torch.tensor([45.0, 31.0, 61.0])).backward()
    assert torch.isfinite(leaf.grad).all()
    assert torch.isfinite(loss.raw_noise.grad)
    assert leaf.grad[0] * far > 0


def test_by_batch_nothing_pulls_back_who_overshoots_the_outermost_target():
    """A consequence of the definition that is worth knowing: beyond 61 no other target is a better guess."""
    leaf = torch.tensor([200.0, 30.0], requires_grad=True)
    BatchBalancedMSE()(leaf, torch.tensor([61.0, 31.0])).backward()
    assert leaf.grad[0].abs() < 1e-6 < leaf.grad[1].abs()


# fitting


def test_the_fitted_mixture_is_the_one_drawn_from_and_the_same_each_time():
    density = Density(drawn_from_mixture(4000), AGES)
    first, again = MixtureBalancedMSE(components=2), MixtureBalancedMSE(components=2)
    first.prepare(density)
    again.prepare(density)
    order = first.means.argsort()
    assert first.weights[order].tolist() == pytest.approx([0.7, 0.3], abs=0.03)
    assert first.means[order].tolist() == pytest.approx([30.0, 60.0], abs=1.0)
    assert first.variances[order].tolist() == pytest.approx([16.0, 100.0], rel=0.15)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in MIXTURE)


@pytest.mark.parametrize("kind", [functools.partial(MixtureBalancedMSE, components=3), HistogramBalancedMSE])
def test_scaled_targets_have_a_scaled_density(kind):
    """Dividing targets, predictions and the noise by 5 divides the loss by 25."""
    density, values = Density(drawn_from_mixture(500), AGES), {}
    prediction, target = torch.tensor([33.0, 50.0]), torch.tensor([28.0, 61.0])
    for scale in (1.0, 5.0):
        loss = kind(initial_noise=4.0 / scale)
        loss.prepare(density, scale)
        values[scale] = loss(prediction / scale, target / scale).item()
    assert values[5.0] == pytest.approx(values[1.0] / 25, rel=1e-3)


def test_bins_of_a_histogram_stand_where_their_targets_are():
    loss = HistogramBalancedMSE()
    loss.prepare(Density(torch.tensor([30.0, 30.0, 31.25, 31.75, 130.0]), AGES))
    assert loss.means.tolist() == [30.0, 31.5, 130.0]
    assert loss.weights.tolist() == pytest.approx([2 / 5, 2 / 5, 1 / 5])
    assert loss.variances.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", [lambda: MixtureBalancedMSE(components=3), HistogramBalancedMSE])
def test_a_checkpoint_restores_density_and_noise(kind, tmp_path):
    trained = kind()
    trained.prepare(Density(drawn_from_mixture(300), AGES))
    with torch.no_grad():
        trained.raw_noise.add_(1.0)
    torch.save({"loss": torch.nn.ModuleList([trained]).state_dict()}, tmp_path / "last.pt")
    fresh = kind()
    other = copy.deepcopy(fresh)
    other.prepare(Density(torch.arange(100.0), AGES))  # another length than the stored one
    batch = torch.tensor([33.0, 50.0]), torch.tensor([28.0, 61.0])
    for restored in (fresh, other):
        stored = torch.load(tmp_path / "last.pt", weights_only=True)["loss"]
        torch.nn.ModuleList([restored]).load_state_dict(stored)
        assert restored(*batch) == trained(*batch)


# refusals


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchBalancedMSE(initial_noise=0.0), "initial_noise must be > 1e-06"),
        (lambda: BatchBalancedMSE(initial_noise=float("nan")), "initial_noise must be"),
        (
            lambda: HistogramBalancedMSE(learning_rate_factor=0.0),
            "learning_rate_factor must be > 0 and finite, got 0.0",
        ),
        (lambda: MixtureBalancedMSE(components=0), "components must be at least 1"),
        (lambda: of_mixture(MIXTURE | {"weights": [1.0]}), "as many weights as means"),
        (lambda: of_mixture(MIXTURE | {"weights": [1.0, 0.0]}), "leave empty components out"),
        (lambda: of_mixture(MIXTURE | {"variances": [1.0, -1.0]}), "variances >= 0, got at least 0.3 and -1;"),
        (lambda: of_mixture(MIXTURE | {"means": [1.0, math.nan]}), "means hold NaN"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_weights_are_refused_because_the_loss_corrects_the_imbalance():
    with pytest.raises(ValueError, match="takes no weights; switch re-weighting off"):
        BatchBalancedMSE()(torch.zeros(2), torch.zeros(2), torch.ones(2))


def test_vectors_go_by_batch_alone():
    with pytest.raises(ValueError, match=r"must be \(n,\) or \(n, 1\)"):
        of_mixture(MIXTURE)(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", [MixtureBalancedMSE, HistogramBalancedMSE])
def test_an_unfitted_density_is_named(kind):
    with pytest.raises(RuntimeError, match="call prepare"):
        kind()(torch.zeros(2), torch.zeros(2))


def test_more_components_than_targets_are_refused():
    with pytest.raises(ValueError, match="3 distinct training targets cannot fill 8 components; set components to 3"):
        MixtureBalancedMSE().prepare(Density(torch.tensor([1.0, 2.0, 2.0, 3.0]), AGES))


def test_a_missing_scikit_learn_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ImportError, match="fitted with scikit-learn, which is missing; run pip install scikit-learn"):
        MixtureBalancedMSE(components=1).prepare(Density(torch.tensor([1.0, 2.0]), AGES))
