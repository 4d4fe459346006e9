"""What is handed to losses, weights, bins and metrics: asked of all of them alike."""

import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch

from ranksim.bins import Bins, Density
from ranksim.imbalance import Reweighting
from ranksim.inputs import as_numbers
from ranksim.losses import (
    L1,
    MSE,
    BatchBalancedMSE,
    ConR,
    FocalL1,
    FocalMSE,
    HistogramBalancedMSE,
    Huber,
    MixtureBalancedMSE,
    RankNContrast,
    RankSimilarity,
)
from ranksim.metrics import regression_metrics
from ranksim.smoothing import FeatureSmoothing

TARGETS = torch.tensor([30.0, 31.0, 31.0, 60.0, 45.0, 30.0])
DENSITY = Density(TARGETS, Bins.uniform(0, 121, 1))


def prepared(loss):
    loss.prepare(DENSITY)
    return loss


PREDICTING = {
    "l1": L1,
    "mse": MSE,
    "focal_l1": FocalL1,
    "focal_mse": lambda: FocalMSE(gamma=0.5),
    "huber": Huber,
    "balanced_batch": BatchBalancedMSE,
    "balanced_mixture": lambda: prepared(MixtureBalancedMSE(components=2)),
    "balanced_histogram": lambda: prepared(HistogramBalancedMSE()),
}
TERMS = {
    "ranksim": lambda: RankSimilarity(subsample="none"),
    "ranksim_legacy": lambda: RankSimilarity(subsample="none", legacy_backward=True),
    "rank_n_contrast": RankNContrast,
    "rank_n_contrast_cosine": lambda: RankNContrast(similarity="cosine"),
    "conr": lambda: ConR(window=20.0),
}
EVERY = [*PREDICTING, *TERMS]


def batch(name):
    """What is differentiated, and a function of it and of the targets."""
    draws = torch.Generator().manual_seed(1)
    prediction = TARGETS + 9 * torch.randn(6, generator=draws)
    if name in PREDICTING:
        return prediction, PREDICTING[name]()
    loss, features = TERMS[name](), torch.randn(6, 3, generator=draws)
    return features, (lambda x, y: loss(x, y, prediction)) if name == "conr" else loss


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", EVERY)
def test_what_is_not_finite_is_refused_wherever_it_stands(name, bad):
    leaf, loss = batch(name)
    what = "predictions" if name in PREDICTING else "features"
    broken = leaf.clone()
    broken[2] = bad
    with pytest.raises(ValueError, match=f"{what} hold NaN or infinity: .*, first at row 2"):
        loss(broken.requires_grad_(), TARGETS)
    targets = TARGETS.clone()
    targets[4] = bad
    with pytest.raises(ValueError, match="targets hold NaN or infinity: 1 of 6, first at row 4"):
        loss(leaf, targets)
    if name == "conr":
        with pytest.raises(ValueError, match="predictions hold NaN or infinity"):
            ConR()(leaf, TARGETS, targets)


@pytest.mark.parametrize("given", [lambda y: y.numpy(), lambda y: y.tolist(), lambda y: y.double().numpy()])
@pytest.mark.parametrize("name", EVERY)
def test_targets_may_be_an_array_or_a_list(name, given):
    leaf, loss = batch(name)
    torch.testing.assert_close(loss(leaf, given(TARGETS)), loss(leaf, TARGETS), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_trained_must_be_a_tensor(name):
    leaf, loss = batch(name)
    with pytest.raises(TypeError, match="must be a torch tensor, as the gradient goes through them, got ndarray"):
        loss(leaf.numpy(), TARGETS)
    with pytest.raises(TypeError, match="targets must be a tensor, an array or a list of numbers, got str"):
        loss(leaf, "ages")


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 256), (torch.float16, 2048)])
@pytest.mark.parametrize("name", EVERY)
def test_half_precision_that_merges_targets_is_refused(name, dtype, limit):
    leaf, loss = batch(name)
    loss(leaf, TARGETS.to(dtype))
    large = torch.full((6,), float(limit)) + 2 * torch.arange(6)
    with pytest.raises(ValueError, match=f"are not told apart beyond {limit}.*: keep them in float32"):
        loss(leaf, large.to(dtype))


@pytest.mark.parametrize("name", TERMS)
def test_whole_numbers_too_large_for_float32_stay_distinct(name):
    leaf, loss = batch(name)
    if name != "conr":
        far = 2**24 + torch.arange(6)
        assert loss(leaf, far) == loss(leaf, torch.arange(6))


def test_weights_bins_smoothing_and_metrics_take_arrays_and_lists():
    weighting = Reweighting("inverse")
    weighting.prepare(DENSITY)
    smoothing = FeatureSmoothing(2, DENSITY.bins).train()
    smoothing.update(torch.ones(6, 2), TARGETS.tolist())
    for given in (TARGETS.numpy(), TARGETS.tolist()):
        assert torch.equal(weighting(given), weighting(TARGETS))
        assert torch.equal(DENSITY.bins(given), DENSITY.bins(TARGETS))
        assert torch.equal(Density(given, DENSITY.bins).counts, DENSITY.counts)
        assert smoothing(torch.ones(6, 2), given).shape == (6, 2)
        assert regression_metrics(given, given, DENSITY)["mae"] == 0
        assert L1()(TARGETS + 1, given, given) == L1()(TARGETS + 1, TARGETS, TARGETS)
    merged = torch.tensor([257.0, 258.0]).bfloat16()
    for call in (weighting, DENSITY.bins, lambda y: Density(y, DENSITY.bins), lambda y: regression_metrics(y, y)):
        with pytest.raises(ValueError, match="targets in bfloat16 are not told apart beyond 256"):
            call(merged)
        with pytest.raises(TypeError, match="targets must be a tensor, an array or a list of numbers, got NoneType"):
            call(None)


def test_arrays_of_no_numbers_are_refused():
    with pytest.raises(TypeError, match="weights must be a tensor, an array or a list of numbers, got ndarray"):
        as_numbers("weights", np.array(["a"]))


# differentiated in every mode


@pytest.mark.parametrize("name", EVERY)
def test_torch_func_gives_the_gradient_of_backward(name):
    leaf, loss = batch(name)
    tangent = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(2))
    plain = leaf.clone().requires_grad_()
    loss(plain, TARGETS).backward()
    torch.testing.assert_close(torch.func.grad(loss)(leaf, TARGETS), plain.grad)
    if name == "ranksim_legacy":
        with pytest.raises(RuntimeError, match="rank has no forward-mode derivative"):
            torch.func.jvp(lambda x: loss(x, TARGETS), (leaf,), (tangent,))
    else:
        _, along = torch.func.jvp(lambda x: loss(x, TARGETS), (leaf,), (tangent,))
        torch.testing.assert_close(along.float(), (plain.grad * tangent).sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_second_derivative_is_right_or_refused(name):
    leaf, loss = batch(name)
    double = leaf.double().requires_grad_()
    if name.startswith("ranksim"):
        (slope,) = torch.autograd.grad(loss(double.tanh(), TARGETS), double, create_graph=True)
        with pytest.raises(RuntimeError, match="a ranking loss can be differentiated once"):
            slope.square().sum().backward()
    else:
        with suppress(NotImplementedError):  # torch 2.10 refuses that of cdist
            assert torch.autograd.gradgradcheck(lambda x: loss(x, TARGETS.double()), double)


@pytest.mark.parametrize("name", EVERY)
def test_vmap_is_right_or_refused(name):
    leaf, loss = batch(name)
    batches = torch.stack([leaf, leaf + 1]), torch.stack([TARGETS, TARGETS.flip(0)])
    if name in PREDICTING:
        torch.testing.assert_close(
            torch.func.vmap(loss)(*batches), torch.stack([loss(*pair) for pair in zip(*batches, strict=True)])
        )
    else:
        with pytest.raises(RuntimeError, match="cannot be mapped over by vmap"):
            torch.func.vmap(loss)(*batches)


# nothing of the batch is kept


@pytest.mark.parametrize("name", EVERY)
def test_nothing_of_the_batch_is_kept(name):
    loss = PREDICTING[name]() if name in PREDICTING else TERMS[name]()
    before = len(pickle.dumps(loss))
    features = torch.randn(200, 300, requires_grad=True)
    targets = torch.arange(200.0)
    leaf = targets + 1 if name in PREDICTING else features
    loss(leaf, targets, targets) if name == "conr" else loss(leaf, targets)
    assert len(pickle.dumps(loss)) < before + 4000
    kept = [value for value in vars(loss).values() if isinstance(value, torch.Tensor)]
    kept += [value for value in getattr(loss, "health", {}).values() if isinstance(value, torch.Tensor)]
    assert all(value.numel() == 1 and not value.requires_grad for value in kept)
