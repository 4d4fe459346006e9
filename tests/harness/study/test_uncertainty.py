import math
import random
import statistics

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.study import uncertainty
from harness.study.uncertainty import compare, holm, interval, power, together, verdict

# Student's t at 97.5 %, from the printed tables: degrees of freedom -> quantile.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}
numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
several = st.lists(numbers, min_size=2, max_size=8)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8)


def seeds(values):
    return dict(enumerate(values))


# Values


def test_an_interval_is_t_times_the_standard_error():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(T[2] * 1 / math.sqrt(3), rel=1e-3)
    assert (found.low, found.high) == (2 - found.half, 2 + found.half)
    assert interval([0.0, 2.0]).half == pytest.approx(T[1] * math.sqrt(2) / math.sqrt(2), rel=1e-3)
    assert interval([5.0] * 5).half == 0


def test_a_comparison_is_the_interval_of_the_differences_over_common_seeds():
    first, second = {0: 3.0, 1: 5.0, 2: 7.0, 9: 99.0}, {0: 2.0, 1: 3.0, 2: 4.0, 7: -99.0}
    found = compare(first, second)
    assert found.differences == {0: 1.0, 1: 2.0, 2: 3.0}
    assert found.interval == interval([1.0, 2.0, 3.0])
    # With 2 degrees of freedom, P(|T| > t) = 1 - t / sqrt(t^2 + 2); here t = 2 / (1 / sqrt(3)).
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert found.adjusted == found.p_value


def test_the_text_says_who_is_better_by_how_much_and_which_way_is_better():
    first, second = seeds([7.00, 7.10, 7.20, 7.05, 7.15]), seeds([7.13, 7.21, 7.33, 7.16, 7.27])
    # The differences are -0.13, -0.11, -0.13, -0.11, -0.12: their mean is -0.12, their deviation 0.01.
    half = T[4] * 0.01 / math.sqrt(5)
    names = ("RankSim", "vanilla")
    assert (
        compare(first, second, better="lower", names=names).text == f"RankSim is better by 0.120 ± {half:.3f} (5 seeds)"
    )
    assert (
        compare(first, second, better="higher", names=names, decimals=2).text
        == "vanilla is better by 0.12 ± 0.01 (5 seeds)"
    )
    unknown = compare(first, second, better=None, names=names, decimals=2)
    assert unknown.text == "vanilla is higher by 0.12 ± 0.01 (5 seeds)"


def test_the_text_says_where_no_difference_is_shown_and_what_would_show_one():
    found = compare(seeds([0.5, 0.1, 0.3, 0.6]), seeds([0.1, 0.3, 0.3, 0.2]), decimals=2)
    # 0.4, -0.2, 0, 0.4: mean 0.15, deviation 0.3.
    assert not found.told_apart
    half = T[3] * 0.3 / 2
    assert found.text == (
        f"no difference shown (0.15 ± {half:.2f}, 4 seeds; about {found.seeds_needed} seeds would be needed)"
    )
    assert power(0.5, found.seeds_needed - 1) < 0.8 <= power(0.5, found.seeds_needed)
    equal = compare(seeds([1.0, 2.0]), seeds([2.0, 1.0]))
    assert equal.seeds_needed is None
    assert equal.p_value == 1
    assert equal.text == "no difference shown (0 ± 13, 2 seeds; equal on average, so no number of seeds follows)"
    tiny = compare(seeds([1.0, 2.001]), seeds([2.0, 1.0]), decimals=3)
    assert tiny.seeds_needed is None
    assert tiny.text.endswith("2 seeds; more than 1000 seeds would be needed)")


def test_differences_that_are_all_equal_are_judged_by_their_sign():
    """A metric that moves in steps of 1/50 may repeat itself; a t-test of no spread would call that certain."""
    for n, shown in ((2, False), (5, False), (6, True)):
        first = [0.02 * k + 0.1 for k in range(n)]
        found = compare(seeds(first), seeds([value - 0.02 for value in first]))
        assert found.interval.half == 0, "rounding of the subtraction counted as spread"
        assert found.p_value == 2 / 2**n
        assert found.told_apart is shown
        assert found.seeds_needed == 6
    assert compare(seeds([0.1 + 0.2, 0.3]), seeds([0.3, 0.1 + 0.2])).interval.mean == 0


def test_the_number_of_seeds_of_textbook_effects():
    """Cohen 1988, two-sided 5 %, 80 % power: d = 0.5 takes 34 pairs, d = 0.2 takes 199, d = 0.8 takes 15."""
    for effect, pairs_needed in ((0.2, 199), (0.5, 34), (0.8, 15)):
        spread = 1 / math.sqrt(2)  # the sample deviation of -0.5 and 0.5
        around = [effect * spread - 0.5, effect * spread + 0.5]
        assert compare(seeds(around), seeds([0.0, 0.0])).seeds_needed == pairs_needed
        assert power(effect, pairs_needed) >= 0.8 > power(effect, pairs_needed - 1)


def test_power_is_defined_for_huge_effects_and_is_the_error_rate_for_none():
    assert power(0.0, 7) == pytest.approx(0.05)
    assert [power(effect, n) for effect in (30.0, 1e4, 1e12) for n in (3, 100, 1000)] == pytest.approx([1.0] * 9)


def test_holms_adjustment():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03])  # 0.04 may not fall below 0.06
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_comparisons_made_together_ask_for_more():
    close = compare(seeds([1.0, 2.0, 3.5]), seeds([0.0, 0.5, 2.0]), names=("A", "B"))  # 1, 1.5, 1.5: p about 0.02
    nothing = compare(seeds([1.0, 2.0]), seeds([2.0, 1.0]))
    assert close.told_apart
    (alone,) = together([close])
    assert (alone.text, alone.adjusted, alone.seeds_needed) == (close.text, close.p_value, close.seeds_needed)
    among = together([close, nothing, nothing, nothing])[0]
    assert among.p_value == close.p_value
    assert among.adjusted == pytest.approx(4 * close.p_value)
    assert not among.told_apart
    assert among.seeds_needed > 3
    assert among.text.startswith("no difference shown among 4 comparisons (")
    assert together([]) == []


# Verdicts


@pytest.mark.parametrize(
    ("values", "published", "word"),
    [
        ([], 64.0, "not run"),
        ([64.0], 64.0, "not enough seeds"),
        ([63.9, 64.0, 64.1], 64.0, "reproduced"),
        ([64.05, 64.05, 64.05], 64.0, "not enough seeds"),  # no width by chance
        ([64.05] * 6, 64.0, "reproduced"),  # 64.0 stands for 63.95 to 64.05; six equal ones are no chance: 2 / 2^6
        ([64.06] * 5, 64.0, "not enough seeds"),
        ([64.06] * 6, 64.0, "above"),
        ([63.94] * 6, 64.0, "below"),
        ([62.0, 62.1, 62.2], 64.0, "below"),
        ([66.0, 66.1, 66.2], 64.0, "above"),
        ([60.0, 68.0], 64.0, "not enough seeds"),  # +- 50: agrees with anything
        ([60.0, 60.1, 75.0], 64.0, "not enough seeds"),
    ],
)
def test_verdicts(values, published, word):
    assert verdict(values, published, decimals=1, resolution=1.0) == word


def test_the_resolution_is_the_widest_interval_that_confirms():
    values = [63.0, 64.0, 65.0]
    half = interval(values).half
    assert verdict(values, 64.0, 1, resolution=half) == "reproduced"
    assert verdict(values, 64.0, 1, resolution=half * 0.999) == "not enough seeds"
    assert verdict(values, 64.0 - half - 0.04, 1, resolution=half) == "reproduced"
    assert verdict(values, 64.0 - half - 0.06, 1, resolution=half) == "above"


# References


@given(pairs)
def test_comparing_equals_scipys_paired_test(both):
    first, second = zip(*both, strict=True)
    differences = [a - b for a, b in both]
    assume(statistics.stdev(differences) > 1e-6)
    found = compare(seeds(first), seeds(second))
    reference = stats.ttest_rel(first, second)
    bounds = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6)
    assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high), rel=1e-6, abs=1e-9)


@given(several)
def test_an_interval_equals_scipys_one_sample_interval(values):
    assume(statistics.stdev(values) > 1e-6)
    bounds = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_rejects_what_the_step_by_step_procedure_rejects(p_values):
    rejected = set()
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if not p_values[i] * (len(p_values) - step) < 0.05:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == rejected


def test_power_equals_a_simulation():
    """4,000 experiments of 5 seeds whose true difference is 1.5 standard deviations: 2.4 % is 3.5 standard errors."""
    draw, experiments = random.Random(0), 4000
    bound = stats.t.ppf(0.975, 4)
    hits = 0
    for _ in range(experiments):
        sample = [draw.gauss(1.5, 1) for _ in range(5)]
        hits += abs(statistics.fmean(sample)) / statistics.stdev(sample) * math.sqrt(5) > bound
    assert hits / experiments == pytest.approx(power(1.5, 5), abs=0.024)


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    """2,000 experiments of 3 seeds around 10: 1.7 % is 3.5 standard errors."""
    draw = random.Random(0)
    covered = 0
    for _ in range(2000):
        found = interval([draw.gauss(10, 2) for _ in range(3)])
        covered += found.low <= 10 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.017)


# Properties


@given(several, numbers, st.sampled_from([0.01, -1, 100]))
def test_intervals_move_and_stretch_with_the_values(values, shift, scale):
    before, after = interval(values), interval([scale * value + shift for value in values])
    assert after.mean == pytest.approx(scale * before.mean + shift, abs=1e-8)
    assert after.half == pytest.approx(abs(scale) * before.half, rel=1e-6, abs=1e-8)


@settings(max_examples=40)
@given(pairs, numbers, st.sampled_from([0.01, 100]))
def test_comparing_forgets_what_both_have_in_common_and_the_unit(both, shift, scale):
    differences = [a - b for a, b in both]
    assume(statistics.stdev(differences) > 1e-2)
    before = compare(seeds(a for a, _ in both), seeds(b for _, b in both))
    after = compare(seeds(scale * a + shift for a, _ in both), seeds(scale * b + shift for _, b in both))
    assert after.p_value == pytest.approx(before.p_value, rel=1e-6)
    assert after.interval.mean == pytest.approx(scale * before.interval.mean, abs=1e-9)
    assert after.told_apart == before.told_apart


@settings(max_examples=40)
@given(pairs, st.sampled_from(["higher", "lower"]))
def test_swapping_the_methods_swaps_the_sign_and_nothing_else(both, better):
    first, second = seeds(a for a, _ in both), seeds(b for _, b in both)
    one = compare(first, second, better=better, names=("A", "B"))
    other = compare(second, first, better=better, names=("B", "A"))
    assert other.interval.mean == pytest.approx(-one.interval.mean)
    assert other.p_value == pytest.approx(one.p_value)
    assert other.seeds_needed == one.seeds_needed
    if one.told_apart:
        assert other.text == one.text


@settings(max_examples=40)
@given(pairs)
def test_what_is_not_shown_takes_more_seeds_than_there_are(both):
    found = compare(seeds(a for a, _ in both), seeds(b for _, b in both))
    for one in (found, *together([found, found, found])):
        if one.told_apart:
            assert not one.interval.low <= 0 <= one.interval.high or one.interval.half == 0
        elif one.seeds_needed is not None:
            assert one.seeds_needed > len(one.differences)


# Bad input


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values):
    with pytest.raises(ValueError, match=rf"takes at least 2 values \(seeds\), got {len(values)}"):
        interval(values)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(wrong):
    with pytest.raises(ValueError, match=f"values must be finite, got {wrong}"):
        interval([1.0, wrong])
    with pytest.raises(ValueError, match=f"values must be finite, got {wrong}"):
        compare(seeds([1.0, 2.0]), seeds([1.0, wrong]))
    assert list(compare(seeds([1.0, 2.0, wrong]), seeds([1.0, 3.0])).differences) == [0, 1]  # no common seed


def test_methods_without_common_seeds_are_refused_with_their_seeds():
    with pytest.raises(ValueError, match="A with B takes at least 2 common seeds; they have seeds 0, 1 and seeds 1, 2"):
        compare({0: 1.0, 1: 1.0}, {1: 2.0, 2: 1.0}, names=("A", "B"))
    with pytest.raises(ValueError, match="they have none and none"):
        compare({}, {})


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="better must be higher or lower, got up"):
        compare(seeds([1.0, 2.0]), seeds([1.0, 2.0]), better="up")


def test_an_interval_is_shown_with_two_digits_of_its_half():
    shown = uncertainty.Interval(64.0123, 0, 0, 0.256)
    assert shown.shown() == "64.01 ± 0.26"
    assert shown.shown(1) == "64.0 ± 0.3"
    assert uncertainty.Interval(1234.5, 0, 0, 120.0).shown() == "1234 ± 120"
    assert uncertainty.Interval(-0.001, 0, 0, 0.2).shown(2) == "0.00 ± 0.20"
    assert uncertainty.Interval(0.0, 0, 0, 0.0).shown() == "0.0 ± 0.0"
