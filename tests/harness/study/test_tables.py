"""Table files: read as they are written, every fault told with file and key; and what they publish by experiment."""

import re

import pytest
from table_toy import TABLE, loaded, written

from harness.record.composition import composed
from harness.study import tables
from harness.study.specification import check_columns


def test_a_table_is_what_its_file_says(tmp_path):
    table = loaded(tmp_path)
    assert (table.name, table.unit, table.selection) == ("toy", "%", "best_on_test")
    column = table.columns["R@1"]
    assert (column.name, column.metric, column.scale) == ("R@1", "test/recall@1", 100)
    assert (column.decimals, column.better, column.resolution) == (1, "higher", 1.0)
    assert list(table.rows) == ["triplet", "ours"]
    ours = table.rows["ours"]
    assert (ours.experiment, ours.overrides, ours.seeds) == ("demo_rambo", ("loss.margin=0.1",), 3)
    assert ours.selection == "best_on_test"  # the table's, as it has none of its own
    numbers = {name: (number.value, number.source) for name, number in ours.published.items()}
    assert numbers == {"R@1": (64.0, "paper"), "R@2": (75.3, "readme")}
    assert table.rows["triplet"].experiment is None
    assert table.notes == ("All of it is made up.",)


def test_a_column_without_a_metric_holds_published_numbers_only(tmp_path):
    table = loaded(
        tmp_path, ("{metric: test/recall@2, scale: 100, decimals: 1, better: higher, resolution: 1.0}", "{}")
    )
    assert table.columns["R@2"].metric is None


FIRST = "scale: 100, decimals: 1, better: higher, resolution: 1.0}\n  R@2"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("title: Letters, recall@k", "", "title is missing"),
        ("unit: ", "units: ", "units is not known here; did you mean unit"),
        ("best_on_test", "best", "selection must be one of last, best_on_test, .*, got 'best'"),
        ("read: repository", "read: guess", "sources.readme.read must be one of paper, .*, got 'guess'"),
        (
            "metric: test/recall@1",
            "metric: recall@1",
            "columns.R@1.metric wants a split .* test/recall@1; got recall@1",
        ),
        (FIRST, FIRST.replace("higher", "up"), "columns.R@1.better should be 'higher' or 'lower', got 'up'"),
        (FIRST, FIRST.replace("1.0}", "0}"), "columns.R@1.resolution should be greater than 0, got 0"),
        (FIRST, FIRST.replace(", resolution: 1.0", ""), "columns.R@1.resolution is missing"),
        (FIRST, FIRST.replace("100", "0"), "columns.R@1.scale must not be 0"),
        (FIRST, FIRST.replace("1,", "1.5,"), "columns.R@1.decimals should be a valid integer, got 1.5"),
        ("R@1: 36.1", "R@1: '36.1'", "rows.triplet.published.R@1.value should be a valid number, got '36.1'"),
        ("R@1: 36.1", "R@1: .nan", "rows.triplet.published.R@1.value should be a finite number, got nan"),
        ("R@1: 36.1", "R@3: 36.1", "rows.triplet.published.R@3 is no column; there are R@1, R@2"),
        (
            "48.6}, source: paper",
            "48.6}, source: book",
            "rows.triplet.published.R@1 has the source book, .* paper",
        ),
        ("48.6}, source: paper", "48.6}", "rows.triplet.published.R@1 has no source, and a number needs one of paper"),
        ("source: readme}", "source: book}", "rows.ours.published.R@2 has the source book, and a number needs"),
        ("seeds: 3", "seeds: three", "rows.ours.seeds should be a valid integer, got 'three'"),
        ("seeds: 3", "restarts: 3", "rows.ours.restarts is not known here; there are experiment, group"),
        ("[loss.margin=0.1]", "loss.margin=0.1", "rows.ours.overrides should be a valid tuple, got 'loss.margin=0.1'"),
        ("    experiment: demo_rambo\n", "", "rows.ours.overrides change nothing, as the row has no experiment"),
        ("published: {R@1: 36.1, R@2: 48.6}, ", "", "rows.triplet has neither an experiment nor a published number"),
        ("  ours:", "  our s/1:", r"rows.our s/1 should match pattern '.*', got 'our s/1'"),
        ("triplet: {", "triplet: 5 #{", "rows.triplet should be a valid dictionary"),
        ("notes: [All", "notes: [[All", "not a readable file"),
    ],
)
def test_a_fault_is_told_in_one_sentence_with_file_and_key(tmp_path, old, new, says):
    with pytest.raises(ValueError, match=says) as error:
        loaded(tmp_path, (old, new))
    assert str(error.value).startswith("toy.yaml: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_mapping_or_has_no_rows_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"toy\.yaml: rows is missing"):
        tables.Table.load(written(tmp_path, TABLE.partition("rows:")[0]))
    with pytest.raises(ValueError, match=r"toy\.yaml: should be a valid dictionary.*, got \[1, 2\]"):
        tables.Table.load(written(tmp_path, "[1, 2]"))
    with pytest.raises(ValueError, match=r"toy\.yaml: rows should have at least 1 item"):
        tables.Table.load(written(tmp_path, TABLE.partition("rows:")[0] + "rows: {}"))


def check(table, config):
    check_columns(table.name, table.columns.values(), "rows.ours", config)


def test_tables_are_found_by_name_and_an_unknown_name_is_answered_with_the_choices(tmp_path):
    written(tmp_path, name="rambo-ablation")
    written(tmp_path, name="imdb_wiki")
    assert tables.Table.named("rambo_ablation", tmp_path).name == "rambo-ablation"
    assert tables.Table.named("imdb-wiki", tmp_path).name == "imdb_wiki"
    with pytest.raises(ValueError, match="no table is called cab; there are imdb_wiki, rambo-ablation"):
        tables.Table.named("cab", tmp_path)
    with pytest.raises(ValueError, match=r"no table is called .*; there are none in .*none"):
        tables.Table.named("cub", tmp_path / "none")


@pytest.mark.parametrize(
    ("experiment", "known", "unknown"),
    [
        ("demo_rambo", ("test/recall@8", "validation/map_at_r"), "test/recall@3"),
        ("demo_regression", ("test/mae_few", "test/pearson_zero_interpolation"), "test/mea"),
        ("demo_detection", ("test/ap50_all_point", "test/coco_ap75", "test/ap50_all_point_car"), "test/ap60"),
    ],
)
def test_a_metric_that_no_run_of_a_row_gives_is_refused_before_anything_is_run(tmp_path, experiment, known, unknown):
    config = composed([f"experiment={experiment}"])
    lower = f"{known[0]}, scale: 100, decimals: 1, better:"
    ways = [(f"{lower} higher", f"{lower} lower")] if experiment == "demo_regression" else []
    table = loaded(tmp_path, ("test/recall@1", known[0]), ("test/recall@2", known[1]), *ways)
    check(table, config)
    table = loaded(tmp_path, ("test/recall@1", unknown), ("test/recall@2", known[0]))
    with pytest.raises(
        ValueError, match=rf"toy.yaml: columns.R@1.metric is {unknown}, which rows.ours .* measures .*{known[0][5:9]}"
    ):
        check(table, config)


def test_an_arrow_against_what_the_metrics_declare_is_refused(tmp_path):
    table = loaded(tmp_path, ("better: higher", "better: lower"))
    sentence = "toy.yaml: columns.R@1.better is lower, but test/recall@1 is better when higher"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check(table, composed(["experiment=demo_rambo"]))


def test_metrics_that_do_not_say_what_they_give_are_not_checked(tmp_path):
    table = loaded(tmp_path)
    check(table, {"metrics": {"_target_": "builtins.dict"}})


def test_published_numbers_are_found_by_the_label_of_the_runs_beside_which_they_stand(tmp_path):
    written(tmp_path, name="changed")
    assert list(tables.published_by_label(tmp_path)) == ["demo_rambo loss.margin=0.1"]
    unchanged = TABLE.replace("    overrides: [loss.margin=0.1]\n", "")
    written(tmp_path, re.sub(r", R@2: \{value.*\}\}", "}", unchanged), name="fewer")
    assert tables.published_by_label(tmp_path)["demo_rambo"]["metrics"] == {"test/recall@1": 64.0}
    written(tmp_path, unchanged, name="most")
    assert tables.published_by_label(tmp_path)["demo_rambo"] == {
        "source": "A. Author 2020, table 1; their README",
        "seeds": 3,
        "metrics": {"test/recall@1": 64.0, "test/recall@2": 75.3},
    }
