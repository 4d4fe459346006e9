import re
import sys

import pytest
from loaded_script import loaded
from made_runs import made, swept


@pytest.fixture
def report(monkeypatch):
    module = loaded("report")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        module.main()

    return run


def test_without_options_a_markdown_table(tmp_path, report, capsys):
    made(tmp_path / "a", overrides=["loss=triplet"])
    report(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "| method | selected | test/recall@1 | seeds |",
        "| --- | --- | ---: | ---: |",
        "| cub_rambo loss=triplet | last | 50.0 | 1 |",
    ]


def test_the_table_of_a_search_that_left_the_test_split_alone(tmp_path, report, capsys):
    made(tmp_path / "a", metrics={"validation/recall@1": 0.25})
    report(tmp_path)
    assert "| cub_rambo | last | 25.0 | 1 |" in capsys.readouterr().out


def test_the_page_and_the_figures_are_written_where_asked(tmp_path, report, capsys):
    swept(tmp_path / "runs", {(x, y): 0.5 for x in (1, 2, 4) for y in (0, 0.1)})
    report(tmp_path / "runs", "--html", tmp_path / "new" / "page.html", "--figures", tmp_path / "figures")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"page: {tmp_path / 'new' / 'page.html'}"
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!DOCTYPE html>")
    names = [path.name for path in sorted((tmp_path / "figures").iterdir())]
    start = "cub-200-2011_loss-interpolation_loss-margin"
    stems = ["cub-200-2011_curves", f"{start}_interpolation_curve", f"{start}_map"]
    assert names == [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
    assert sorted(line.removeprefix("figure: ") for line in said[1:]) == [str(tmp_path / "figures" / n) for n in names]


def test_figures_are_of_the_settings_that_sweep_names(tmp_path, report, capsys):
    for size in (64, 128, 256):
        made(tmp_path / "runs" / str(size), settings={"model.size": size}, experiment=f"cub_{size}")
    report(tmp_path / "runs", "--figures", tmp_path / "figures", "--sweep", "model.size")
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {"cub-200-2011_curves", "cub-200-2011_model-size_size_curve"}
    report(tmp_path / "runs", "--figures", tmp_path / "figures", "--sweep", "model.width")
    assert "has no setting model.width" in capsys.readouterr().err
    for wrong in (["a", "b", "c", "--html", "x"], ["model.size"]):
        with pytest.raises(SystemExit):
            report(tmp_path / "runs", "--sweep", *wrong)
        assert "--sweep " in capsys.readouterr().err


def test_every_data_set_has_a_table_of_its_own_and_stand_in_data_their_banner(tmp_path, report, capsys):
    made(tmp_path / "a")
    made(
        tmp_path / "b",
        recall=0.7,
        overrides=["scale=fixture"],
        data={"name": "Tiny", "fingerprint": "b", "fixture": True},
    )
    report(tmp_path, "--metrics", "test/recall@1")
    real, tiny = capsys.readouterr().out.split("\n\n## ")
    assert real.startswith(f"## CUB-200-2011, judged by test/recall@1, data {'a' * 12}\n\n| method")
    assert "50.0" in real
    assert "mean nothing" not in real
    assert tiny.startswith("Tiny, judged by test/recall@1, data b\n\n**Stand-in data: these numbers mean nothing.**")
    assert "70.0" in tiny
    assert "50.0" not in tiny
    made(tmp_path / "c", overrides=["loss=l1"], metrics={"test/mae": 7.5}, data={"name": "Ages", "fingerprint": "c"})
    report(tmp_path, "--metrics", "test/mae")
    assert capsys.readouterr().out.startswith("| method | selected | test/mae | seeds |")


@pytest.mark.parametrize("options", [[], ["--html", "page.html"]])
def test_an_unknown_metric_is_refused_with_those_that_there_are(options, tmp_path, report, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "a")
    with pytest.raises(SystemExit, match=r"^error: no run has the metric test/nosuch; there are test/recall@1"):
        report(tmp_path / "a", "--metrics", "test/nosuch", *options)


@pytest.mark.parametrize("options", [[], ["--html"]])
def test_what_was_published_stands_beside_our_number(options, tmp_path, report, capsys):
    made(tmp_path / "runs" / "a")
    page = tmp_path / "page.html"
    report(tmp_path / "runs", *options, *([page] if options else []))
    said = page.read_text() if options else capsys.readouterr().out
    assert "published: Rolinek et al. 2020, table 3" in said
    assert "64.0" in said


@pytest.mark.parametrize("options", [[], ["--html", "page.html"]])
def test_bad_input_is_answered_in_one_sentence(options, tmp_path, report, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"^error: no finished run below \S*empty; make one: python train.py"):
        report(tmp_path / "empty", *options)
    run = made(tmp_path / "cut" / "a")
    (run / "report.json").write_text((run / "report.json").read_text()[:100])
    with pytest.raises(SystemExit, match=r"^error: \S*a/report.json is truncated or not JSON"):
        report(tmp_path / "cut", *options)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "page.html").exists()


def test_an_unknown_epoch_is_refused_with_the_choices(tmp_path, report, capsys):
    with pytest.raises(SystemExit):
        report(tmp_path, "--selected", "best")
    assert "'best_on_validation'" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--html"]])
def test_repeats_and_bad_folders_cost_nothing_but_a_note(options, tmp_path, report, capsys):
    runs = tmp_path / "runs"
    made(runs / "1", 0, 0.25)
    made(runs / "2", 0, 0.75)
    made(runs / "3", 0, 0.125, overrides=["loss=triplet"])
    (made(runs / "4", 1) / "report.json").write_text('{"config"')
    made(runs / "5", 0, 0.5, data={"name": "CUB-200-2011", "fingerprint": "b"})
    page = tmp_path / "page.html"
    report(runs, *options, *([page] if options else []))
    said = capsys.readouterr()
    shown = page.read_text() if options else said.out
    for number in ("75.0", "12.5", "50.0"):
        assert number in shown
    assert not re.search(r"[>|] ?25\.0", shown)
    notes = said.err.splitlines()
    assert [note.split(",")[0] for note in notes[1:2]] == [f"left out: {runs / '1'}"]
    assert f"{runs / '4' / 'report.json'} is truncated or not JSON" in notes[0]
    assert f"as {runs / '2'} is the newer run of cub_rambo, seed 0" in notes[1]
    assert notes[2].startswith("CUB-200-2011: there are runs on different versions of the data, each below")
    if options:
        assert all(note.split(" (")[0] in shown for note in notes)


def test_plus_minus_is_the_interval_and_on_request_the_deviation(tmp_path, report, capsys):
    made(tmp_path / "0", 0, 0.5)
    made(tmp_path / "1", 1, 0.7)
    report(tmp_path)
    interval = capsys.readouterr().out
    assert "| 60.0 ± 127.1 | 2 |" in interval
    assert interval.endswith("\n\n± is half of the 95 % t-interval of the mean over seeds.\n")
    report(tmp_path, "--spread", "deviation")
    deviation = capsys.readouterr().out
    assert "| 60.0 ± 14.1 | 2 |" in deviation
    assert deviation.endswith("\n\n± is the standard deviation over seeds.\n")
