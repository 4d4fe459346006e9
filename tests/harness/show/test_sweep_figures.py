from contextlib import contextmanager

import matplotlib
import numpy as np
import pytest
from made_runs import PNG, made, swept
from scipy import stats

from harness.show import sweep_figures
from harness.show.sweep_figures import heat_map, sensitivity
from harness.study.results import find_runs

X, Y, METRIC = "loss.interpolation", "loss.margin", "test/recall@1"


@pytest.fixture
def figures(monkeypatch):
    """The figures that the test draws."""
    drawn, draw = [], sweep_figures.drawing

    @contextmanager
    def recording(path, size):
        with draw(path, size) as figure:
            yield figure
            drawn.append(figure)

    monkeypatch.setattr(sweep_figures, "drawing", recording)
    return drawn


def test_a_cell_is_the_mean_over_its_seeds_and_an_empty_one_stays_empty(tmp_path, figures):
    runs = swept(tmp_path / "runs", {(0.2, 0): 0.1, (4, 0): 0.3, (16, 0): 0.5, (4, 0.02): 0.7, (0.2, 0.02): 0.2})
    grid = heat_map(tmp_path / "map.png", runs, X, Y, METRIC)
    assert (grid.x, grid.y) == ([0.2, 4, 16], [0, 0.02])
    # Seed 1 lies 0.1 above seed 0.
    np.testing.assert_allclose(grid.mean, [[0.1 + 0.05, 0.3 + 0.05, 0.5 + 0.05], [0.2 + 0.05, 0.7 + 0.05, np.nan]])
    assert grid.seeds.tolist() == [[2, 2, 2], [2, 2, 0]]
    assert (tmp_path / "map.png").read_bytes().startswith(PNG)
    axes = figures[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["15.0", "35.0", "55.0", "25.0", "75.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.2", "4", "16"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.02"]


def luminance(colour):
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_numbers_can_be_read_on_every_colour_of_the_map(tmp_path, figures):
    heat_map(
        tmp_path / "map.png", swept(tmp_path / "r", {(x, y): x * y for x in range(7) for y in (0, 1)}), X, Y, METRIC
    )
    mesh, texts = figures[0].axes[0].collections[0], figures[0].axes[0].texts
    assert len(texts) == 14
    for face, text in zip(mesh.get_facecolor(), texts, strict=True):
        low, high = sorted((luminance(face), luminance(matplotlib.colors.to_rgb(text.get_color()))))
        assert (high + 0.05) / (
            low + 0.05
        ) > 3.9  # WCAG asks for 3 of large text, 4.5 of small; black or white gives 4.58


def test_light_is_good_for_errors_as_well(tmp_path, figures):
    for k, error in enumerate((3.0, 4.0)):
        made(tmp_path / str(k), settings={X: k, Y: 0}, metrics={"test/mae": error})
        made(tmp_path / f"{k}b", settings={X: k, Y: 1}, metrics={"test/mae": error})
    heat_map(tmp_path / "map.png", find_runs([tmp_path]), X, Y, "test/mae")
    faces = figures[0].axes[0].collections[0].get_facecolor()
    assert luminance(faces[0]) > luminance(faces[1])  # 3.0 beside 4.0
    assert figures[0].axes[0].texts[0].get_text() == "3.00"


def test_bars_are_t_intervals_or_ranges_and_the_legend_says_which(tmp_path, figures):
    runs = swept(tmp_path / "runs", {(x, 0): x / 10 for x in (1, 2, 4)}, seeds=(0, 1, 2))
    lines = sensitivity(tmp_path / "a.svg", runs, X, METRIC)
    expected = {at: [at / 10, at / 10 + 0.1, at / 10 + 0.2] for at in (1.0, 2.0, 4.0)}
    assert {at: pytest.approx(values) for at, values in lines["recall@1 on test, %"].items()} == expected
    sensitivity(tmp_path / "b.svg", runs, X, METRIC, spread="range")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    halves = []
    for figure in figures:
        (bars,) = figure.axes[0].containers[0].lines[2]
        (x, low), (_, high) = bars.get_segments()[0]
        assert (x, low + high) == pytest.approx((1.0, 2 * 20.0))
        halves.append((high - low) / 2)
    t = stats.t.ppf(0.975, df=2)
    assert halves == pytest.approx([t * 10 / 3**0.5, 10.0])  # deviation 10 % over three seeds; from 10 % to 30 %
    titles = [figure.legends[0].get_title().get_text() for figure in figures]
    assert titles == ["mean, with the 95 % interval over seeds", "mean, with the range of the seeds"]


def test_all_points_lie_inside_the_axes(tmp_path, figures):
    sensitivity(
        tmp_path / "a.svg", swept(tmp_path / "r", {(x, y): x / 20 for x in (1, 2, 9) for y in (0, 1)}), X, METRIC
    )
    low, high = figures[0].axes[0].get_ylim()
    assert low < 5.0
    assert high > 55.0  # 0.45 and a seed 0.1 above


@pytest.mark.parametrize(
    ("values", "scale"), [((0.2, 1, 16), "log"), ((0, 0.001, 0.1), "symlog"), ((0, 0.1, 0.2), "linear")]
)
def test_the_axis_is_logarithmic_where_the_values_span_decades(values, scale, tmp_path, figures):
    sensitivity(tmp_path / "a.png", swept(tmp_path / "runs", {(x, 0): 0.5 for x in values}), X, METRIC)
    axes = figures[0].axes[0]
    assert axes.get_xscale() == scale
    figures[0].canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{value:g}" for value in values]


def test_what_else_varies_makes_lines_in_the_order_of_its_values(tmp_path, figures):
    runs = swept(tmp_path, {(x, y): 0.5 for x in (1, 2) for y in (16, 4, 0.5)})
    lines = sensitivity(tmp_path / "a.png", runs, X, METRIC)
    assert list(lines) == ["loss.margin=0.5", "loss.margin=4", "loss.margin=16"]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line, *_ in figures[0].axes[0].containers}
    assert len(looks) == 3
    assert len({marker for _, marker, _ in looks}) == 3


def test_one_figure_is_one_file(tmp_path):
    runs = swept(tmp_path, {(x, 0): 0.5 for x in (1, 2)})
    sensitivity(tmp_path / "a.svg", runs, X, METRIC)
    sensitivity(tmp_path / "b.svg", runs, X, METRIC)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_what_a_figure_would_mix_is_refused(tmp_path):
    made(tmp_path / "a", settings={X: 1, Y: 0, "trainer.epochs": 2})
    made(tmp_path / "b", settings={X: 2, Y: 0, "trainer.epochs": 2})
    made(tmp_path / "c", seed=1, settings={X: 1, Y: 0, "trainer.epochs": 4})
    made(tmp_path / "d", settings={X: 1, Y: 1, "trainer.epochs": 2})
    with pytest.raises(ValueError, match=r"with loss.interpolation=1 also differ in trainer.epochs \(2, 4\)"):
        heat_map(tmp_path / "m.png", find_runs([tmp_path]), X, Y, METRIC)
    made(tmp_path / "x" / "a", settings={X: 1, Y: 0})
    made(tmp_path / "x" / "b", settings={X: 1, Y: 0})
    with pytest.raises(ValueError, match=r"loss.margin=0, seed 0 is there twice: .*a and .*b"):
        heat_map(tmp_path / "m.png", find_runs([tmp_path / "x"]), X, Y, METRIC)
    made(tmp_path / "y" / "a", settings={X: 1, Y: 0})
    made(tmp_path / "y" / "b", settings={X: 2, Y: 0}, data={"fingerprint": "b"})
    with pytest.raises(ValueError, match=r"a and .*b were run on different data"):
        sensitivity(tmp_path / "m.png", find_runs([tmp_path / "y"]), X, METRIC)


def test_what_cannot_be_drawn_is_said(tmp_path):
    runs = swept(tmp_path / "runs", {(x, y): 0.5 for x in range(8) for y in (0, 0.1)})
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"has no setting recall.margin; there is loss.margin"):
        heat_map(path, runs, X, "recall.margin", METRIC)
    with pytest.raises(ValueError, match=r"has no test/mae under last"):
        heat_map(path, runs, X, Y, "test/mae")
    with pytest.raises(ValueError, match=r"got loss.margin twice"):
        heat_map(path, runs, Y, Y, METRIC)
    with pytest.raises(ValueError, match=r"loss.margin is 0 in all of these runs"):
        heat_map(path, [run for run in runs if run.report["config"]["loss"]["margin"] == 0], X, Y, METRIC)
    with pytest.raises(ValueError, match="8 lines cannot be told apart, at most 7"):
        sensitivity(path, runs, Y, METRIC)
    with pytest.raises(ValueError, match=r"trainer.monitor has the value recall@1, which has no place on an axis"):
        sensitivity(path, runs[:2], "trainer.monitor", METRIC)
    with pytest.raises(ValueError, match="spread must be one of range, interval, got 'sd'"):
        sensitivity(path, runs, X, METRIC, spread="sd")
    with pytest.raises(ValueError, match=r"as .png or .svg or .pdf, got a.gif"):
        heat_map(tmp_path / "a.gif", runs, X, Y, METRIC)
    with pytest.raises(ValueError, match="no run to draw"):
        heat_map(path, [], X, Y, METRIC)


def test_what_is_not_a_number_leaves_its_cell_empty_and_costs_no_other(tmp_path, figures):
    for place, value in enumerate([0.1, None, 0.3, 0.4]):
        made(tmp_path / str(place), settings={X: place % 2, Y: place // 2}, overrides=[f"loss={place}"],
             metrics={METRIC: value}, curve=[0.1])  # fmt: skip
    runs = find_runs([tmp_path])
    grid = heat_map(tmp_path / "map.png", runs, X, Y, METRIC)
    np.testing.assert_array_equal(grid.mean, [[0.1, np.nan], [0.3, 0.4]])
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["10.0", "30.0", "40.0"]
    lines = sensitivity(tmp_path / "curve.png", runs, X, METRIC)
    assert [list(map(len, points.values())) for points in lines.values()] == [[1, 1], [1, 1]]
    for run in runs:
        run.report["results"]["last"]["metrics"][METRIC] = None
    with pytest.raises(ValueError, match=f"{METRIC} is not a number in any cell"):
        heat_map(tmp_path / "map.png", runs, X, Y, METRIC)


def test_light_is_good_where_the_report_says_that_lower_is_better(tmp_path, figures):
    for name, higher in (("up", True), ("down", False)):
        for place in range(4):
            made(tmp_path / name / str(place), settings={X: place % 2, Y: place // 2}, overrides=[f"loss={place}"],
                 metrics={"test/nll": float(place)}, measures={"nll": {"higher_is_better": higher}})  # fmt: skip
        heat_map(tmp_path / "map.png", find_runs([tmp_path / name]), X, Y, "test/nll")
    assert [figure.axes[0].collections[0].get_cmap().name for figure in figures] == ["viridis", "viridis_r"]
