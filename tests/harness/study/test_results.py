import math
import os
import statistics

import pytest
from scipy import stats

from harness.record import runs
from harness.record.measures import Measure
from harness.show import report_tables
from harness.study.results import cell, find_runs, group_by_method, mean_shown, studies

RECALL, SHARE = "test/recall@1", Measure("share", True)
PUBLISHED = {"cub_rambo": {"source": "table 3", "metrics": {"test/recall@1": 64.0}, "seeds": 3}}


def markdown(found, *how, **more):
    (study,) = studies(found)
    return report_tables.markdown(study, report_tables.Choice(*how, **more))


def finished(folder, seed=0, recall=0.5, overrides=(), fingerprint="a", fixture=False, **more):
    folder.mkdir(parents=True)
    report = {
        "experiment": "cub_rambo",
        "overrides": [f"seed={seed}", *overrides],
        "seed": seed,
        "config": {},
        "measures": {"recall@1": {"kind": "share", "higher_is_better": True}},
        **more,
        "data": {"fingerprint": fingerprint, "fixture": fixture},
        "results": {"last": {"epoch": 2, "metrics": {"test/recall@1": recall}}},
    }
    runs.finish(folder, report)
    return folder


def test_a_cell_is_mean_and_spread_over_seeds(tmp_path):
    for seed, recall in enumerate([0.60, 0.62, 0.67]):
        finished(tmp_path / f"{seed}", seed, recall)
    (members,) = group_by_method(find_runs([tmp_path])).values()
    deviation = 100 * statistics.stdev([0.60, 0.62, 0.67])
    assert cell(members, "last", RECALL, SHARE, "deviation") == f"63.0 ± {deviation:.1f}"
    half = stats.t.ppf(0.975, df=2) * deviation / 3**0.5
    assert cell(members, "last", RECALL, SHARE) == f"63.0 ± {half:.1f}"
    assert cell(members, "best_on_test", RECALL, SHARE) == ""
    assert mean_shown([0.5], SHARE) == "50.0"


def test_runs_without_a_number_are_counted_and_no_mean_is_made_of_none():
    assert mean_shown([0.5, 0.7], SHARE, "deviation", 1) == "60.0 ± 14.1 (2 of 3 runs)"
    assert mean_shown([], SHARE, without=2) == "nan (0 of 2 runs)"


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_a_mean_with_a_nan_in_it_is_that_of_the_others_and_says_so(tmp_path, nothing):
    finished(tmp_path / "a", 0, 0.5)
    finished(tmp_path / "b", 1, nothing)
    assert "| cub_rambo | last | 50.0 (1 of 2 runs) | 2 |" in markdown(find_runs([tmp_path]), ["last"], [RECALL])


def test_seeds_of_one_command_share_a_row_and_other_losses_get_their_own(tmp_path):
    finished(tmp_path / "a", 0, 0.5)
    finished(tmp_path / "b", 1, 0.7)
    finished(tmp_path / "c", 0, 0.4, ["loss=triplet", "workers=0", "+sweep=seeds", "+tracking.wandb=offline"])
    table = markdown(find_runs([tmp_path]), ["last"], ["test/recall@1"]).splitlines()
    assert table[2:] == [
        "| cub_rambo | last | 60.0 ± 127.1 | 2 |",
        "| cub_rambo loss=triplet | last | 40.0 | 1 |",
        "",
        "± is half of the 95 % t-interval of the mean over seeds.",
    ]
    table = markdown(find_runs([tmp_path]), ["last"], ["test/recall@1"], spread="deviation")
    assert "60.0 ± 14.1" in table
    assert table.endswith("± is the standard deviation over seeds.")


def test_published_numbers_stand_beside_ours_but_never_beside_stand_in_data(tmp_path):
    finished(tmp_path / "a")
    row = "| cub_rambo | published: table 3 | 64.0 | 3 |"
    table = markdown(find_runs([tmp_path]), ["last"], ["test/recall@1"], PUBLISHED)
    assert row in table
    assert "mean nothing" not in table
    assert row not in markdown(find_runs([tmp_path]), ["last"], ["test/recall@1"])
    finished(tmp_path / "b" / "c", fixture=True)
    table = markdown(find_runs([tmp_path / "b"]), ["last"], ["test/recall@1"], PUBLISHED)
    assert row not in table
    assert table.startswith("**Stand-in data: these numbers mean nothing.**")


def test_an_unknown_number_of_seeds_is_left_out(tmp_path):
    finished(tmp_path / "a")
    published = {"cub_rambo": {**PUBLISHED["cub_rambo"], "seeds": None}}
    table = markdown(find_runs([tmp_path]), ["last"], ["test/recall@1", "test/other"], published)
    assert "| cub_rambo | published: table 3 | 64.0 |  |  |" in table


def test_a_changed_recipe_does_not_stand_beside_the_published_number(tmp_path):
    finished(tmp_path / "a", overrides=["loss=triplet"])
    assert "table 3" not in markdown(find_runs([tmp_path]), ["last"], ["test/recall@1"], PUBLISHED)


@pytest.mark.parametrize("by", ["started", "written", "name"])
def test_of_a_repeated_run_the_newest_is_taken_and_said(tmp_path, by):
    """By when it started, or else was written, or else by its name, which is a time."""
    times = (
        [("b", 0.9, 3), ("a", 0.5, 7), ("c", 0.7, 5)] if by != "name" else [("a", 0.9, 3), ("b", 0.7, 3), ("c", 0.5, 3)]
    )
    for name, recall, hour in times:
        started = {"started": f"2026-01-02T0{hour}:00:00Z"} if by == "started" else {}
        folder = finished(tmp_path / name, 0, recall, **started)
        os.utime(folder / "report.json", (3600 * hour, 3600 * hour))
    notes = []
    (members,) = group_by_method(find_runs([tmp_path]), notes.append).values()
    assert [run.report["results"]["last"]["metrics"][RECALL] for run in members] == [0.5]
    newest = members[0].folder
    assert len(notes) == 2
    assert all(f"as {newest} is the newer run of cub_rambo, seed 0" in note for note in notes)


def test_runs_of_one_name_that_have_no_mean_are_not_averaged(tmp_path):
    finished(tmp_path / "a", 0, 0.1, fingerprint="other", started="2026-01-01")
    finished(tmp_path / "b", 1, 0.2, config={"metrics": {"map_at": 5}}, started="2026-01-02")
    finished(tmp_path / "c", 2, 0.5, config={"metrics": {"map_at": 10}, "trainer": {"seed": 2}}, started="2026-01-04")
    finished(tmp_path / "d", 3, 0.7, config={"metrics": {}, "trainer": {"seed": 3}}, started="2026-01-03")
    notes = []
    (members,) = group_by_method(find_runs([tmp_path]), notes.append).values()
    assert [run.folder.name for run in members] == ["c", "d"]  # what one does not know has its default there
    assert [note.rpartition("too, ")[2] for note in notes] == [
        "but with metrics.map_at=10 instead of 5", "but on other data",
    ]  # fmt: skip
    assert str(tmp_path / "a") in notes[1]
    assert str(tmp_path / "c") in notes[1]


def test_runs_on_other_data_are_kept_apart(tmp_path):
    finished(tmp_path / "a", 0)
    finished(tmp_path / "b", 1, fingerprint="b")
    notes = []
    assert [len(study.runs) for study in studies(find_runs([tmp_path]), notes.append)] == [1, 1]
    assert notes == []


BAD = {
    "truncated": lambda report: '{"config": {',
    "empty": lambda report: "",
    "no text": lambda report: b"\x8d\xe4\xff",
    "a list": lambda report: "[]",
    "missing": lambda report: None,
    "config no mapping": lambda report: report | {"config": ["seed"]},
    "trainer no mapping": lambda report: report | {"config": {"trainer": "default"}},
    "data no mapping": lambda report: report | {"data": "cub"},
    "no results": lambda report: report | {"results": {}},
    "results without metrics": lambda report: report | {"results": {"last": {"epoch": 2}}},
    "metrics no numbers": lambda report: report | {"results": {"last": {"metrics": {RECALL: "0.5"}}}},
    "no seed": lambda report: {key: value for key, value in report.items() if key != "seed"},
    "overrides no words": lambda report: report | {"overrides": [1]},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_folder_is_named_and_costs_itself_alone(tmp_path, kind):
    finished(tmp_path / "good", 0, 0.5)
    finished(tmp_path / "other", 1, 0.7)
    bad = finished(tmp_path / "bad", 2)
    content = BAD[kind](runs.read_json(bad / "report.json"))
    (bad / "report.json").unlink()
    if isinstance(content, dict):
        runs.write_json(bad / "report.json", content)
    elif content is not None:
        (bad / "report.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    notes = []
    found = find_runs([tmp_path], notes.append)
    assert [run.folder.name for run in found] == ["good", "other"]
    assert len(notes) == 1
    assert str(bad) in notes[0]
    assert "delete that run folder" in notes[0]
    assert "60.0" in markdown(found, ["last"], [RECALL])
    with pytest.raises(ValueError, match="delete that run folder"):  # where nothing else is there
        find_runs([bad])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    finished(tmp_path / "good")
    notes = []
    assert len(find_runs([tmp_path / "good", tmp_path / "gone"], notes.append)) == 1
    assert notes == [f"left out: {tmp_path / 'gone'} cannot be looked into (No such file or directory)"]


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run below"):
        find_runs([tmp_path])


def test_runs_of_a_search_are_no_runs_of_the_method_that_it_found(tmp_path):
    """A search looks at validation alone; its sweep also sets that, beside what it tries."""
    finished(tmp_path / "a", 0, 0.5, ["+sweep=search_rambo", "loss.margin=0.1"])
    finished(tmp_path / "b", 0, 0.7, ["loss.margin=0.1"])
    assert list(group_by_method(find_runs([tmp_path]))) == [
        "cub_rambo loss.margin=0.1 trainer.splits=[validation]",
        "cub_rambo loss.margin=0.1",
    ]


@pytest.mark.parametrize(("content", "says"), [(None, "has no report.json"), ("[]", "is no report of a run")])
def test_a_run_without_a_report_is_named(tmp_path, content, says):
    folder = finished(tmp_path / "a")
    (folder / "report.json").unlink()
    if content is not None:
        (folder / "report.json").write_text(content)
    with pytest.raises(ValueError, match=rf"a\b.*{says}.*; delete that run folder"):
        find_runs([tmp_path])


def test_counts_are_no_shares():
    assert mean_shown([3.0, 5.0], Measure("count"), "deviation") == "4.0 ± 1.4"
    assert mean_shown([3.0, 3.0], Measure("count")) == "3"


def test_errors_are_shown_in_their_unit_and_shares_in_percent():
    assert mean_shown([7.1, 7.3], Measure("error"), "deviation") == "7.20 ± 0.14"
    assert mean_shown([0.891], Measure("error")) == "0.891"
    assert mean_shown([0.742], SHARE) == "74.2"
    assert mean_shown([0.742], Measure()) == "0.742"


def test_a_first_stage_is_no_run_of_its_own(tmp_path):
    finished(tmp_path / "run")
    finished(tmp_path / "run" / "first_stage")
    (found,) = find_runs([tmp_path])
    assert found.folder == tmp_path / "run"
