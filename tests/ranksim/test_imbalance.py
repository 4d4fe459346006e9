import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranksim.bins import Bins, Density
from ranksim.imbalance import KERNELS, Reweighting, smoothed, smoothed_density, window

GOLDEN = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz", allow_pickle=False)
KINDS = {"inverse": "inverse", "inverse_float": "inverse", "sqrt_inv": "sqrt_inverse"}
THREE = Bins([0.0, 1.0, 2.0, 3.0])


def kernel_of(name):
    """The settings in a recorded array's name, such as triang_5_2."""
    if name == "none":
        return {}
    kernel, size, sigma = name.split("_")
    return {"kernel": {"triang": "triangular"}.get(kernel, kernel), "size": int(size), "sigma": float(sigma)}


def recorded(prefix):
    return [key for key in GOLDEN.files if key.startswith(prefix)]


def density_of(counts, bins):
    return Density(bins.centres.repeat_interleave(torch.as_tensor(counts)), bins)


WEIGHTS = {
    "lds/agedb/": (GOLDEN["lds/agedb_train_hist"], Bins.uniform(0, 121, 1), (5, 1000)),
    "sts/ranksim/": (GOLDEN["sts/ranksim/train_hist50"], Bins.uniform(0, 5, 0.1), None),
    "sts/yang/": (GOLDEN["sts/yang/train_hist50"], Bins.uniform(0, 5, 0.1), None),
}
WEIGHT_CASES = [
    (prefix, key) for prefix in WEIGHTS for key in recorded(prefix) if key[len(prefix) :].split("/")[0] in KINDS
]


@pytest.mark.parametrize("key", recorded("lds/window/") + recorded("fds/window/"))
def test_windows_are_those_of_the_official_code(key):
    values = window(**kernel_of(key.split("/")[2]), normalize="max" if key.startswith("lds") else "sum")
    assert values.dtype == torch.float64
    tolerance = 1e-12 if GOLDEN[key].dtype == np.float64 else 1e-7
    np.testing.assert_allclose(values.numpy(), GOLDEN[key], rtol=tolerance, atol=tolerance)


def test_all_recorded_weights_are_compared():
    assert len(WEIGHT_CASES) == 23 + 8 + 8


@pytest.mark.parametrize(("prefix", "key"), WEIGHT_CASES)
def test_weights_are_those_of_the_official_code(prefix, key):
    counts, bins, clip = WEIGHTS[prefix]
    kind, kernel = key[len(prefix) :].split("/")
    reweighting = Reweighting(KINDS[kind], clip=clip, integer_counts=kind == "inverse", **kernel_of(kernel))
    density = density_of(counts, bins)
    reweighting.prepare(density)
    filled = counts > 0
    assert np.array_equal(np.isnan(GOLDEN[key]), ~filled)
    found = reweighting(bins.centres)
    assert found.dtype == torch.float32
    assert bool(torch.isfinite(found).all())
    np.testing.assert_allclose(found.numpy()[filled], GOLDEN[key][filled], rtol=1e-6)
    assert float(reweighting(density.targets).mean()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 2.0, 5.0, 20.0])
@pytest.mark.parametrize("size", [1, 3, 5, 9, 21])
def test_the_gaussian_is_scipys_filter_of_an_impulse(size, sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    impulse = np.zeros(size)
    impulse[size // 2] = 1
    filtered = ndimage.gaussian_filter1d(impulse, sigma)
    np.testing.assert_allclose(window("gaussian", size, sigma), filtered / filtered.max(), atol=1e-13)
    np.testing.assert_allclose(window("gaussian", size, sigma, "sum"), filtered / filtered.sum(), atol=1e-13)


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40),
    st.sampled_from(KERNELS),
    st.sampled_from([1, 3, 5, 7, 9]),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
)
def test_truncated_counts_are_scipys_correlation_of_integers(counts, kernel, size, sigma):
    """To the last integer: sums such as 3 * (1/3) + 1 must fall on the same side of it."""
    ndimage = pytest.importorskip("scipy.ndimage")
    weights = window(kernel, size, sigma)
    expected = ndimage.convolve1d(np.array(counts, dtype=np.int64), weights.numpy(), mode="constant")
    assert smoothed(torch.tensor(counts), weights).trunc().long().tolist() == expected.tolist()


def test_kernels_by_hand():
    assert window("triangular", 5, 1.0).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    assert window("triangular", 3, 9.0, "sum").tolist() == pytest.approx([0.25, 0.5, 0.25])
    e = math.exp(-1 / 2)
    assert window("laplace", 3, 2.0).tolist() == pytest.approx([e, 1, e])
    assert window("laplace", 3, 2.0, "sum").tolist() == pytest.approx(
        [e / (1 + 2 * e), 1 / (1 + 2 * e), e / (1 + 2 * e)]
    )
    # every tap lands somewhere after reflection, so one bin takes all
    assert window("gaussian", 1, 2.0).tolist() == [1.0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_is_symmetric_and_highest_in_the_middle(kernel):
    values = window(kernel, 9, 1.5)
    torch.testing.assert_close(values, values.flip(0), rtol=1e-12, atol=0)
    assert values.argmax() == 4
    assert bool((values > 0).all())


def test_the_inverse_by_hand():
    reweighting = Reweighting("inverse")
    reweighting.prepare(density_of([1, 3, 4], THREE))
    # 1, 1/3, 1/4 for 1, 3, 4 samples: the sum over samples is 3, over 8 samples
    expected = [1 * 8 / 3, 1 / 3 * 8 / 3, 1 / 4 * 8 / 3]
    assert reweighting(torch.tensor([0.5, 1.5, 2.5])).tolist() == pytest.approx(expected)


def test_the_square_root_is_taken_before_smoothing():
    counts = torch.tensor([4, 9, 16])
    expected = [2 + 0.5 * 3, 0.5 * 2 + 3 + 0.5 * 4, 0.5 * 3 + 4]
    assert Reweighting("sqrt_inverse", "triangular", 3).effective_counts(counts).tolist() == pytest.approx(expected)


def test_counts_are_clipped_before_smoothing():
    counts = torch.tensor([1, 10, 5000])
    clipped = {"kind": "inverse", "clip": (5, 1000)}
    smooth = {"kernel": "triangular", "size": 3}
    assert Reweighting(**clipped).effective_counts(counts).tolist() == [5, 10, 1000]
    assert Reweighting(**clipped, **smooth).effective_counts(counts).tolist() == [10, 512.5, 1005]
    truncated = Reweighting(**clipped, **smooth, integer_counts=True).effective_counts(counts)
    assert truncated.tolist() == [10, 512, 1005]


def test_square_roots_are_neither_clipped_nor_truncated():
    reweighting = Reweighting("sqrt_inverse", "triangular", 3, clip=(5, 6), integer_counts=True)
    found = reweighting.effective_counts(torch.tensor([2, 8]))
    root = math.sqrt(2)
    assert found.tolist() == pytest.approx([root + 0.5 * 2 * root, 2 * root + 0.5 * root])


def test_no_reweighting_is_one_everywhere():
    reweighting = Reweighting("none")
    reweighting.prepare(density_of([5, 0, 0], THREE))
    assert reweighting(torch.tensor([0.5, 1.5, 99.0])).tolist() == [1, 1, 1]


def test_a_bin_without_training_samples():
    """Its smoothed count decides, and where that is 0 too it weighs as much as the rarest bin."""
    bins = Bins([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    plain, smooth = Reweighting("inverse"), Reweighting("inverse", kernel="triangular", size=3)
    for reweighting in (plain, smooth):
        reweighting.prepare(density_of([4, 2, 0, 0, 0], bins))
    weights = plain(bins.centres).tolist()
    assert weights == pytest.approx([0.75, 1.5, 1.5, 1.5, 1.5])
    # effective counts 5, 4, 1, 0, 0
    weights = smooth(bins.centres)
    assert (weights[0] * 5).item() == pytest.approx((weights[1] * 4).item())
    assert (weights[2] * 1).item() == pytest.approx((weights[1] * 4).item())
    assert weights[3].item() == weights[4].item() == weights[1].item()


@pytest.mark.parametrize("kind", ["inverse", "sqrt_inverse"])
@pytest.mark.parametrize("kernel", [None, *KERNELS])
def test_questions_asked_of_every_weighting(kind, kernel):
    generator = torch.Generator().manual_seed(0)
    targets = (torch.randn(500, generator=generator) * 12 + 40).clamp(0, 120).round()
    density = Density(targets, Bins.uniform(0, 121, 1))
    reweighting = Reweighting(kind, kernel=kernel)
    reweighting.prepare(density)
    weights = reweighting(targets)
    assert weights.shape == (500,)
    assert bool((weights > 0).all())
    assert bool(torch.isfinite(weights).all())
    assert weights.mean().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(reweighting(targets[:, None]), weights)
    assert torch.equal(reweighting(targets.long()), weights)
    assert torch.equal(reweighting(targets.flip(0)), weights.flip(0))
    assert not weights.requires_grad
    # scarcer is heavier
    common, rare = density.counts.argmax(), (density.counts == density.counts[density.counts > 0].min()).nonzero()[0]
    assert reweighting(common[None].float()) < reweighting(rare.float())


def test_weights_survive_a_checkpoint_whether_prepared_or_not():
    density = density_of([1, 3, 4], THREE)
    first = Reweighting("inverse")
    first.prepare(density)
    fresh, prepared = Reweighting("inverse"), Reweighting("inverse")
    prepared.prepare(density_of([9, 1, 1], THREE))
    for other in (fresh, prepared, copy.deepcopy(prepared)):
        other.load_state_dict(first.state_dict())
        assert torch.equal(other(THREE.centres), first(THREE.centres))
    within = torch.nn.Sequential(Reweighting("inverse"))
    within.load_state_dict(torch.nn.Sequential(first).state_dict())
    assert torch.equal(within[0](THREE.centres), first(THREE.centres))


def test_a_checkpoint_without_weights_is_refused():
    with pytest.raises(RuntimeError, match="Missing key"):
        Reweighting("inverse").load_state_dict({})


@pytest.mark.parametrize("kernel", KERNELS)
def test_both_densities_for_a_plot_are_on_one_scale(kernel):
    counts = [0, 0, 0, 4, 8, 4, 0, 0, 0]
    density = density_of(counts, Bins.uniform(0, 9, 1))
    empirical, smooth = smoothed_density(density, kernel, 5, 1.0)
    assert empirical.tolist() == counts
    assert smooth.sum().item() == pytest.approx(16)  # nothing is lost at the ends here
    assert smooth.max() < 8
    # and the weights of re-weighting belong to it
    reweighting = Reweighting("inverse", kernel=kernel, size=5, sigma=1.0)
    reweighting.prepare(density)
    products = reweighting(density.bins.centres)[3:6].double() * smooth[3:6]
    torch.testing.assert_close(products, products[:1].expand(3), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "squared"}, "kind must be one of none, inverse, sqrt_inverse, got 'squared'"),
        ({"kind": "none", "kernel": "gaussian"}, "needs re-weighting"),
        ({"kernel": "box"}, "kernel must be one of gaussian, triangular, laplace, got 'box'"),
        ({"kernel": "gaussian", "size": 4}, "must be odd and positive, so that it has a centre, got 4"),
        ({"kernel": "gaussian", "size": 0}, "got 0"),
        ({"kernel": "gaussian", "size": 2.5}, "got 2.5"),
        ({"kernel": "gaussian", "sigma": 0.0}, "sigma must be > 0 and finite, got 0"),
        ({"kernel": "laplace", "sigma": -1.0}, "got -1"),
        ({"kernel": "gaussian", "sigma": math.nan}, "got nan"),
        ({"clip": (0, 10)}, "0 < low < high"),
        ({"clip": (10, 5)}, "0 < low < high"),
        ({"clip": [5]}, "two counts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Reweighting(**{"kind": "inverse", **options})


def test_targets_of_one_value_cannot_be_weighed():
    with pytest.raises(ValueError, match=r"all 4 training targets, from 1\.5 to 1\.5, fall in one bin"):
        Reweighting("inverse").prepare(density_of([0, 4, 0], THREE))


def test_asking_for_weights_too_early():
    with pytest.raises(RuntimeError, match="call prepare"):
        Reweighting("inverse")(torch.tensor([1.0]))


def test_targets_that_have_no_weight_are_refused():
    reweighting = Reweighting("inverse")
    reweighting.prepare(density_of([1, 3, 4], THREE))
    with pytest.raises(ValueError, match=r"targets must be one a sample, \(samples,\) or \(samples, 1\), got \(3, 2\)"):
        reweighting(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="nan"):
        reweighting(torch.tensor([math.nan]))


def test_it_says_what_it_is():
    assert repr(Reweighting("sqrt_inverse", kernel="gaussian")) == "Reweighting(sqrt_inverse, gaussian 5/2)"
