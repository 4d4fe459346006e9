"""What came of a fair comparison: choices from made records, tables, files and the figure."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from PIL import Image

from harness.record import runs
from harness.record.runs import STAND_IN
from harness.show import fair_page
from harness.show.fair_page import dot_plot
from harness.study.fair import Search, draw, outcome, read_search, read_tests
from harness.study.fair_file import Fair
from harness.study.jobs import Job
from harness.study.uncertainty import holm

FILE = """
title: Made
data: made records
unit: "%"
experiment: demo_rambo
trials: 3
seeds: 3
selection: last
baseline: old
columns:
  R@1: {metric: test/recall@1, scale: 100, decimals: 1, better: higher}
  error: {metric: test/error, decimals: 3, better: lower}
settings:
  optimizer.lr: {log: [1.0e-4, 1.0e-1]}
methods:
  old: {name: Old}
  new: {name: New | better, overrides: [loss=smooth_ap], note: A remark.}
notes: [Made by hand.]
"""
MONITOR = "validation/recall@1"


@pytest.fixture
def fair(tmp_path):
    (tmp_path / "made.yaml").write_text(FILE)
    return Fair.load(tmp_path / "made.yaml")


def job(folder, name, validation, test, seed=100, data="a", untrained=None, fixture=False):
    """A run with these metrics; without a validation metric one whose training stopped."""
    made = Job("fair-made", name, seed, (f"seed={seed}",), f"{name}{seed}")
    folder = folder / f"{name}{seed}"
    folder.mkdir(parents=True)
    if validation is None:
        runs.stop(folder, "the loss became nan")
        return replace(made, stopped=folder)
    metrics = {MONITOR: validation, **test}
    results = {"last": {"metrics": metrics}, "seconds": 60.0}
    if untrained is not None:
        results["untrained"] = {"metrics": {"test/recall@1": untrained, "test/error": 9.0}}
    about = {"fingerprint": data, "fixture": fixture}
    report = {"experiment": "demo_rambo", "overrides": [], "seed": seed, "config": {}, "results": results}
    report |= {"data": about, "code": {"revision": "0123456789"}}
    runs.write_json(folder / "report.json", report)
    return replace(made, finished=folder)


def search(fair, folder, key, validations, tests=(0.0, 0.0, 0.0)):
    """The search of a method whose trials had these metrics."""
    method = fair.methods[key]
    jobs = [
        job(folder, f"{key}{k}", v, {"test/recall@1": t})
        for k, (v, t) in enumerate(zip(validations, tests, strict=True))
    ]
    return Search(method, tuple(draw(fair, method)), tuple(jobs), MONITOR, True)


@pytest.fixture
def made(fair, tmp_path):
    """Old: 50, 51, 52; New: 60, 61, 62 with one failed trial."""
    found = {}
    for key, validations, tests in (
        ("old", (0.5, 0.7, 0.6), (0.50, 0.51, 0.52)),
        ("new", (0.8, None, 0.6), (0.6, 0.61, 0.62)),
    ):
        result = read_search(fair, search(fair, tmp_path, key, validations))
        jobs = [
            job(
                tmp_path, key, 0.7 + seed / 100, {"test/recall@1": value, "test/error": 1.0 + seed}, seed, untrained=0.1
            )
            for seed, value in enumerate(tests)
        ]
        found[key] = read_tests(fair, result, jobs)
    return outcome(fair, found)


def test_validation_chooses_whatever_the_test_split_says(fair, tmp_path):
    found = read_search(fair, search(fair, tmp_path, "old", (0.5, 0.7, 0.6), tests=(1.0, 0.0, 0.9)))
    assert found.chosen.number == 1
    assert (found.best, found.median) == (0.7, 0.6)
    assert found.seconds == 3 * 60


def test_a_search_needs_no_test_metric(fair, tmp_path):
    planned = search(fair, tmp_path, "old", (0.5, 0.7, 0.6))
    for each in planned.jobs:
        report = json.loads((each.finished / "report.json").read_text())
        report["results"]["last"]["metrics"] = {MONITOR: report["results"]["last"]["metrics"][MONITOR]}
        runs.write_json(each.finished / "report.json", report)
    assert read_search(fair, planned).chosen.number == 1


def test_lower_is_chosen_where_lower_is_better(fair, tmp_path):
    planned = replace(search(fair, tmp_path, "old", (0.5, 0.7, 0.6)), higher_is_better=False)
    assert read_search(fair, planned).chosen.number == 0


def test_a_failed_trial_counts_as_the_worst_and_is_named(fair, tmp_path):
    planned = search(fair, tmp_path, "old", (None, 0.01, math.nan))
    found = read_search(fair, planned)
    assert found.chosen.number == 1
    assert found.faults == {0: "the loss became nan", 2: f"{MONITOR} is not a number"}
    assert found.found == {1: 0.01}


def test_a_method_whose_trials_all_failed_is_reported_and_loses_nothing_else(fair, tmp_path, made):
    found = read_search(fair, search(fair, tmp_path / "more", "new", (None, None, None)))
    assert found.chosen is None
    shown = outcome(fair, {"new": read_tests(fair, found, []), "old": made.methods["old"]})
    assert list(shown.methods) == ["old", "new"]
    assert shown.compared == ["old"]
    assert "New | better: every trial failed, so nothing was tested." in fair_page.lines(shown)
    assert "every trial failed" in fair_page.markdown(shown)


def test_methods_stand_from_best_to_worst_and_are_compared_over_seeds(made):
    assert list(made.methods) == ["new", "old"]
    assert made.values("old") == pytest.approx({0: 50.0, 1: 51.0, 2: 52.0})
    against = made.against["old"]["new"]
    assert against.interval.mean == pytest.approx(60 - 50)
    # all three differences are 10: the sign test, 2 / 2^3
    assert against.p_value == 0.25
    assert "no difference shown" in against.text
    assert made.against["new"]["old"].interval.mean == pytest.approx(50 - 60)


def test_an_error_is_best_where_it_is_lowest(fair, made):
    by_error = fair.model_copy(update={"columns": {"error": fair.columns["error"]}})
    low = replace(made.methods["old"], test={"error": {0: 1.0, 1: 1.1}})
    high = replace(made.methods["new"], test={"error": {0: 2.0, 1: 2.1}})
    assert list(outcome(by_error, {"new": high, "old": low}).methods) == ["old", "new"]


def test_a_final_run_that_failed_is_left_out_and_named(fair, tmp_path, made):
    found = made.methods["old"].searched
    jobs = [job(tmp_path / "again", "old", v, {"test/recall@1": 0.5}, seed) for seed, v in enumerate((0.7, None, 0.7))]
    result = read_tests(fair, found, jobs)
    assert sorted(result.test["R@1"]) == [0, 2]
    assert result.faults == {1: "the loss became nan"}
    shown = outcome(fair, {"old": result})
    assert "Old, seed 1 failed and is left out: the loss became nan" in fair_page.lines(shown)


def test_a_first_stage_costs_too(fair, tmp_path):
    planned = search(fair, tmp_path, "old", (0.5, 0.7, 0.6))
    first = planned.jobs[0].finished / "first_stage"
    first.mkdir()
    runs.write_json(first / "report.json", {"config": {}, "data": {}, "results": {"seconds": 40.0}})
    assert read_search(fair, planned).seconds == 3 * 60 + 40


def test_runs_on_different_data_are_refused_with_both_named(fair, made, tmp_path):
    finals = [job(tmp_path / "finals", "old", 0.5, {}, seed, data=data) for seed, data in enumerate("ab")]
    tested = read_tests(fair, made.methods["old"].searched, finals)
    with pytest.raises(
        ValueError, match=r"old0100 and .*old1 may not be .*: they were run on different data \(fingerprints a and b\)"
    ):
        outcome(fair, {"old": tested})


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('{"results": ', r"old0100/report\.json is truncated"),
        ("[1]", r"old0100/report\.json is no report of a run"),
        ("{}", r"old0100/report\.json is no report of a run"),
        (None, "old0100 is marked as finished but has no report.json"),
    ],
)
def test_a_report_that_is_none_is_named(fair, tmp_path, written, says):
    planned = search(fair, tmp_path, "old", (0.5, 0.7, 0.6))
    path = planned.jobs[0].finished / "report.json"
    path.unlink() if written is None else path.write_text(written)
    with pytest.raises(ValueError, match=says):
        read_search(fair, planned)


def test_runs_on_stand_in_data_say_so_themselves(fair, made, tmp_path):
    finals = [job(tmp_path / "tiny", "old", 0.7, {"test/recall@1": 0.5}, seed, fixture=True) for seed in range(2)]
    assert outcome(fair, {"old": read_tests(fair, made.methods["old"].searched, finals)}).stand_in
    assert not made.stand_in


def test_all_comparisons_of_a_page_allow_for_each_other(fair, made):
    """Three methods: a is best, c the baseline; of the four cells that are compared two are a against c."""
    base = made.methods["old"]
    values = {"a": (60.0, 61.0, 62.5), "b": (55.0, 57.0, 56.5), "c": (50.0, 51.0, 54.0)}
    methods = {key: replace(base, test={"R@1": dict(enumerate(own))}) for key, own in values.items()}
    three = replace(made, fair=fair.model_copy(update={"baseline": "c"}), methods=methods)
    against = three.against
    assert {reference: list(found) for reference, found in against.items()} == {"a": ["b", "c"], "c": ["a", "b"]}
    pairs = [against["a"]["b"], against["a"]["c"], against["c"]["b"]]
    assert [pair.adjusted for pair in pairs] == holm([pair.p_value for pair in pairs])
    assert against["c"]["a"].adjusted == against["a"]["c"].adjusted
    assert against["c"]["a"].interval.mean == -against["a"]["c"].interval.mean
    assert {pair.among for found in against.values() for pair in found.values()} == {3}


def test_a_page_says_the_command_that_makes_it(fair, made, tmp_path):
    some = replace(made, fair=fair.smaller(2, 3, ["old"]), stand_in=True)
    assert fair_page.command(some) == "python scripts/fair.py made --trials 2 --seeds 3 --scale fixture --methods old"
    assert fair_page.command(replace(made, stand_in=True)) == "make table-fair-made TRIALS=3 SEEDS=3 SCALE=fixture"


def test_stand_in_data_take_no_real_page_and_a_picture_goes_with_its_page(made, tmp_path):
    real = fair_page.write(made, tmp_path)
    contents = {path: path.read_bytes() for path in real}
    fair_page.write(replace(made, stand_in=True), tmp_path)
    assert {path: path.read_bytes() for path in real} == contents
    assert (tmp_path / "fair-made_fixture.md").is_file()
    one_seed = {key: replace(m, test={k: {0: v[0]} for k, v in m.test.items()}) for key, m in made.methods.items()}
    fair_page.write(replace(made, methods=one_seed), tmp_path)
    assert not (tmp_path / "fair-made.png").exists()


def test_the_page_says_what_was_measured(made):
    page = fair_page.markdown(made, "made.svg")
    assert page.startswith("# Made\n\n```bash\nmake table-fair-made TRIALS=3 SEEDS=3\n```\n")
    assert "| method | R@1 ↑ | error ↓ | seeds |" in page
    # the interval of 60, 61, 62 is 61 +- 4.303 / sqrt(3); that of 1, 2, 3 is as wide
    assert "| New \\| better | 61.0 ± 2.5 | 2.000 ± 2.484 | 3 |" in page
    assert "| untrained network | 10.0 ± 0.0 | 9.000 ± 0.000 | 3 |" in page
    assert page.index("New \\| better") < page.index("| Old |")
    assert "| method | against New \\| better | against Old |" in page
    assert "for each 3 trials with seed 100, of which the best validation/recall@1 after the last epoch" in page
    assert "* New | better, trial 2 (optimizer.lr=0.00366) failed and counts as the worst: the loss became nan" in page
    assert "* Made by hand." in page
    assert "* New | better: A remark." in page
    assert "* Training took 5 minutes for the searches and 6 minutes for the final runs" in page
    assert "![R@1 of every method over its seeds](made.svg)" in page
    assert STAND_IN not in page


def test_a_value_at_an_edge_is_marked(made):
    # trial 1 of "new" has the first point of the sequence, 0.02 of the range of the learning rate
    assert "| New \\| better | optimizer.lr=0.000116\\* | 0.800 | 0.700 | 0.710 ± 0.025 | 1 |" in fair_page.markdown(
        made
    )


def test_stand_in_data_carry_a_banner(made, capsys):
    stand_in = replace(made, stand_in=True)
    assert f"**{STAND_IN}**" in fair_page.markdown(stand_in)
    fair_page.show(stand_in)
    assert STAND_IN in capsys.readouterr().out


def test_csv_and_json_hold_every_number(made):
    rows = list(csv.DictReader(io.StringIO(fair_page.as_csv(made))))
    assert [(row["method"], row["seed"], float(row["R@1"])) for row in rows[:2]] == [
        ("new", "0", 60.0),
        ("new", "1", 61.0),
    ]
    assert rows[0]["setting"] == "optimizer.lr=0.000116"
    assert float(rows[0]["validation"]) == 0.7
    record = json.loads(json.dumps(fair_page.as_json(made)))
    assert [trial["validation"] for trial in record["methods"]["new"]["trials"]] == [0.8, None, 0.6]
    assert record["methods"]["new"]["chosen"] == 0
    assert record["methods"]["new"]["trials"][1]["fault"] == "the loss became nan"
    assert record["against"]["old"]["new"]["difference"] == pytest.approx(10)
    assert record["against"]["old"]["new"]["p_holm"] == 0.25


def test_everything_is_written(made, tmp_path):
    paths = fair_page.write(made, tmp_path / "out")
    assert [path.name for path in paths] == [f"fair-made.{suffix}" for suffix in ("png", "svg", "md", "csv", "json")]
    assert "![R@1 of every method over its seeds](fair-made.svg)" in paths[2].read_text()
    with Image.open(paths[0]) as picture:
        assert picture.width > 500


def test_the_figure_shows_the_intervals(made, tmp_path):
    drawn = dot_plot(tmp_path / "plot.svg", made)
    half = 4.302652729911275 / math.sqrt(3)  # of three numbers one apart
    assert drawn["old"] == pytest.approx((51.0, 51 - half, 51 + half))
    said = (tmp_path / "plot.svg").read_text()
    assert said.startswith("<?xml")


def test_there_is_no_figure_of_single_seeds(fair, made, tmp_path):
    single = {key: replace(m, test={"R@1": {0: 50.0}, "error": {}}) for key, m in made.methods.items()}
    shown = outcome(fair, single)
    assert shown.compared == []
    with pytest.raises(ValueError, match="at least 2 seeds"):
        dot_plot(tmp_path / "plot.png", shown)
    assert [path.suffix for path in fair_page.write(shown, tmp_path / "out")] == [".md", ".csv", ".json"]
    assert "| Old | 50.0 |  | 1 |" in fair_page.markdown(shown)
    assert "Told apart" not in fair_page.markdown(shown)
