"""docs/results/claims.md repeats what other pages and the papers' tables hold, and names commands that there are."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "claims.md"
TEXT = PAGE.read_text()
VERDICTS = ["shown", "shown on other data", "not shown", "contradicted", "not tried"]
NUMBER = r"(?<![\d.])\d+\.\d+(?![\d.])"
INTERVAL = r"-?\d+\.\d+ ± \d+\.\d+"

CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
ROWS = {cells[0]: cells[1:] for cells in CELLS if re.fullmatch(r"[RS]\d+", cells[0])}
NOTES = [note for note in re.findall(r"^\* .+(?:\n  .+)*", TEXT, re.MULTILINE) if "±" in note]


def numbers(pattern, text):
    return set(re.findall(pattern, text.replace("−", "-")))


def linked(text):
    """What the pages hold that a text links to."""
    return "\n".join((PAGE.parent / path).resolve().read_text() for path in re.findall(r"\]\(([^)#]+\.md)", text))


def published(table):
    """Every number of a paper that a table has."""
    rows = yaml.safe_load((ROOT / "configs" / "table" / f"{table}.yaml").read_text())["rows"].values()
    values = [value for row in rows for value in row.get("published", {}).values()]
    return {float(value["value"] if isinstance(value, dict) else value) for value in values}


def test_there_is_something_to_compare():
    assert len(ROWS) > 20
    assert len(NOTES) > 3


@pytest.mark.parametrize("row", ROWS)
def test_what_was_measured_stands_on_a_page_that_is_linked_beside_it(row):
    measured = ROWS[row][2]
    assert numbers(NUMBER, measured) <= numbers(NUMBER, linked(measured))
    assert numbers(INTERVAL, measured) <= numbers(INTERVAL, linked(measured))


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.split("**")[1])
def test_an_interval_of_a_note_stands_on_a_page_that_it_links(note):
    assert numbers(INTERVAL, note) <= numbers(INTERVAL, linked(note))


@pytest.mark.parametrize("row", ROWS)
def test_the_papers_numbers_are_those_of_the_tables_that_would_settle_it(row):
    _, paper, _, _, settles = ROWS[row]
    known = {value for table in re.findall(r"`make table-([\w-]+)`", settles) for value in published(table)}
    assert {float(number) for number in numbers(NUMBER, re.sub(r"section [\d.]+", "", paper))} <= known


def test_verdicts_are_of_few_words_and_are_counted():
    for paper in ("RaMBO", "RankSim"):
        counts = Counter(cells[3] for row, cells in ROWS.items() if row[0] == {"RaMBO": "R", "RankSim": "S"}[paper])
        assert set(counts) <= set(VERDICTS)
        assert [paper, *(str(counts[verdict]) for verdict in VERDICTS)] in CELLS
    assert all(bool(cells[2]) or cells[3] == "not tried" for cells in ROWS.values())


def test_the_commands_name_what_there_is():
    for name in re.findall(r"\btable-([\w-]+)", TEXT):
        folder, file = ("fair", name.removeprefix("fair-")) if name.startswith("fair-") else ("table", name)
        assert (ROOT / "configs" / folder / f"{file}.yaml").exists(), name
    for group, pattern in {"experiment": r"experiment=(\w+)", "sweep": r"\+sweep=(\w+)"}.items():
        for name in re.findall(pattern, TEXT):
            assert (ROOT / "configs" / group / f"{name}.yaml").exists(), name
    for path, words in re.findall(r"`pytest (\S+) -k (\w+)`", TEXT):
        assert re.search(rf"^def test_\w*{words}", (ROOT / path).read_text(), re.MULTILINE), words
