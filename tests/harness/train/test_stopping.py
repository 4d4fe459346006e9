import pytest
from toy import Line, fit, lines

from harness.train.stopping import EarlyStopping

NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "history", "stops"),
    [
        ("no_new_best", [3, 2, 2.5], False),
        ("no_new_best", [3, 2, 2.5, 2.1], True),  # two evaluations without anything below 2
        ("no_new_best", [3, 2, 2.5, 1.9], False),
        ("no_new_best", [3, 2, 2.0, 2.0], True),  # equal is no new best
        ("worst_of_last", [3, 2, 2.5], False),  # three evaluations are not more than patience + 1
        ("worst_of_last", [3, 2, 2.5, 2.4], False),  # of the last three, 2.5 is worse
        ("worst_of_last", [3, 2, 2.5, 2.5], True),
        ("worst_of_last", [3, 2, 2.5, 2.6], True),
        ("worst_of_last", [], False),
        ("no_new_best", [NAN, 3, 2], False),
        ("no_new_best", [NAN, 3, 2, 2.5, 2.1], True),
        ("no_new_best", [NAN, NAN, 3], False),  # any number is better than none
        ("no_new_best", [3, NAN, NAN], True),  # which is no improvement
        ("no_new_best", [NAN, NAN, NAN], True),
        ("worst_of_last", [NAN, 3, 2, 2.5], False),
        ("worst_of_last", [3, 2, 2.5, NAN], True),
        ("worst_of_last", [NAN, NAN, NAN, NAN], True),
    ],
)
def test_two_evaluations_of_patience(rule, history, stops):
    stopping = EarlyStopping(patience=2, rule=rule)
    assert stopping.reached({"validation": history} if history else {}, higher_is_better=False) is stops
    assert stopping.reached({"validation": [-v for v in history]} if history else {}, higher_is_better=True) is stops


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"patience": 1, "rule": "soon"}, "must be one of no_new_best, worst_of_last, got 'soon'"),
        ({"patience": 1, "split": "test"}, "must not be test"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        EarlyStopping(**settings)


def test_a_split_that_is_not_evaluated_is_refused():
    with pytest.raises(ValueError, match="split=dev is not evaluated; there are validation, test"):
        EarlyStopping(1, split="dev").check(["validation", "test"])


def test_a_run_that_no_longer_improves_ends_early_and_resuming_it_adds_nothing(tmp_path):
    frozen = {"metrics": lambda model, loader: {"closeness": 1.0}, "model": Line()}
    results, _ = fit(tmp_path, epochs=9, stopping=EarlyStopping(2), **frozen)
    assert results["last"]["epoch"] == 3  # the first is the best, two more bring nothing
    before = lines(tmp_path)
    again, _ = fit(tmp_path, epochs=9, stopping=EarlyStopping(2), resume=True, **frozen)
    assert again["last"] == results["last"]
    assert lines(tmp_path) == before
