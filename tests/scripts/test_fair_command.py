"""python scripts/fair.py: a search and a test of tiny runs from end to end, and what bad input is answered with."""

import csv
import json
import sys

import pytest
from loaded_script import loaded


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """main() in this process; returns the exit code or message, and what was printed."""
    script = loaded("fair")
    monkeypatch.setenv("RANKING_DATA", str(tmp_path / "data"))

    def called(*arguments):
        common = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["fair.py", *common, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            script.main()
        return end.value.code, capsys.readouterr()

    return called


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["birds"], "error: no fair comparison is called birds; there are cub-crops, omniglot, stsb"),
        (["omniglot", "--trials", "0"], "error: omniglot: trials and seeds must be at least 1, got 0 and 5"),
        (["omniglot", "--seeds", "101"], "which is one of the final seeds 0 to 100"),
        (["omniglot", "--methods", "quadruplet"], "error: omniglot compares no method quadruplet; there are recall,"),
        (["omniglot", "--at-once", "0"], "error: --at-once must be at least 1, got 0"),
        (["omniglot", "--scale", "huge", "--methods", "recall"], "there is no scale huge; choose from fixture"),
    ],
)
def test_bad_input_is_told_in_a_sentence(call, arguments, says):
    code, _ = call(*arguments)
    assert code.startswith("error: ")
    assert says in code
    assert "\n" not in code


def test_nothing_is_run_when_it_is_only_asked_what_would_be(call, tmp_path):
    code, said = call("omniglot", "--no-run", "--trials", "2", "--methods", "contrastive", "fast_ap")
    assert code == 0
    assert "search: 4 runs, 0 finished; then 10 final runs" in said.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_comparison_is_searched_tested_and_not_repeated(call, tmp_path):
    arguments = ["omniglot", "--scale", "fixture", "--methods", "contrastive", "recall", "--trials", 2, "--seeds", 2]
    code, said = call(*arguments)
    assert code == 0
    assert "search: 4 runs, 0 finished; then 4 final runs" in said.out
    assert "Stand-in data: these numbers mean nothing." in said.out

    reports = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("report.json")]
    tried = [report for report in reports if report["seed"] == 100]
    assert sorted(report["seed"] for report in reports) == [0, 0, 1, 1, 100, 100, 100, 100]
    for report in tried:  # the search has seen nothing of the test split
        assert "test/" not in json.dumps(report["results"])

    record = json.loads((tmp_path / "out" / "fair-omniglot_fixture.json").read_text())
    assert record["stand_in"] is True
    rows = list(csv.DictReader((tmp_path / "out" / "fair-omniglot_fixture.csv").open()))
    assert len(rows) == 4
    for key in ("contrastive", "recall"):
        method = record["methods"][key]
        validation = [trial["validation"] for trial in method["trials"]]
        assert validation[method["chosen"]] == max(validation)
        lr = method["trials"][method["chosen"]]["settings"]["optimizer.lr"]
        own = [
            r
            for r in reports
            if r["seed"] < 2 and r["config"]["optimizer"]["lr"] == lr and f"loss={key}" in r["overrides"]
        ]
        by_seed = {r["seed"]: 100 * r["results"]["last"]["metrics"]["test/map_at_r"] for r in own}
        assert {int(seed): value for seed, value in method["test"]["MAP@R"].items()} == pytest.approx(by_seed)

    code, said = call(*arguments)
    assert code == 0
    assert "search: 4 runs, 4 finished" in said.out
    assert "final: 4 runs, 4 finished" in said.out
    assert len(list((tmp_path / "runs").rglob("report.json"))) == 8
    assert json.loads((tmp_path / "out" / "fair-omniglot_fixture.json").read_text()) == record
