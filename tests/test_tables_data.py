"""The tables of the papers as data: that every row can be run as it says, and facts that catch a slip of a digit.

No published number is repeated here. What is asked of them is what holds of any such number: recall grows with k, an
error over all samples lies between those of their parts, a geometric mean does not exceed the arithmetic one.
"""

import pytest

from harness.record.composition import CONFIGS, composed
from harness.record.config import fingerprint
from harness.study.specification import check_columns
from harness.study.tables import Table

FOLDER = CONFIGS / "table"
TABLES = {path.stem: Table.load(path) for path in sorted(FOLDER.glob("*.yaml"))}
RUNNABLE = {
    name: runnable
    for name, table in TABLES.items()
    if (runnable := {key: row for key, row in table.rows.items() if row.experiment})
}
SHOTS = (" many", " medium", " few")
# In which recipe the tables of RankSim run their rows, without and with RankSim; the other recipe is a group by itself.
RECIPES = {
    "agedb": ("baseline", "ranksim"), "imdb-wiki": ("baseline", "baseline"),
    "stsb": ("ranksim", "ranksim"), "stsb-dir": ("baseline", "baseline"),
}  # fmt: skip
each_table = pytest.mark.parametrize("name", TABLES)


def arguments(row):
    return [f"experiment={row.experiment}", *row.overrides]


def published(name):
    """(row, {column: value}) of every row that has a published number."""
    rows = TABLES[name].rows.values()
    return [(row.key, {column: number.value for column, number in row.published.items()}) for row in rows]


def having(*starts):
    """Tables with a column whose name starts so."""
    names = [name for name, table in TABLES.items() if any(column.startswith(starts) for column in table.columns)]
    return pytest.mark.parametrize("name", names)


def test_every_results_and_ablation_table_of_both_papers_is_there():
    rambo = {"sop", "cub", "inshop", "voc", "speed", "rambo-ablation", "voc-ablation"}
    assert rambo | {"agedb", "imdb-wiki", "stsb"} <= set(TABLES)


@each_table
def test_a_table_opens_with_what_it_is_and_how_to_run_it(name):
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert any(line.startswith(f"# make table-{name}") for line in lines)
    assert max(map(len, lines)) <= 120


@each_table
def test_every_source_is_used_and_every_row_has_a_name_of_its_own(name):
    table = TABLES[name]
    used = {number.source for row in table.rows.values() for number in row.published.values()}
    assert used == set(table.sources)
    named = [(row.group, row.name) for row in table.rows.values()]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", RUNNABLE)
def test_no_two_rows_of_a_table_are_one_number(name):
    asked = [(row.experiment, *sorted(row.overrides), row.selection) for row in RUNNABLE[name].values()]
    assert len(asked) == len(set(asked))


def test_what_one_source_says_in_two_tables_is_the_same_number_in_both():
    found = {}
    for name, rows in RUNNABLE.items():
        for row in rows.values():
            for column, number in row.published.items():
                source = TABLES[name].sources[number.source].text
                key = (row.experiment, *sorted(row.overrides), TABLES[name].columns[column].metric, source)
                assert found.setdefault(key, number.value) == number.value, key


@having("R@")
def test_recall_grows_with_k(name):
    for key, values in published(name):
        numbers = {int(column[2:]): value for column, value in values.items() if column.startswith("R@")}
        ascending = [numbers[k] for k in sorted(numbers)]
        assert ascending == sorted(ascending), key


@having("MAE", "MSE", "GM")
def test_an_error_over_all_samples_lies_between_those_of_the_shots(name):
    for key, values in published(name):
        for error in ("MAE", "GM", "MSE"):
            shots = [values[error + shot] for shot in SHOTS if error + shot in values]
            if error in values and len(shots) == len(SHOTS):
                assert min(shots) <= values[error] <= max(shots), key


@having("GM")
def test_a_geometric_mean_of_errors_is_not_above_the_arithmetic_one(name):
    for key, values in published(name):
        for shot in ("", *SHOTS):
            if "MAE" + shot in values and "GM" + shot in values:
                assert values["GM" + shot] <= values["MAE" + shot], key


@each_table
def test_shares_are_shares_and_errors_are_positive(name):
    for key, values in published(name):
        for column, value in values.items():
            assert 0 < value <= (100 if TABLES[name].columns[column].scale == 100 else float("inf")), key


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_row_names_an_experiment_and_choices_that_exist(name):
    for row in RUNNABLE[name].values():
        assert (CONFIGS / "experiment" / f"{row.experiment}.yaml").is_file()
        for override in row.overrides:
            group, _, choice = override.partition("=")
            assert not (CONFIGS / group).is_dir() or (CONFIGS / group / f"{choice}.yaml").is_file(), override


@pytest.mark.parametrize("name", ["agedb", "stsb-dir", "cub-margin"])
def test_the_row_with_most_changes_composes(name):
    longest = max(RUNNABLE[name].values(), key=lambda row: len(row.overrides))
    check_columns(name, TABLES[name].columns.values(), longest.key, composed(arguments(longest)))


def test_a_row_that_stands_in_two_tables_is_trained_once():
    margin, ablation = RUNNABLE["cub-margin"], RUNNABLE["rambo-ablation"]
    for one, other in (
        (margin["blackbox_0_01"], ablation["cub_full"]),
        (margin["blackbox_0"], ablation["cub_no_margin"]),
    ):
        assert fingerprint(composed(arguments(one))) == fingerprint(composed(arguments(other)))


def told_by_its_name(name, config):
    """What the words in the name of a regression row promise, beside what its config does."""
    words = name.split(", ")[0].split(" + ")
    weighted = any(word in ("SQINV", "INV", "LDS", "RRT") for word in words)
    return {
        "weights": (weighted, config["weighting"]["kind"] != "none"),
        "LDS": ("LDS" in words, config["weighting"].get("kernel") is not None),
        "FDS": ("FDS" in words, config["fds"] is not None),
        "Focal-R": ("FOCAL-R" in words, "Focal" in config["loss"]["loss"]),
        "RRT": ("RRT" in words, config["first_stage"] is not None),
        "RankSim": ("RankSim" in words, config["regularizer"] is not None),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE)
def test_every_row_composes_measures_its_columns_and_does_what_its_name_says(name):
    table, prints = TABLES[name], {}
    for row in RUNNABLE[name].values():
        config = composed(arguments(row))
        check_columns(name, table.columns.values(), row.key, config)
        number = fingerprint(config), row.selection
        assert prints.setdefault(number, row.key) == row.key, "two rows are one number"
        if "weighting" in config:
            wrong = {part: pair for part, pair in told_by_its_name(row.name, config).items() if pair[0] != pair[1]}
            assert not wrong, (row.key, wrong)
        if name in RECIPES and not row.key.endswith("_other"):
            assert config["recipe"] == RECIPES[name]["RankSim" in row.name], row.key
        if name.startswith("stsb"):
            assert (config["data"]["draw"] == "dir") is (name == "stsb-dir" or row.group == "DIR's draw"), row.key


@pytest.mark.parametrize("name", ["cub", "agedb", "voc"])
def test_a_column_that_no_run_measures_is_noticed(name):
    row = next(iter(RUNNABLE[name].values()))
    column = next(iter(TABLES[name].columns.values())).model_copy(update={"metric": "test/no_such_number"})
    with pytest.raises(ValueError, match="no_such_number"):
        check_columns(name, [column], row.key, composed(arguments(row)))
