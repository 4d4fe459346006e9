import numpy as np
import pytest
from made_runs import PNG, made
from scipy import stats

from harness.show.figures import COLOURS, DASHES, MARKERS, band, learning_curves, line_style

METRIC = "test/recall@1"


def test_png_and_svg_by_the_suffix_and_the_same_figure_twice_is_the_same_file(tmp_path):
    runs = {"RaMBO": [made(tmp_path / "a", 0), made(tmp_path / "b", 1)]}
    for name in ("a.png", "a.svg", "b.svg"):
        drawn = learning_curves(tmp_path / name, runs, METRIC, "recall@1", spread="interval", percent=True)
        assert drawn["RaMBO"].tolist() == [[0.1, 0.3, 0.5]] * 2
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_band_is_the_range_or_the_t_interval():
    values = np.array([[1.0, 4.0], [2.0, 4.0], [3.0, 4.0]])
    assert [end.tolist() for end in band(values, "range")] == [[1.0, 4.0], [3.0, 4.0]]
    half = stats.t.ppf(0.975, df=2) * 1 / 3**0.5
    np.testing.assert_allclose(band(values, "interval"), [[2 - half, 4.0], [2 + half, 4.0]])
    assert [end.tolist() for end in band(values[:1], "interval")] == [[1.0, 4.0], [1.0, 4.0]]
    assert np.isnan(band(np.array([[np.nan], [1.0]]), "interval")).all()


def test_runs_that_stopped_early_are_drawn_as_far_as_all_go(tmp_path):
    runs = [made(tmp_path / "a", curve=[0.1, 0.2, 0.3, 0.4]), made(tmp_path / "b", 1, curve=[0.3, 0.4])]
    drawn = learning_curves(tmp_path / "a.png", {"x": runs}, METRIC, "recall@1", shared_epochs=True)
    assert drawn["x"].tolist() == [[0.1, 0.2], [0.3, 0.4]]


def test_null_in_the_record_is_a_gap(tmp_path):
    drawn = learning_curves(tmp_path / "a.png", {"x": [made(tmp_path / "a", curve=[0.1, None, 0.2])]}, METRIC, "y")
    assert np.isnan(drawn["x"][0, 1])


def test_what_cannot_be_drawn_is_said(tmp_path):
    run = made(tmp_path / "a")
    with pytest.raises(ValueError, match="no test/mae to draw: a run of x has none"):
        learning_curves(tmp_path / "a.png", {"x": [run]}, "test/mae", "y")
    with pytest.raises(ValueError, match="there is no run of x"):
        learning_curves(tmp_path / "a.png", {"x": []}, METRIC, "y")
    with pytest.raises(ValueError, match="no method to draw"):
        learning_curves(tmp_path / "a.png", {}, METRIC, "y")
    (run / "metrics.jsonl").write_text('{"epoch": 0, "test/reca')
    with pytest.raises(ValueError, match=r"a/metrics.jsonl is truncated"):
        learning_curves(tmp_path / "a.png", {"x": [run]}, METRIC, "y")


def test_seven_lines_differ_in_each_of_colour_marker_and_dashes():
    looks = [line_style(place) for place in range(7)]
    for part in ("color", "marker", "linestyle"):
        assert len({str(look[part]) for look in looks}) == 7
    assert len({str(line_style(place)) for place in range(84)}) == 84
    assert len(COLOURS) == len(DASHES) == 7
    assert len(MARKERS) == 12
