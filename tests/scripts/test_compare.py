import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loaded_script import loaded

from harness.record import runs
from harness.study.uncertainty import compare, interval, together

ROOT = Path(__file__).parents[2]
script = loaded("compare")

VANILLA, RANKSIM, SMOOTHED = "agedb_vanilla", "agedb_ranksim", "agedb_vanilla lds=gaussian"
MAE = {
    VANILLA: [7.50, 7.62, 7.40, 7.55, 7.48],
    RANKSIM: [7.38, 7.51, 7.27, 7.43, 7.37],
    SMOOTHED: [7.70, 7.50, 7.30, 7.65, 7.42],
}


ERROR = {"kind": "error", "higher_is_better": False}
MEASURES = {
    **dict.fromkeys(("mae", "mae_few"), ERROR),
    "pearson": {"kind": "share", "higher_is_better": True},
    "queries_without_match": {"kind": "count"},
}


def finished(folder, label, seed, metrics, data="a", settings=None, **more):
    experiment, *overrides = label.split()
    report = {
        "experiment": experiment,
        "overrides": [f"seed={seed}", *overrides],
        "seed": seed,
        "config": {"metrics": settings or {}},
        "data": {"fingerprint": data, **more},
        "results": {"last": {"epoch": 2, "metrics": metrics}, "seconds": 1.0},
        "measures": MEASURES,
    }
    runs.finish(folder, report)


def outputs(folder, methods, **more):
    """Run folders of every method with seeds 0 to 4."""
    for label in methods:
        for seed, mae in enumerate(MAE[label]):
            numbers = {"test/mae": mae, "test/pearson": 1 - mae / 30, "test/mae_few": 9.0 + seed * mae / 10}
            numbers |= {"test/queries_without_match": 0.0, "train_only": 1.0}
            below = folder / label.replace(" ", "_") / str(seed)
            below.mkdir(parents=True)
            finished(below, label, seed, numbers, **more)
    return folder


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    """What the command says of runs of `methods`, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "160")

    def say(methods, *arguments, **more):
        script.main([str(outputs(tmp_path, methods, **more)), *arguments])
        return capsys.readouterr().out

    return say


def by_seed(label):
    return dict(enumerate(MAE[label]))


def test_two_methods_need_no_labels_and_one_metric_no_correction(said):
    text = said([RANKSIM, VANILLA], "--metric", "test/mae")
    assert "A: agedb_ranksim  (seeds 0, 1, 2, 3, 4)\nB: agedb_vanilla" in text
    found = compare(by_seed(RANKSIM), by_seed(VANILLA), better="lower", names=("A", "B"))
    assert found.text == "A is better by 0.118 ± 0.010 (5 seeds)"
    (row,) = [line for line in text.splitlines() if "test/mae ↓" in line]
    cells = re.split(r" {2,}", row.strip())
    assert cells == [
        "test/mae ↓", interval(MAE[RANKSIM]).shown(), f"B: {interval(MAE[VANILLA]).shown()}", "< 0.001", found.text,
    ]  # fmt: skip
    assert "Holm" not in text


def test_every_test_metric_is_compared_and_all_allow_for_each_other(said):
    text = said([RANKSIM, VANILLA, SMOOTHED], "--first", VANILLA)
    rows = [line for line in text.splitlines() if line.startswith(" test/")]
    assert [row.split()[0] for row in rows] == ["test/mae", "test/pearson", "test/mae_few"] * 2
    assert "adjusted by Holm's method for all 6 comparisons made here" in text
    assert "queries_without_match" not in text
    assert "B: agedb_ranksim" in text
    assert "C: agedb_vanilla lds=gaussian" in text


def test_shares_are_in_percent_and_better_when_higher(tmp_path):
    groups = script.group_by_method(script.find_runs([outputs(tmp_path, [RANKSIM, VANILLA])]))
    lines, left_out = script.compare_all(groups, RANKSIM, [VANILLA], ["test/mae", "test/pearson"], "last")
    assert left_out == []
    alone = [
        compare(by_seed(RANKSIM), by_seed(VANILLA), better="lower", names=("A", "B")),
        compare(
            {s: 100 * (1 - v / 30) for s, v in by_seed(RANKSIM).items()},
            {s: 100 * (1 - v / 30) for s, v in by_seed(VANILLA).items()},
            names=("A", "B"),
        ),
    ]
    assert [line.comparison for line in lines] == together(alone)
    assert all(line.comparison.text.startswith("A is better") for line in lines)
    (turned,), _ = script.compare_all(groups, RANKSIM, [VANILLA], ["test/mae"], "last", better="higher")
    assert turned.comparison.text.startswith("B is better")


def test_what_is_not_a_number_is_left_out_and_said(tmp_path, capsys):
    outputs(tmp_path, [RANKSIM, VANILLA])
    finished(tmp_path / "agedb_vanilla" / "3", VANILLA, 3, {"test/mae": 7.55, "test/mae_few": math.nan})
    script.main([str(tmp_path)])
    text = capsys.readouterr().out
    assert "Left out: test/mae_few is not a number in every run of A and B." in text
    assert "\n test/mae ↓" in text
    assert "\n test/mae_few" not in text


def test_a_method_with_too_few_seeds_is_left_out_by_name(tmp_path, capsys):
    outputs(tmp_path / "a", [RANKSIM, VANILLA])
    finished(tmp_path / "few" / "0", "agedb_vanilla loss=l2", 0, {"test/mae": 7.0})
    script.main([str(tmp_path), "--first", RANKSIM, "--metric", "test/mae"])
    text = " ".join(capsys.readouterr().out.split())
    few = r"agedb_vanilla loss=l2 \(.\) has fewer than 2 seeds in common with agedb_ranksim \(A\) by test/mae"
    assert re.search(f"Left out: {few}", text)
    assert "A is better" in text
    with pytest.raises(SystemExit, match=f"nothing can be compared: {few}"):
        script.main([str(tmp_path), "--first", RANKSIM, "--second", "agedb_vanilla loss=l2", "--metric", "test/mae"])


def test_a_setting_that_is_off_does_not_part_methods(tmp_path, capsys):
    outputs(tmp_path / "a", [RANKSIM], settings={"new": None})
    outputs(tmp_path / "b", [VANILLA])
    script.main([str(tmp_path)])
    assert "A is better" in capsys.readouterr().out


def test_stand_in_data_carry_a_banner(said):
    assert said([RANKSIM, VANILLA], fixture=True).startswith("Stand-in data: these numbers mean nothing.")


@pytest.mark.parametrize(
    ("methods", "arguments", "sentence"),
    [
        ([RANKSIM, VANILLA, SMOOTHED], [], "which method is compared with the others?"),
        ([RANKSIM, VANILLA], ["--first", "agedb"], "there is no method 'agedb'; there are"),
        ([RANKSIM, VANILLA], ["--second", "agedb"], "there is no method 'agedb'; there are"),
        (
            [RANKSIM, VANILLA],
            ["--first", VANILLA, "--second", VANILLA],
            "--first and --second are both 'agedb_vanilla'",
        ),
        ([RANKSIM], [], "comparing takes two methods; there is\n  agedb_ranksim  (seeds 0, 1, 2, 3, 4)"),
        ([RANKSIM, VANILLA], ["--metric", "mae"], "mae is not a metric of every run here; there are test/mae"),
        ([RANKSIM, VANILLA], ["--selected", "best"], "has no results 'best'; it has last"),
    ],
)
def test_bad_input_is_answered_with_a_sentence_and_the_choices(tmp_path, methods, arguments, sentence):
    with pytest.raises(SystemExit) as answer:
        script.main([str(outputs(tmp_path, methods)), *arguments])
    assert str(answer.value).startswith("error: ")
    assert sentence in str(answer.value)
    if "there are" in sentence and "no method" in sentence:
        assert all(f"\n  {label}  (seeds 0, 1, 2, 3, 4)" in str(answer.value) for label in methods)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"data": "b"}, "were run on different data"),
        (
            {"settings": {"gmean_eps": "zeros"}},
            r"were measured with different settings (metrics.gmean_eps=None and metrics.gmean_eps=zeros)",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_with_both_folders(tmp_path, other, sentence):
    outputs(tmp_path / "a", [RANKSIM])
    outputs(tmp_path / "b", [VANILLA], **other)
    with pytest.raises(SystemExit) as answer:
        script.main([str(tmp_path)])
    assert sentence in str(answer.value)
    assert all(str(tmp_path / name) in str(answer.value) for name in ("a", "b"))


def test_of_a_method_that_was_measured_in_two_ways_the_newer_runs_count(tmp_path, capsys):
    outputs(tmp_path / "a", [RANKSIM, VANILLA])
    for seed in (0, 1):
        finished(
            tmp_path / "a" / VANILLA / str(seed),
            VANILLA,
            seed,
            {"test/mae": 7.0 + seed},
            settings={"gmean_eps": "zeros"},
        )
    for seed in (2, 3, 4):
        path = tmp_path / "a" / VANILLA / str(seed) / "report.json"
        runs.write_json(path, runs.read_json(path) | {"config": {"metrics": {"gmean_eps": "all"}}, "started": "2000"})
    with pytest.raises(SystemExit, match="were measured with different settings"):
        script.main([str(tmp_path)])
    assert "(seeds" not in capsys.readouterr().out


class TestDirections:
    """Told by the metrics, or by the run that was selected by one; never by a name."""

    def two(self, folder, metric, numbers, **more):
        for label, values in zip((VANILLA, RANKSIM), numbers, strict=True):
            for seed, value in enumerate(values):
                below = folder / label / str(seed)
                below.mkdir(parents=True)
                finished(below, label, seed, {f"test/{metric}": value})
                path = below / "report.json"
                runs.write_json(path, runs.read_json(path) | more)
        return str(folder)

    LOW, HIGH = [1.0, 1.1, 1.2], [2.0, 2.11, 2.2]

    @pytest.mark.parametrize(
        "more",
        [
            {"measures": {"nll": {"kind": "plain", "higher_is_better": False}}},
            {"measures": {}, "config": {"trainer": {"monitor": "nll", "higher_is_better": False}}},
        ],
    )
    def test_the_lower_of_two_likelihoods_is_better_where_the_report_says_so(self, tmp_path, capsys, more):
        script.main([self.two(tmp_path, "nll", (self.LOW, self.HIGH), **more)])
        said = capsys.readouterr().out
        assert "test/nll ↓" in said
        assert "B is better" in said  # A is agedb_ranksim, B agedb_vanilla

    def test_where_nobody_said_neither_is_better(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "160")
        script.main([self.two(tmp_path, "mae", (self.LOW, self.HIGH), measures={})])
        said = capsys.readouterr().out
        assert "better by" not in said
        assert "A is higher by 1.003" in said
        assert "Nobody declared which way test/mae is better" in said
        script.main([str(tmp_path), "--better", "lower"])
        assert "B is better by 1.003" in capsys.readouterr().out


def test_repeated_and_bad_runs_cost_nothing_but_a_note(tmp_path, capsys, caplog):
    outputs(tmp_path, [RANKSIM, VANILLA])
    (tmp_path / VANILLA / "again").mkdir()
    finished(tmp_path / VANILLA / "again", VANILLA, 0, {"test/mae": 9.0})
    (tmp_path / RANKSIM / "4" / "report.json").write_text("{")
    script.main([str(tmp_path), "--metric", "test/mae"])
    assert "(seeds 0, 1, 2, 3)" in capsys.readouterr().out
    assert "is the newer run of agedb_vanilla, seed 0" in caplog.text
    assert "report.json is truncated or not JSON" in caplog.text


def test_settings_that_only_add_metrics_do_not_part_methods(tmp_path, capsys):
    outputs(tmp_path / "a", [RANKSIM], settings={"recall_at": [1, 2]})
    outputs(tmp_path / "b", [VANILLA], settings={"recall_at": [1]})
    script.main([str(tmp_path)])
    assert "A is better" in capsys.readouterr().out


def test_the_command_runs_from_a_clone(tmp_path):
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "compare.py"), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: no finished run below")
