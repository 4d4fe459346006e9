import csv

import pytest
from loaded_script import loaded

script = loaded("agreement")
HEAD = ["row", "selection", "column", "better", "ours", "half_width", "seeds"]


def table(path, values, better="higher", half=0.01):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        writer.writerow(["untrained", "untrained", "MAP@R", better, 999, half, 3])
        for name, value in values.items():
            writer.writerow([name, "last", "MAP@R", better, value, half, 3])
            writer.writerow([name, "last", "R@1", better, -value, half, 3])
    return path


def test_the_same_order_agrees_wholly_and_the_opposite_not_at_all(tmp_path):
    one = script.means(table(tmp_path / "one.csv", {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}), "MAP@R")
    other = script.means(table(tmp_path / "other.csv", {"e": 50, "d": 40, "c": 30, "b": 20, "a": 10}), "MAP@R")
    opposite = script.means(table(tmp_path / "opposite.csv", {"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}), "MAP@R")
    rho, low, high, p_value = script.agreement(one, other, "abcde")
    assert (rho, low, high) == pytest.approx((1, 1, 1))
    assert p_value == pytest.approx(2 / 120)  # of 120 orders this one and the opposite
    assert script.agreement(one, opposite, "abcde")[:3] == pytest.approx((-1, -1, -1))


def test_ranks_correlate_as_by_the_formula(tmp_path):
    one = script.means(table(tmp_path / "one.csv", {"a": 1, "b": 2, "c": 3, "d": 4}), "MAP@R")
    other = script.means(table(tmp_path / "other.csv", {"a": 1, "b": 3, "c": 2, "d": 4}), "MAP@R")
    assert script.agreement(one, other, "abcd")[0] == pytest.approx(1 - 6 * 2 / (4 * (16 - 1)))


def test_seeds_that_scatter_leave_the_order_open(tmp_path):
    one = script.means(table(tmp_path / "one.csv", {"a": 1, "b": 2, "c": 3, "d": 4}, half=100), "MAP@R")
    rho, low, high, _ = script.agreement(one, one, "abcd")
    assert rho == 1
    assert low < -0.5
    assert high > 0.5


def test_draws_have_the_spread_of_the_interval(tmp_path):
    own = script.means(table(tmp_path / "one.csv", {"a": 7.0}, half=2.0), "MAP@R")
    draws = script.drawn(own, ["a"], script.np.random.default_rng(1))[:, 0]
    assert ((draws > 5) & (draws < 9)).mean() == pytest.approx(0.95, abs=0.01)


def test_errors_are_put_in_order_from_the_lowest(tmp_path):
    low = script.means(table(tmp_path / "one.csv", {"a": 1, "b": 2, "c": 3}, better="lower"), "MAP@R")
    high = script.means(table(tmp_path / "other.csv", {"a": 3, "b": 2, "c": 1}), "MAP@R")
    assert script.agreement(low, high, "abc")[0] == 1
    sheet = script.compared({"low": low, "high": high}, "MAP@R")
    assert [line.cells[0] for line in sheet.lines] == ["a", "b", "c"]
    assert sheet.lines[0].cells[1] == "1: 1.0 ± 0.0"
    assert "rank correlation 1.00, from 1.00 to 1.00 by the seeds" in sheet.below[0]


def test_what_cannot_be_compared_is_said(tmp_path):
    path = table(tmp_path / "one.csv", {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="has no column R@2; it has MAP@R, R@1"):
        script.means(path, "R@2")
    with pytest.raises(ValueError, match="2 methods with two seeds in common"):
        script.compared({"one": script.means(path, "MAP@R"), "other": script.means(path, "MAP@R")}, "MAP@R")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is not a table's CSV"):
        script.means(tmp_path / "other.csv", "MAP@R")
