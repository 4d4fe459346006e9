import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranksim.bins import Bins
from ranksim.bucket_statistics import BucketMoments, calibration
from ranksim.imbalance import window
from ranksim.smoothing import FeatureSmoothing
from tests.harness.host_reads import HostReads

GOLDEN = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz", allow_pickle=False)
CASES = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("fds/") and key.endswith("/config")})
EPOCHS = 5
STATE = {
    "running_mean": "running_mean",
    "running_var": "running_variance",
    "running_mean_last": "last_mean",
    "running_var_last": "last_variance",
    "smoothed_mean": "smoothed_mean",
    "smoothed_var": "smoothed_variance",
    "num_tracked": "tracked",
}
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


def read(*names):
    return torch.from_numpy(GOLDEN["/".join(names)])


def official(case):
    """The module whose numbers were recorded."""
    kernel, size, sigma, momentum, first, last, start_update, start_smooth = GOLDEN[f"fds/{case}/config"].tolist()
    scores = case.startswith("sts")
    return FeatureSmoothing(
        features=6,
        bins=Bins.uniform(0, 5, 0.1) if scores else Bins.uniform(int(first), int(last), 1),
        kernel={"triang": "triangular"}.get(kernel, kernel),
        size=int(size),
        sigma=float(sigma),
        momentum=None if momentum == "None" else float(momentum),
        start_update=int(start_update),
        start_smooth=int(start_smooth),
        clip=(0.5, 2) if scores else (0.1, 10),
        alias_statistics=True,
        out_of_range="clamp" if scores else "official",
        kernel_over="all",
        empty_buckets="neighbours" if scores else "keep",
    )


def drawn(samples, features=5, buckets=8, seed=0):
    """Features whose mean and spread depend on the target, and targets between 0 and `buckets`."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(samples, generator=generator) * buckets
    noise = torch.randn(samples, features, generator=generator)
    return noise * (1 + targets[:, None] / 4) + targets[:, None].sin(), targets


def built(buckets=8, features=5, **options):
    return FeatureSmoothing(features, Bins.uniform(0, buckets, 1), **options)


def after(module, epochs, samples=60):
    """The module, a few epochs later."""
    for epoch in range(epochs):
        module.update(*drawn(samples, module.features, module.bins.count, seed=epoch))
    return module


# ---- recorded from the official code


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [7, 1000])
@pytest.mark.parametrize("case", CASES)
def test_five_epochs_as_the_official_code_has_them(case, batch, device):
    module = official(case).to(device)
    for epoch in range(EPOCHS):
        smoothed = module(read("fds", case, "batch")[epoch].to(device), read("fds", case, "batch_labels").to(device))
        torch.testing.assert_close(smoothed.cpu(), read("fds", case, "smooth")[epoch], rtol=0, atol=1e-5)
        features, labels = read("fds", case, "features")[epoch], read("fds", case, "labels")
        for some, targets in zip(features.split(batch), labels.split(batch), strict=True):
            module.observe(some.to(device), targets.to(device))
        module.finish_epoch()
        for recorded, name in STATE.items():
            found = getattr(module, name).float().cpu()
            torch.testing.assert_close(found, read("fds", case, recorded)[epoch], rtol=0, atol=1e-5, msg=recorded)
        # the official counter stands at the newest epoch with an update, and at the first one until then
        counter = max(int(module.epoch) - 1, module.start_update)
        assert counter == read("fds", case, "epoch")[epoch].item()
    assert int(module.epoch) == EPOCHS


def test_all_recorded_cases_are_compared():
    assert len(CASES) == 8


@pytest.mark.parametrize("epoch", range(2, EPOCHS))
def test_the_recorded_cases_tell_the_options_apart(epoch):
    """Else the test above would prove nothing about them."""
    for case, option, value in [
        ("age_gauss5", "alias_statistics", False),
        ("sts_gauss5", "empty_buckets", "keep"),
        ("age_gauss5", "kernel_over", "filled"),
        ("sts_gauss5", "clip", (0.1, 10.0)),
    ]:
        module = official(case)
        setattr(module, option, value)
        for earlier in range(epoch):
            module.update(read("fds", case, "features")[earlier], read("fds", case, "labels"))
        found = module(read("fds", case, "batch")[epoch], read("fds", case, "batch_labels"))
        assert (found - read("fds", case, "smooth")[epoch]).abs().max() > 1e-3, (case, option)


@pytest.mark.parametrize(
    ("recorded", "source", "target", "clip"),
    [
        ("out", "v1", "v2", (0.1, 10)),
        ("out_zeros", "v1_zeros", "v2", (0.1, 10)),
        ("sts_out", "v1", "v2", (0.5, 2)),
        ("sts_out_neg", "v1_neg", "v2_neg", (0.5, 2)),
    ],
)
def test_calibration_as_the_official_code_has_it(recorded, source, target, clip):
    means, variances = read("calibrate", "m1"), read("calibrate", source)
    scale, shift = calibration(means, variances, read("calibrate", "m2"), read("calibrate", target), clip)
    found = (read("calibrate", "matrix") * scale + shift).float()
    torch.testing.assert_close(found, read("calibrate", recorded), rtol=0, atol=1e-5)


def test_a_bucket_without_variance_is_left_alone_as_officially():
    nothing = torch.full((6,), 1e-12)
    scale, shift = calibration(torch.ones(6), nothing, torch.zeros(6), torch.ones(6), (0.1, 10))
    found = (read("calibrate", "matrix") * scale + shift).float()
    assert torch.equal(found, read("calibrate", "out_allzero"))
    assert torch.equal(found, read("calibrate", "matrix"))


# ---- values


def test_calibration_by_hand():
    """From mean 3, variance 4 to mean 5, variance 9: (x - 3) * 3/2 + 5; and ratios no larger than 2."""
    four, nine = torch.tensor([4.0]), torch.tensor([9.0])
    scale, shift = calibration(torch.tensor([3.0]), four, torch.tensor([5.0]), nine, (0.1, 10))
    assert (7 * scale + shift).item() == pytest.approx((7 - 3) * 1.5 + 5)
    scale, shift = calibration(torch.tensor([3.0]), four, torch.tensor([5.0]), nine, (0.5, 2))
    assert (7 * scale + shift).item() == pytest.approx((7 - 3) * math.sqrt(2) + 5)


def test_statistics_of_the_first_epoch_by_hand():
    module = built(buckets=3, features=1, size=1)
    module.update(torch.tensor([[1.0], [4.0], [7.0], [5.0]]), torch.tensor([0.2, 0.4, 0.9, 2.5]))
    assert module.running_mean[:, 0].tolist() == [4, 0, 5]
    assert module.running_variance[:, 0].tolist() == [(9 + 0 + 9) / 2, 1, 0]  # of one sample: 0
    assert module.tracked.tolist() == [3, 0, 1]


def test_momentum_by_hand():
    kept, averaged = (built(buckets=1, features=1, size=1, momentum=momentum) for momentum in (0.9, None))
    for module in (kept, averaged):
        module.update(torch.tensor([[0.0], [4.0]]), torch.tensor([0.5, 0.5]))
        module.update(torch.tensor([[10.0]] * 6), torch.tensor([0.5] * 6))
    assert kept.running_mean.item() == pytest.approx(0.1 * 10 + 0.9 * 2)
    assert kept.running_variance.item() == pytest.approx(0.1 * 0 + 0.9 * 8)
    assert averaged.running_mean.item() == pytest.approx(6 / 8 * 10 + 2 / 8 * 2)
    assert averaged.running_variance.item() == pytest.approx(2 / 8 * 8)


def test_statistics_are_smoothed_across_buckets_and_reflected_at_the_ends():
    module = built(buckets=3, features=1, kernel="triangular", size=3)  # 1/4, 1/2, 1/4
    features, targets = torch.tensor([[0.0], [8.0], [4.0]]), torch.tensor([0.5, 1.5, 2.5])
    module.update(features, targets)
    assert not module.smoothed_mean.any()  # one update late
    module.update(features, targets)
    assert module.smoothed_mean[:, 0].tolist() == [4, 0.25 * 0 + 0.5 * 8 + 0.25 * 4, 0.5 * 4 + 0.5 * 8]


def test_corrected_and_official_source_of_the_calibration():
    """Kernel of one bucket: smoothing moves features from some statistics to those of an epoch ago."""
    corrected, aliased = (
        built(buckets=1, features=1, size=1, momentum=0.0, clip=(1e-6, 1e6), alias_statistics=alias)
        for alias in (False, True)
    )
    for module in (corrected, aliased):
        module.update(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, 0.5]))  # mean 0, variance 2
        module.update(torch.tensor([[6.0], [14.0]]), torch.tensor([0.5, 0.5]))  # mean 10, variance 32
    features, targets = torch.tensor([[6.0], [14.0]]), torch.tensor([0.5, 0.5])
    torch.testing.assert_close(corrected(features, targets), features)
    torch.testing.assert_close(aliased(features, targets), torch.tensor([[-1.0], [1.0]]))


def test_targets_outside_join_the_outermost_buckets():
    bins = Bins.uniform(3, 6, 1)
    features, targets = torch.tensor([[1.0], [5.0], [30.0]]), torch.tensor([-2.0, 3.0, 8.0])
    clamped = FeatureSmoothing(1, bins, size=1)
    clamped.update(features, targets)
    assert clamped.tracked.tolist() == [2, 0, 1]
    assert clamped.running_mean[:, 0].tolist() == [3, 0, 30]


def test_officially_they_join_only_an_occupied_bucket():
    bins = Bins.uniform(3, 6, 1)
    features, targets = torch.tensor([[1.0], [5.0], [30.0]]), torch.tensor([-2.0, 3.0, 8.0])
    strict = FeatureSmoothing(1, bins, size=1, out_of_range="official")
    for sample in range(3):  # what counts is the epoch, not the batch
        strict.observe(features[sample : sample + 1], targets[sample : sample + 1])
    strict.finish_epoch()
    assert strict.tracked.tolist() == [2, 0, 0]
    assert strict.running_mean[:, 0].tolist() == [3, 0, 0]
    assert strict.running_variance[:, 0].tolist() == [8, 1, 1]


@pytest.mark.parametrize(("inside", "outside"), [(3.0, -2.0), (5.0, 6.0), (5.0, 80.0)])
def test_officially_they_are_smoothed_only_beside_a_target_of_that_bucket(inside, outside):
    officially, clamped = (
        FeatureSmoothing(
            1, Bins.uniform(3, 6, 1), size=1, momentum=0.0, alias_statistics=True, out_of_range=out_of_range
        )
        for out_of_range in ("official", "clamp")
    )
    for module in (officially, clamped):
        for mean in (1.0, 11.0):  # from the newest to those of an epoch ago: 10 less
            module.update(torch.tensor([[mean - 1], [mean + 1]]), torch.tensor([inside, inside]))
    alone, beside = (torch.tensor([[20.0]]), torch.tensor([outside])), (torch.tensor([[20.0], [30.0]]),)
    assert officially(*alone).tolist() == [[20]]
    assert clamped(*alone).tolist() == [[10]]
    for module in (officially, clamped):
        assert module(*beside, torch.tensor([outside, inside])).tolist() == [[10], [20]]
        assert module(*beside, torch.tensor([4.0, inside])).tolist() == [[20], [20]]  # nothing known of bucket 4


@pytest.mark.parametrize(("over", "ends"), [("filled", [10, 0]), ("all", [5, 5])])
def test_empty_buckets_by_hand(over, ends):
    features, targets = torch.tensor([[2.0], [6.0], [10.0]]), torch.tensor([1.5, 3.5, 4.5])
    kept, filled = (
        built(buckets=7, features=1, size=1, empty_buckets=rule, kernel_over=over) for rule in ("keep", "neighbours")
    )
    for module in (kept, filled):
        module.update(features, targets)
        assert module.tracked.tolist() == [0, 1, 0, 1, 1, 0, 0]
    assert kept.running_mean[:, 0].tolist() == [0, 2, 0, 6, 10, 0, 0]
    # officially the fifth takes the mean of its left neighbour and of the last, which never had a sample and says 0
    assert filled.running_mean[:, 0].tolist() == [2, 2, 4, 6, 10, *ends]


# ---- buckets that say nothing, or little


def kernel_by_hand(values, taps, counted):
    """Of each bucket: the mean over the counted ones under the kernel, reflected at the ends; None without any."""
    half, last, found = len(taps) // 2, len(values) - 1, []
    for bucket in range(len(values)):
        there = [abs(place) for place in range(bucket - half, bucket + half + 1)]
        there = [place if place <= last else 2 * last - place for place in there]
        pairs = [(tap, values[k]) for tap, k in zip(taps, there, strict=True) if counted[k]]
        mass = sum(tap for tap, _ in pairs)
        found.append(sum(tap * value for tap, value in pairs) / mass if mass else None)
    return found


@given(
    st.lists(st.sampled_from([0, 0, 1, 5]), min_size=8, max_size=8).filter(any),
    st.sampled_from(["keep", "neighbours"]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_the_kernel_is_divided_by_what_it_finds(counts, rule, alias, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.arange(8) + 0.5).repeat_interleave(torch.tensor(counts))
    features = 100 + torch.randn(len(targets), 2, generator=generator)
    module = built(features=2, empty_buckets=rule, alias_statistics=alias)
    module.update(features, targets)
    module.update(features, targets)
    taps = window("gaussian", 5, 2.0, "sum").tolist()
    means = kernel_by_hand(module.running_mean.double(), taps, [count > 0 for count in counts])
    variances = kernel_by_hand(module.running_variance.double(), taps, [count > 1 for count in counts])
    for bucket, count in enumerate(counts):
        if count:
            torch.testing.assert_close(module.smoothed_mean[bucket].double(), means[bucket], rtol=1e-6, atol=0)
            variance = torch.zeros(2) if variances[bucket] is None else variances[bucket]
            torch.testing.assert_close(module.smoothed_variance[bucket], variance.float(), rtol=1e-6, atol=0)
    moved = module(features, targets)
    assert (moved - 100).abs().max() < 20  # officially features near 0 come out
    elsewhere = torch.tensor([bucket + 0.5 for bucket, count in enumerate(counts) if not count])
    strangers = torch.full((len(elsewhere), 2), 7.0)
    torch.testing.assert_close(module(strangers, elsewhere), strangers)  # of nothing known, nothing is changed


@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("momentum", [0.9, None])
def test_the_first_samples_of_a_bucket_are_its_statistics_whenever_they_come(momentum, alias):
    module = built(buckets=8, features=1, momentum=momentum, alias_statistics=alias)
    early, late = torch.tensor([[98.0], [102.0]]), torch.tensor([[99.0], [101.0]])
    module.update(early, torch.tensor([0.5, 0.5]))
    for epoch in range(3):
        module.update(torch.cat([early, late]), torch.tensor([0.5, 0.5, 3.5, 3.5]))
        assert module.running_mean[3].item() == pytest.approx(100)
        assert module.running_variance[3].item() == pytest.approx(2)
        moved = module(late, torch.tensor([3.5, 3.5]))
        assert (moved - 100).abs().max() < 3
        if not epoch:
            assert torch.equal(moved, late)  # nothing is smoothed yet


def test_a_single_sample_says_nothing_of_a_variance():
    module = built(buckets=2, features=1, size=1)
    pair, one = torch.tensor([[98.0], [102.0]]), torch.tensor([[100.0]])
    module.update(torch.cat([pair, one]), torch.tensor([0.5, 0.5, 1.5]))
    assert module.running_variance[:, 0].tolist() == [8, 0]
    module.update(torch.cat([one, pair]), torch.tensor([0.5, 1.5, 1.5]))
    # the first bucket keeps what it knew, and the second has nothing to be mixed with
    assert module.running_variance[:, 0].tolist() == [8, 8]
    module.update(one, torch.tensor([0.5]))
    assert module.running_variance[:, 0].tolist() == [8, 8]


def test_officially_buckets_without_samples_pull_at_their_neighbours():
    features, targets = torch.tensor([[98.0], [102.0]]), torch.tensor([3.5, 3.5])
    module = built(features=1, kernel_over="all")
    module.update(features, targets)
    module.update(features, targets)
    assert module(features, targets).mean().item() == pytest.approx(100 * window("gaussian", 5, 2.0, "sum")[2])


# ---- statistics against their definition


def test_statistics_are_means_and_unbiased_variances():
    features, targets = drawn(300)
    module = built()
    module.update(features, targets)
    for bucket in range(8):
        members = features[targets.long() == bucket].double()
        torch.testing.assert_close(module.running_mean[bucket].double(), members.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(module.running_variance[bucket].double(), members.var(0), rtol=1e-6, atol=1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 1000))
def test_many_small_batches_are_one_large_one(sizes, seed):
    features, targets = drawn(sum(sizes), seed=seed)
    whole, parts = built(), built()
    whole.update(features, targets)
    for some, where in zip(features.split(sizes), targets.split(sizes), strict=True):
        parts.observe(some, where)
    parts.finish_epoch()
    assert torch.equal(parts.tracked, whole.tracked)
    torch.testing.assert_close(parts.running_mean, whole.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(parts.running_variance, whole.running_variance, rtol=1e-6, atol=1e-6)


def test_a_large_mean_costs_no_precision():
    features, targets = drawn(2000)
    near, far = built(), built()
    near.update(features, targets)
    far.update((features.double() + 4096).float(), targets)
    exact = torch.stack([(features.double() + 4096).float().double()[targets.long() == k].var(0) for k in range(8)])
    torch.testing.assert_close(far.running_variance.double(), exact, rtol=1e-5, atol=0)


def test_a_feature_that_never_changes_has_no_variance_and_is_left_alone():
    features, targets = drawn(200)
    features[:, 2] = 0.1  # no multiple of it is exact
    module = built()
    for _ in range(3):
        for some, where in zip(features.split(33), targets.split(33), strict=True):
            module.observe(some, where)
        module.finish_epoch()
    assert not module.running_variance[:, 2].any()
    found = module(features, targets)
    assert torch.equal(found[:, 2], features[:, 2])
    assert not torch.equal(found[:, 1], features[:, 1])


def test_moments_of_no_sample():
    count, mean, deviation = BucketMoments(2, 3, torch.device("cpu")).moments()
    assert not count.any()
    assert not mean.any()
    assert not deviation.any()


# ---- smoothing against its definition


@pytest.mark.parametrize("alias", [False, True])
def test_smoothing_moves_each_bucket_to_its_neighbours(alias):
    """Written from the paper: whiten by the bucket's own statistics, colour by the smoothed ones."""
    module = after(built(alias_statistics=alias, momentum=0.5), 3)
    taps = window("gaussian", 5, 2.0, "sum")
    means, variances = [], []
    history = after(built(momentum=0.5), 2)  # the statistics that were smoothed
    for bucket in range(8):
        mirrored = [abs(place) if place < 8 else 14 - place for place in range(bucket - 2, bucket + 3)]
        means.append(sum(tap * history.running_mean[k] for tap, k in zip(taps, mirrored, strict=True)))
        variances.append(sum(tap * history.running_variance[k] for tap, k in zip(taps, mirrored, strict=True)))
    source = module if alias else history
    features, targets = drawn(100, seed=9)
    expected = torch.empty_like(features)
    for sample in range(100):
        bucket = int(targets[sample])
        ratio = (variances[bucket] / source.running_variance[bucket]).clamp(0.1, 10)
        expected[sample] = (features[sample] - source.running_mean[bucket]) * ratio.sqrt() + means[bucket]
    torch.testing.assert_close(module(features, targets), expected, rtol=1e-5, atol=1e-5)


def test_features_of_a_bucket_get_the_smoothed_statistics():
    """Smoothing the very features whose statistics were taken, ratios unlimited, gives the smoothed ones exactly."""
    features, targets = drawn(400)
    module = built(momentum=0.0, clip=(1e-9, 1e9))
    for _ in range(2):
        module.update(features, targets)
    moved = module(features, targets)
    for bucket in range(8):
        members = moved[targets.long() == bucket]
        torch.testing.assert_close(members.mean(0), module.smoothed_mean[bucket], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(members.var(0), module.smoothed_variance[bucket], rtol=1e-4, atol=1e-5)


def test_nothing_happens_before_its_time_or_in_evaluation():
    module = built(start_update=1, start_smooth=3)
    features, targets = drawn(50)
    for epoch in range(5):
        assert module.collecting == (epoch >= 1)
        assert module.smoothing == (epoch >= 3)
        assert (module(features, targets) is features) == (epoch < 3)
        module.eval()
        assert module(features, targets) is features
        module.train()
        if module.collecting:
            module.observe(features + epoch, targets)
        module.finish_epoch()
        assert bool(module.tracked.any()) == (epoch >= 1)


def test_what_is_observed_before_the_first_update_is_forgotten():
    module, other = (built(start_update=1, start_smooth=2) for _ in range(2))
    module.update(torch.full((3, 5), 1e6), torch.tensor([0.5, 1.5, 2.5]))
    other.finish_epoch()
    for each in (module, other):
        each.update(*drawn(50))
    assert torch.equal(module.running_mean, other.running_mean)


def test_the_first_smoothed_epoch_is_the_identity():
    """All statistics are still the initial ones."""
    module = built()
    features, targets = drawn(50)
    module.update(features, targets)
    assert module.smoothing
    assert torch.equal(module(features, targets), features)


@pytest.mark.parametrize("shape", ["row", "column"])
def test_gradient_is_that_of_an_affine_map(shape):
    module = after(built(), 4)
    features, targets = drawn(20)
    features.requires_grad_()
    upstream = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    found = module(features, targets if shape == "row" else targets[:, None])
    (found * upstream).sum().backward()
    torch.testing.assert_close(features.grad, upstream * module.scale[targets.long()])
    assert not any(buffer.requires_grad for buffer in module.buffers())
    double = features.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: module(given, targets), double)


def test_observing_keeps_no_graph():
    module = built()
    features, targets = drawn(30)
    module.update(features.requires_grad_(), targets)
    assert not module.running_mean.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_kept(dtype):
    module = after(built(), 4)
    features, targets = drawn(30)
    found = module(features.to(dtype), targets)
    assert found.dtype == dtype
    tolerance = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float64: 1e-5}[dtype]
    torch.testing.assert_close(found.float(), module(features, targets), rtol=tolerance, atol=tolerance)
    module.observe(features.to(dtype), targets)
    module.finish_epoch()
    assert bool(torch.isfinite(module.running_variance).all())


def test_a_module_in_double_precision_puts_scores_into_the_same_buckets():
    module = FeatureSmoothing(5, Bins.uniform(0, 5, 0.1)).double()
    scores = torch.tensor([tenths / 10 for tenths in range(50)], dtype=torch.float64)
    module.update(torch.randn(50, 5, dtype=torch.float64), scores)
    assert module.tracked.tolist() == [1] * 50


def test_order_of_samples_does_not_matter():
    module, shuffled = after(built(), 3), after(built(), 3)
    features, targets = drawn(60, seed=5)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(features, targets)[order], module(features[order], targets[order]))
    module.update(features, targets)
    shuffled.update(features[order], targets[order])
    torch.testing.assert_close(module.running_variance, shuffled.running_variance, rtol=1e-6, atol=1e-6)


def test_two_runs_are_equal_to_the_last_bit_also_with_deterministic_algorithms():
    first = after(built(), 3)
    torch.use_deterministic_algorithms(True)
    try:
        second = after(built(), 3)
        features, targets = drawn(40)
        assert torch.equal(first(features, targets), second(features, targets))
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_empty_batches_are_welcome():
    module = after(built(), 3)
    nothing = torch.empty(0, 5), torch.empty(0)
    assert module(*nothing).shape == (0, 5)
    module.observe(*nothing)
    module.update(*drawn(10))
    assert int(module.epoch) == 4


def test_a_step_asks_no_state_that_may_be_on_a_gpu():
    module = after(built(), 3)
    twin = built()
    twin.load_state_dict(module.state_dict())
    features, targets = drawn(40)
    for each in (module, twin):
        with HostReads() as reads:
            smoothed = each(features, targets)
        assert not torch.equal(smoothed, features)
        assert [place for place in reads.found if "ranksim/smoothing.py" in place] == []


# ---- state


@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
def test_a_restored_module_goes_on_as_if_nothing_had_happened(epochs, alias):
    options = {"alias_statistics": alias, "empty_buckets": "neighbours"}
    running = after(built(**options), epochs)
    restored = built(**options)
    restored.load_state_dict(running.state_dict())
    features, targets = drawn(30, seed=100)
    for epoch in range(3):
        assert torch.equal(restored(features, targets), running(features, targets))
        for module in (running, restored):
            module.update(*drawn(60, seed=50 + epoch))
    for name, value in running.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name


def test_state_is_the_statistics_and_nothing_else():
    names = {f"{kind}_{moment}" for kind in ("running", "last", "smoothed") for moment in ("mean", "variance")}
    module = built()
    assert set(module.state_dict()) == names | {"epoch", "tracked"}
    module.observe(*drawn(10))
    assert set(module.state_dict()) == names | {"epoch", "tracked"}


def test_a_copy_is_independent():
    module = after(built(), 3)
    copied = copy.deepcopy(module)
    features, targets = drawn(20)
    before = module(features, targets)
    copied.load_state_dict(built().state_dict())
    assert torch.equal(module(features, targets), before)
    assert torch.equal(copied(features, targets), features)


def test_statistics_can_be_logged():
    module = after(built(), 3)
    moved = (module.smoothed_mean - module.last_mean).abs().mean().item()
    assert module.health == {
        "buckets_filled": 8.0,
        "mean_moved": pytest.approx(moved, rel=1e-4),
        "mean_scale": pytest.approx(module.scale[:-1].mean().item()),
    }
    assert built().health == {"buckets_filled": 0.0, "mean_moved": 0.0, "mean_scale": 1.0}


# ---- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "must be odd"),
        ({"sigma": 0.0}, "sigma must be > 0"),
        ({"kernel": "box"}, "kernel must be"),
        ({"features": 0}, "features must be"),
        ({"buckets": 2, "size": 5}, "needs at least 3 buckets, got 2"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"momentum": -0.1}, "momentum must lie"),
        ({"momentum": math.nan}, "momentum must lie"),
        ({"start_update": 1, "start_smooth": 1}, "start_update < start_smooth"),
        ({"start_update": -1}, "start_update < start_smooth"),
        ({"clip": (2.0, 3.0)}, "0 < low <= 1 <= high"),
        ({"clip": (0.0, 3.0)}, "0 < low <= 1 <= high"),
        ({"clip": (1.0,)}, "two ratios"),
        ({"out_of_range": "drop"}, "out_of_range must be one of clamp, official, got 'drop'"),
        ({"empty_buckets": "zero"}, "empty_buckets must be one of keep, neighbours, got 'zero'"),
        ({"kernel_over": "some"}, "kernel_over must be one of filled, all, got 'some'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        built(**options)


def test_the_smallest_number_of_buckets_for_a_kernel():
    module = after(built(buckets=3, size=5), 3)
    assert bool(torch.isfinite(module.smoothed_mean).all())


@pytest.mark.parametrize("bins", [Bins.uniform(0, 5, 0.1), Bins([0.5, 1.5, 2.5])])
def test_official_handling_of_ages_needs_ages(bins):
    with pytest.raises(ValueError, match="is for ages"):
        FeatureSmoothing(4, bins, size=1, out_of_range="official")


@pytest.mark.parametrize("call", ["forward", "observe"])
@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3), r"features \(samples, 5\), got \(3, 4\)"),
        (torch.zeros(3, 5, 1), torch.zeros(3), "features"),
        (torch.zeros(3, 5), torch.zeros(4), r"targets must be one a sample, \(3,\) or \(3, 1\), got \(4,\)"),
        (torch.zeros(3, 5), torch.zeros(3, 2), "targets must be one a sample"),
        (torch.zeros(3, 5), torch.tensor([0.0, math.nan, 1.0]), "1 of 3 targets are nan"),
    ],
)
def test_batches_that_do_not_fit_are_refused(call, features, targets, message):
    module = after(built(), 3)
    with pytest.raises(ValueError, match=message):
        getattr(module, call)(features, targets)


def test_an_epoch_without_its_pass_is_refused():
    with pytest.raises(RuntimeError, match="no features were observed in epoch 0"):
        built().finish_epoch()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_features_of_a_diverged_model_do_not_enter_the_statistics(wrong):
    module = after(built(), 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    features, targets = drawn(20)
    features[3, 1] = wrong
    with pytest.raises(ValueError, match="epoch 2 hold nan or infinity"):
        module.update(features, targets)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
