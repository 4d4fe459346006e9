import statistics

import pytest

from engine import runs
from engine.results import Cell, cell, find_runs, group_by_method, markdown

PUBLISHED = {"cub_rambo": {"source": "table 3", "metrics": {"test/recall@1": 64.0}, "seeds": 3}}


def finished(folder, seed=0, recall=0.5, overrides=(), fingerprint="a", fixture=False):
    folder.mkdir(parents=True)
    report = {
        "experiment": "cub_rambo",
        "overrides": [f"seed={seed}", *overrides],
        "seed": seed,
        "config": {},
        "data": {"fingerprint": fingerprint, "fixture": fixture},
        "results": {"last": {"epoch": 2, "metrics": {"test/recall@1": recall}}},
    }
    runs.finish(folder, report)
    return folder


def test_a_cell_is_mean_and_deviation_over_seeds(tmp_path):
    for seed, recall in enumerate([0.60, 0.62, 0.67]):
        finished(tmp_path / f"{seed}", seed, recall)
    (members,) = group_by_method(find_runs([tmp_path])).values()
    found = cell(members, "last", "test/recall@1")
    assert found.mean == pytest.approx((0.60 + 0.62 + 0.67) / 3)
    assert found.deviation == pytest.approx(statistics.stdev([0.60, 0.62, 0.67]))
    assert found.percent() == "63.0 ± 3.6"
    assert cell(members, "best_on_test", "test/recall@1") is None
    assert Cell((0.5,)).percent() == "50.0"


def test_seeds_of_one_command_share_a_row_and_other_losses_get_their_own(tmp_path):
    finished(tmp_path / "a", 0, 0.5)
    finished(tmp_path / "b", 1, 0.7)
    finished(tmp_path / "c", 0, 0.4, ["loss=triplet", "workers=0", "+sweep=seeds", "+tracking.wandb=offline"])
    table = markdown(find_runs([tmp_path]), ["last"], ["test/recall@1"]).splitlines()
    assert table[2:] == [
        "| cub_rambo | last | 60.0 ± 14.1 | 2 |",
        "| cub_rambo loss=triplet | last | 40.0 | 1 |",
    ]


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


def test_what_cannot_be_averaged_is_refused_with_both_folders(tmp_path):
    finished(tmp_path / "a", 0)
    finished(tmp_path / "b", 0)
    with pytest.raises(ValueError, match=r"seed 0 is there twice: .*a and .*b"):
        group_by_method(find_runs([tmp_path]))
    finished(tmp_path / "c" / "1", 0)
    finished(tmp_path / "c" / "2", 1, fingerprint="another")
    with pytest.raises(ValueError, match=r"different data: .*1 and .*2"):
        group_by_method(find_runs([tmp_path / "c"]))


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
    assert Cell((3.0, 5.0)).shown("test/queries_without_match") == "4.0 ± 1.4"
    assert Cell((3.0, 3.0)).shown("test/queries_without_match") == "3"


def test_errors_are_shown_in_their_unit_and_shares_in_percent():
    assert Cell((7.1, 7.3)).shown("test/mae_few") == "7.20 ± 0.14"
    assert Cell((0.891,)).shown("test/mse") == "0.891"
    assert Cell((0.742,)).shown("test/pearson") == "74.2"
    assert Cell((0.5,)).shown("test/recall@1") == "50.0"


def test_a_first_stage_is_no_run_of_its_own(tmp_path):
    finished(tmp_path / "run")
    finished(tmp_path / "run" / "first_stage")
    (found,) = find_runs([tmp_path])
    assert found.folder == tmp_path / "run"
