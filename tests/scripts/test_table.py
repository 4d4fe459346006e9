"""python scripts/table.py: a table of tiny runs from end to end, and what bad input is answered with."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from loaded_script import loaded

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "table.py"
TINY = """
title: Letters
data: rendered letters
selection: last
columns:
  R@1: {metric: test/recall@1, scale: 100, decimals: 1, better: higher, resolution: 1.0}
sources:
  paper: {text: "A. Author 2020, table 1", read: paper}
rows:
  rambo: {name: RaMBO, experiment: demo_rambo, published: {R@1: 64.0}, source: paper}
  wrong: {name: A margin below 0, experiment: demo_rambo, overrides: [loss.margin=-1]}
"""


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "tiny.yaml").write_text(TINY)
    return tmp_path / "tables"


@pytest.fixture
def call(tables, tmp_path, monkeypatch, capsys):
    """main() in this process; returns the exit code or message, and what was printed."""
    script = loaded("table")

    def called(*arguments):
        common = ["--tables", str(tables), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["table.py", *common, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            script.main()
        return end.value.code, capsys.readouterr()

    return called


def test_what_is_there_is_shown_without_running_anything(call, tmp_path):
    code, said = call("tiny", "--no-run", "--formats", "none", "--seeds", "2")
    assert code == 0
    assert "tiny: 4 runs: 0 finished, 0 interrupted, 4 missing" in said.out
    assert "64.0" in said.out
    assert "4 runs are missing; to run what is missing: make table-tiny SEEDS=2" in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cub"], "error: no table is called cub; there are tiny"),
        ([], "error: which table? name one or more, or --all; there are tiny"),
        (["tiny", "--seeds", "0"], "error: --seeds must be at least 1, got 0"),
        (["tiny", "--at-once", "0"], "error: --at-once must be at least 1, got 0"),
        (["tiny", "--only", "margin"], "error: --only margin: no such row can be run; there are rambo, wrong"),
        (["tiny", "--formats", "word"], "error: a format is one of markdown, latex, csv, html; got word"),
        (["tiny", "--scale", "tiny"], "there is no scale tiny; choose from fixture"),
        (
            ["tiny", "--no-run", "--runs", "nowhere"],
            "error: no run below nowhere; without --no-run, what is missing is",
        ),
    ],
)
def test_bad_input_is_answered_with_one_sentence(call, arguments, says):
    code, _ = call(*arguments)
    assert says in code
    assert "\n" not in code


def test_of_several_tables_a_faulty_one_costs_only_itself(call, tables):
    (tables / "broken.yaml").write_text(TINY.replace("demo_rambo", "demo_ramba"))
    code, said = call("--all", "--no-run", "--formats", "none")
    assert code == 1
    assert said.err.startswith("error: broken.yaml: rows.rambo: ")
    assert "Letters" in said.out


def test_stand_in_data_cannot_fill_a_table_of_published_numbers(call, tables, tmp_path):
    (tables / "tiny.yaml").write_text(
        TINY[: TINY.index("  rambo:")] + "  old: {name: Old, published: {R@1: 1.5}, source: paper}\n"
    )
    code, said = call("tiny", "--scale", "fixture")
    assert code == 0
    assert "tiny: published numbers only, so nothing to run on stand-in data" in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_table_is_run_kept_resumed_and_keeps_what_did_not_fail(tables, tmp_path):
    outputs = tmp_path / "runs (1)"  # a name that means something to Hydra's grammar

    def table(*more):
        command = [sys.executable, str(SCRIPT), "tiny", "--tables", str(tables), "--runs", str(outputs)]
        command += ["--out", str(tmp_path / "out"), "--seeds", "2", "--scale", "fixture", *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    first = table()
    assert first.returncode == 1, first.stderr
    assert "4 runs: 0 finished, 0 interrupted, 4 missing" in first.stdout
    assert "Stand-in data: these numbers mean nothing." in first.stdout
    assert "A margin below 0, seeds 0, 1: failed: margin must be >= 0 and finite, got -1" in first.stdout
    done = sorted(path.parent for path in outputs.rglob("DONE"))
    assert len(done) == 2
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "out" / "tiny_fixture.csv").open())}
    recalls = [json.loads((folder / "report.json").read_text())["results"]["last"]["metrics"]["test/recall@1"]
               for folder in done]  # fmt: skip
    assert float(rows["rambo"]["ours"]) == pytest.approx(100 * sum(recalls) / 2)
    assert (rows["rambo"]["seeds"], rows["rambo"]["verdict"], rows["rambo"]["published"]) == ("2", "stand-in data", "")
    assert (rows["wrong"]["seeds"], rows["wrong"]["verdict"]) == ("0", "failed")

    again = table("--only", "rambo")
    assert again.returncode == 0, again.stderr
    assert "4 runs: 2 finished, 0 interrupted, 2 missing" in again.stdout
    assert "1/" not in again.stdout.partition("Letters")[0]  # nothing was run
    assert sorted(path.parent for path in outputs.rglob("DONE")) == done

    before = (done[0] / "report.json").read_text()
    (done[0] / "report.json").unlink()
    (done[0] / "DONE").unlink()
    resumed = table("--only", "rambo")
    assert resumed.returncode == 0, resumed.stderr
    assert "4 runs: 1 finished, 1 interrupted, 2 missing" in resumed.stdout
    assert sorted(path.parent for path in outputs.rglob("DONE")) == done  # in the folder where it was
    kept = [json.loads(text)["results"]["last"] for text in (before, (done[0] / "report.json").read_text())]
    assert kept[0] == kept[1]
