"""A table's cells and pages: what stands beside the published number, in every format, and what never does."""

import csv
import io
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from table_toy import TABLE, finished, jobs, loaded, written

from harness.files import shown
from harness.record import runs
from harness.record.runs import STAND_IN as BANNER
from harness.show import sheet, table_page
from harness.show.table_page import number, table_sheet
from harness.study.table_cells import fill
from harness.study.tables import Table

T_975_2 = 4.302652729911275  # quantile of Student's t with 2 degrees of freedom, from a printed table


def three_runs(tmp_path, **named):
    """R@1 of 63.9, 64.0 and 64.1, and R@2 of 79.9, 80.0 and 80.1."""
    return [finished(tmp_path / f"{k}", (0.639 + 0.001 * k, 0.799 + 0.001 * k), **named) for k in range(3)]


@pytest.fixture
def filled(tmp_path):
    return fill(loaded(tmp_path), jobs(*three_runs(tmp_path)), seeds=3)


def block(page, method):
    """(label, texts) of the lines of a method, by kind."""
    starts = [k for k, line in enumerate(page.lines) if line.cells[0]] + [len(page.lines)]
    names = [page.lines[k].cells[0] for k in starts[:-1]]
    k = names.index(method)
    return {line.kind: (line.cells[1], list(line.cells[2:])) for line in page.lines[starts[k] : starts[k + 1]]}


def test_a_cell_has_mean_interval_difference_and_verdict(filled):
    cell = filled.lines[1].cells["R@1"]
    assert cell.mean == pytest.approx((63.9 + 64.0 + 64.1) / 3)
    assert cell.interval.half == pytest.approx(T_975_2 * 0.1 / math.sqrt(3))
    assert cell.difference == pytest.approx(0.0, abs=1e-9)
    assert cell.verdict == "reproduced"
    other = filled.lines[1].cells["R@2"]
    assert other.difference == pytest.approx(80.0 - 75.3)
    assert other.verdict == "above"
    triplet = filled.lines[0].cells["R@1"]
    assert (triplet.mean, triplet.difference, triplet.verdict) == (None, None, "not run")
    assert (filled.stand_in, filled.faults, filled.missing) == (False, [], 0)


def test_the_verdict_of_few_or_no_seeds(tmp_path):
    table, folder = loaded(tmp_path), finished(tmp_path / "a")
    assert fill(table, jobs(folder, None), 2).lines[1].cells["R@1"].verdict == "not enough seeds"
    assert fill(table, jobs(None, None), 2).lines[1].cells["R@1"].verdict == "not run"


def test_every_line_says_what_it_is(filled):
    page = table_sheet(filled)
    assert page.columns == ["method", "", "R@1 ↑", "R@2 ↑"]
    assert [(line.kind, line.cells) for line in page.lines] == [
        ("published", ["Triplet", "published [1]", "36.1", "48.6"]),
        ("published", ["Ours, log log", "published [1], 3 seeds", "64.0", "75.3 [2]"]),
        ("ours", ["", "ours, 3 seeds", "64.0 ± 0.2", "80.0 ± 0.2"]),
        ("difference", ["", "difference", "0.0", "+4.7"]),
        ("verdict", ["", "verdict", "reproduced", "above"]),
    ]
    assert any(
        "at the epoch that was best on the test split" in line for line in page.introduction
    )  # the selection rule
    assert page.below[:4] == [
        "[1] A. Author 2020, table 1 (read in the paper)",
        "[2] their README (read in the authors' repository)",
        "Ours, log log: the margin is ours",
        "All of it is made up.",
    ]


@pytest.mark.parametrize(
    ("value", "decimals", "plus", "text"),
    [
        (63.96, 1, False, "64.0"),
        (-0.04, 1, True, "0.0"),
        (-1.26, 1, True, "−1.3"),
        (1.26, 2, True, "+1.26"),
        (7, 0, True, "+7"),
    ],
)
def test_numbers_have_a_true_sign_and_zero_has_none(value, decimals, plus, text):
    assert number(value, decimals, plus) == text


def test_a_narrow_interval_is_not_shown_as_none(tmp_path):
    close = [finished(tmp_path / f"{k}", (0.64 + 0.0001 * k, 0.8)) for k in range(3)]
    half = T_975_2 * 0.01 / math.sqrt(3)  # 0.0248, which one decimal would make 0.0
    assert f"{half:.2f}" == "0.02"
    page = table_sheet(fill(loaded(tmp_path), jobs(*close), 3))
    assert block(page, "Ours, log log")["ours"][1][0] == "64.0 ± 0.02"


def test_nothing_published_stands_beside_stand_in_data(tmp_path):
    made = three_runs(tmp_path, fixture=True)
    for scale in ("fixture", None):  # asked for, or found in the runs
        filled = fill(loaded(tmp_path), jobs(*made), 3, scale)
        assert filled.stand_in
        assert {cell.verdict for cell in filled.lines[1].cells.values()} == {"stand-in data"}
        assert list(block(table_sheet(filled), "Ours, log log")) == ["ours", "verdict"]
        for _, make in table_page.FILES.values():
            assert "75.3" not in make(filled)
        for make in (sheet.markdown, sheet.latex, sheet.html):
            assert BANNER in make(table_sheet(filled))
    page = table_sheet(fill(loaded(tmp_path), jobs(*made), 3, "fixture"))
    assert [line.cells[0] for line in page.lines] == ["Ours, log log", ""]
    assert page.below == []


def test_a_table_says_what_its_numbers_were_made_of(tmp_path):
    folders = three_runs(tmp_path)
    for folder, revision, dirty in zip(folders, ("a" * 40, "a" * 40, "b" * 40), (False, False, True), strict=True):
        report = runs.read_json(folder / "report.json")
        packages = {"torch": "2.6.0", "numpy": "2.0"}
        report |= {"code": {"revision": revision, "dirty": dirty}, "packages": packages, "hardware": {"processor": "P"}}
        runs.write_json(folder / "report.json", report)
    assert [
        text for text in table_sheet(fill(loaded(tmp_path), jobs(*folders), 3)).below if text.startswith("Made of")
    ] == [
        "Made of: revision aaaaaaa; torch 2.6.0; P.",
        "Made of: revision bbbbbbb with uncommitted changes; torch 2.6.0; P.",
    ]


def test_a_row_of_which_nothing_is_there_says_so_once(tmp_path):
    filled = fill(loaded(tmp_path), jobs(None, None), 2)
    page = table_sheet(filled)
    assert block(page, "Ours, log log")["ours"] == ("ours: not run", ["", ""])
    assert page.below[-1] == "2 runs are missing; to run what is missing: make table-toy SEEDS=2"
    assert not any("Verdict" in line for line in page.introduction)  # there is none to explain


def test_a_row_that_failed_says_so_with_its_sentence(tmp_path):
    failed = {"print0": "no letters", "print1": "no letters"}
    filled = fill(loaded(tmp_path), jobs(None, None), 2, failed=failed)
    page = table_sheet(filled)
    assert block(page, "Ours, log log")["ours"][0] == "ours: failed"
    assert "Ours, log log, seeds 0, 1: failed: no letters" in page.below
    assert filled.lines[1].cells["R@1"].verdict == "failed"
    assert filled.lines[0].cells["R@1"].verdict == "not run"  # that row has nothing to fail


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"data": "b"},
            r"Ours, log log: .*a and .*b may not be averaged or compared: they were run on different data .* a and b\)",
        ),
        ({"selection": "best_on_validation"}, r"b has no result best_on_test; it has last, best_on_validation"),
        ({"recall": (math.nan, 0.5)}, "b: test/recall@1 is not a number"),
    ],
)
def test_what_may_not_be_averaged_costs_its_row_and_names_the_folders(tmp_path, other, says):
    folders = finished(tmp_path / "a"), finished(tmp_path / "b", **other)
    filled = fill(loaded(tmp_path), jobs(*folders), 2)
    (fault,) = filled.faults
    assert re.search(says, fault)
    assert filled.lines[1].cells["R@1"].verdict == "failed"
    assert filled.lines[0].cells["R@1"].published.value == 36.1  # the others are not lost
    assert fault in sheet.markdown(table_sheet(filled))


def test_a_row_on_another_version_of_the_data_is_refused_with_both_folders(tmp_path):
    other = "  other: {name: Another, experiment: demo_rambo, overrides: [loss=smooth_ap]}\nnotes:"
    table = loaded(tmp_path, ("notes:", other))
    one = jobs(finished(tmp_path / "a", data="a"))
    assert not fill(table, [*one, *jobs(finished(tmp_path / "b", data="a"), row="other")], 1).faults
    filled = fill(table, [*one, *jobs(finished(tmp_path / "c", data="b"), row="other")], 1)
    assert len(filled.faults) == 1
    assert re.search(
        r"^Another: .*a and .*c may not be averaged or compared: they were run on different data .* a and b\)",
        filled.faults[0],
    )
    assert [line.cells["R@1"].state for line in filled.lines[1:]] == ["", "failed"]


def test_a_published_number_keeps_the_digits_that_it_was_printed_with(tmp_path):
    table = loaded(tmp_path, ("{R@1: 36.1, R@2: 48.6}", "{R@1: 91.35, R@2: 33}"))
    page = sheet.markdown(table_sheet(fill(table, [], 3)))
    assert re.search(r"\| Triplet +\| published \[1\] +\| +91\.35 \| +33 \|", page)
    assert re.search(r"\| +64\.0 \|", page)


def test_a_selection_without_metrics_costs_its_row(tmp_path):
    folder = finished(tmp_path / "a")
    report = runs.read_json(folder / "report.json")
    report["results"]["best_on_test"] = {}
    runs.write_json(folder / "report.json", report)
    (fault,) = fill(loaded(tmp_path), jobs(folder), 1).faults
    assert "has no result best_on_test; it has last" in fault


@pytest.mark.parametrize("content", ['{"config": {}', "[]", "{}", None])
def test_a_report_that_cannot_be_read_costs_its_row(tmp_path, content):
    folder = finished(tmp_path / "a")
    (folder / "report.json").unlink()
    if content is not None:
        (folder / "report.json").write_text(content)
    (fault,) = fill(loaded(tmp_path), jobs(folder), 1).faults
    assert "a" in fault
    assert "report" in fault
    assert "\n" not in fault


def test_plus_minus_is_explained_where_there_is_one(filled, tmp_path):
    assert "mean ± half-width of the 95 % t-interval over seeds" in " ".join(table_sheet(filled).introduction)
    page = table_sheet(fill(loaded(tmp_path), jobs(finished(tmp_path / "alone")), 1))
    assert "±" not in " ".join([*page.introduction, *page.below])


def test_a_metric_that_the_data_do_not_have_is_not_measured(tmp_path):
    filled = fill(loaded(tmp_path), jobs(finished(tmp_path / "a", (0.64, None))), 1)
    assert filled.faults == []
    assert filled.lines[1].cells["R@2"].verdict == "not measured"
    assert block(table_sheet(filled), "Ours, log log")["ours"][1] == ["64.0", "not measured"]


def test_another_selection_and_groups_are_told(tmp_path):
    text = TABLE.replace("seeds: 3\n", "seeds: 3\n    group: with a margin\n    selection: last\n")
    table = Table.load(written(tmp_path, text))
    filled = fill(table, jobs(finished(tmp_path / "a", selection="last")), 1)
    assert block(table_sheet(filled), "Ours, log log")["ours"][0] == "ours, 1 seed, after the last epoch"
    assert "| **with a margin**" in sheet.markdown(table_sheet(filled))
    assert r"\multicolumn{4}{l}{\textit{with a margin}} \\" in sheet.latex(table_sheet(filled))


def test_rows_of_one_name_are_told_apart_by_their_groups(tmp_path):
    again = "  again: {name: Triplet, group: re-run, note: not ours, published: {R@1: 1}, source: paper}\n  ours:"
    table = loaded(tmp_path, ("  ours:", again))
    assert "Triplet (re-run): not ours" in table_sheet(fill(table, [], 3)).below
    assert table.called(table.rows["triplet"]) == "Triplet"


def test_the_terminal_shows_every_text(filled):
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(sheet.terminal(table_sheet(filled)))
    shown = console.export_text()
    page = table_sheet(filled)
    for text in [
        page.title,
        *page.columns,
        *page.introduction,
        *page.below,
        *(cell for line in page.lines for cell in line.cells),
    ]:
        assert text in shown


def test_a_table_in_a_pipe_is_not_cut(filled, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    sheet.show(table_sheet(filled))
    assert re.search(r"Ours, log log +published \[1\], 3 seeds +64\.0 +75\.3 \[2\]", capsys.readouterr().out)


def test_markdown_is_a_table_with_everything_around_it(tmp_path):
    table = loaded(tmp_path, ("Ours, log log", "Ours | log"))
    text = sheet.markdown(table_sheet(fill(table, jobs(*three_runs(tmp_path)), 3)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert rows[0].split("|")[3].strip() == "R@1 ↑"
    assert [cell.strip() for cell in rows[4].split("|")[-3:-1]] == ["64.0 ± 0.2", "80.0 ± 0.2"]
    assert "Ours \\| log" in rows[3]
    assert text.startswith("# Letters, recall@k\n\n```bash\nmake table-toy SEEDS=3\n```\n")
    assert "* [2] their README" in text


def test_latex_is_a_booktabs_table_with_its_signs_escaped(tmp_path):
    table = loaded(tmp_path, ("Ours, log log", "Ours & 5_% λ"))
    text = sheet.latex(table_sheet(fill(table, jobs(*three_runs(tmp_path)), 3)))
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    rows = [line for line in body if line != "\\addlinespace"]
    assert len(rows) == 5
    assert all(len(re.findall(r"(?<!\\)&", row)) == 3 and row.endswith("\\\\") for row in rows)
    assert r"Ours \& 5\_\% $\lambda$ &" in rows[1]
    assert r"64.0 $\pm$ 0.2" in rows[2]
    assert [text.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\end{table}")] == [1, 1, 1, 1]
    assert not set(text) & set("±−↑λ")
    assert text.index("their README") < text.index("\\end{table}")


def test_a_table_that_is_too_long_for_a_page_goes_over_several(tmp_path, monkeypatch):
    filled = fill(loaded(tmp_path), jobs(*three_runs(tmp_path)), 3)
    short = sheet.latex(table_sheet(filled))
    monkeypatch.setattr(sheet, "LINES_OF_A_PAGE", 4)
    long = sheet.latex(table_sheet(filled))
    assert ("longtable" in short, "longtable" in long) == (False, True)
    assert "\\begin{table}" not in long
    body = long.partition("\\endlastfoot\n")[2].partition("\\end{longtable}")[0]
    same = short.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    assert body == same
    assert long.index("\\end{longtable}") < long.index("their README") < long.index("\\endgroup")


class Cells(HTMLParser):
    """Texts and classes of the cells, and that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.loaded = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loaded += [values[key] for key in ("src", "href") if key in values]
        if tag not in ("meta", "wbr"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append([values.get("class", ""), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.cells[-1][1] += data


def test_html_is_one_closed_page_that_fetches_nothing(tmp_path):
    table = loaded(tmp_path, ("Ours, log log", "Ours <b> & more"))
    text = sheet.html(table_sheet(fill(table, jobs(*three_runs(tmp_path)), 3)))
    parser = Cells()
    parser.feed(text)
    assert parser.open == []
    assert parser.loaded == []
    assert "://" not in text
    texts = [cell for _, cell in parser.cells]
    assert "Ours <b> & more" in texts
    assert next(classes for classes, cell in parser.cells if cell == "reproduced").endswith("reproduced")
    assert len(texts) == (1 + 5) * 4


def test_csv_has_a_line_for_each_cell_unrounded(filled):
    rows = list(csv.DictReader(io.StringIO(table_page.csv(filled))))
    assert [(row["row"], row["column"]) for row in rows] == [
        ("triplet", "R@1"), ("triplet", "R@2"), ("ours", "R@1"), ("ours", "R@2"),
    ]  # fmt: skip
    ours = rows[2]
    assert float(ours["ours"]) == pytest.approx(64.0)
    assert float(ours["half_width"]) == pytest.approx(T_975_2 * 0.1 / math.sqrt(3), rel=1e-9)
    assert (ours["published"], ours["published_seeds"], ours["seeds"], ours["verdict"], ours["source"]) == (
        "64.0", "3", "3", "reproduced", "A. Author 2020, table 1",
    )  # fmt: skip
    assert len(ours["runs"].split(";")) == 3
    values = dict(pair.split("=") for pair in ours["values"].split(";"))
    assert {int(seed): float(value) for seed, value in values.items()} == filled.lines[1].cells["R@1"].values
    assert (rows[0]["verdict"], rows[0]["ours"], rows[0]["experiment"]) == ("not run", "", "")


def test_folders_are_named_as_seen_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == "runs/a"
    assert shown(tmp_path.parent / "b") == str(tmp_path.parent / "b")


def test_files_are_written_and_stand_in_data_have_names_of_their_own(filled, tmp_path):
    names = {path.name for path in table_page.write(filled, tmp_path / "out", list(table_page.FILES))}
    assert names == {"toy.md", "toy.tex", "toy.csv", "toy.html"} == {p.name for p in (tmp_path / "out").iterdir()}
    tiny = fill(filled.table, jobs(None), 1, "fixture")
    assert [path.name for path in table_page.write(tiny, tmp_path, ["csv"])] == ["toy_fixture.csv"]


def test_a_table_that_nothing_can_be_run_of_is_still_a_page(tmp_path):
    text = TABLE[: TABLE.index("  ours:")]
    filled = fill(Table.load(written(tmp_path, text)), [], 3)
    for _, make in table_page.FILES.values():
        assert "36.1" in make(filled)
    empty = fill(filled.table, [], 3, "fixture")  # where it says nothing at all
    for _, make in table_page.FILES.values():
        assert "36.1" not in make(empty)


def test_unknown_formats_are_told():
    with pytest.raises(ValueError, match="a format is one of markdown, latex, csv, html; got word"):
        table_page.check_formats(["csv", "word"])
