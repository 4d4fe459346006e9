"""What README shows as measured is what the commands wrote into docs/results/tables and benchmarks/README.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLES = sorted((ROOT / "docs" / "results" / "tables").glob("*.md"))
NUMBER = r"\d+\.\d+ ± \d+\.\d+"


def rows(text):
    """(name, its numbers with their intervals) of every row of every table that has some."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    found = [(cells[0].strip(), re.findall(NUMBER, "|".join(cells[1:]))) for cells in lines]
    return [(name, tuple(numbers)) for name, numbers in found if numbers]


WRITTEN = [row for path in TABLES for row in rows(path.read_text())]
README = (ROOT / "README.md").read_text()
SHOWN = rows(README)


def test_there_is_something_to_compare():
    assert len(SHOWN) > 20
    assert len(WRITTEN) > 50


@pytest.mark.parametrize(("name", "numbers"), SHOWN)
def test_a_row_of_the_readme_is_a_row_that_a_command_wrote(name, numbers):
    same_name = [set(theirs) for other, theirs in WRITTEN if other == name]
    assert any(set(numbers) <= theirs for theirs in same_name), (numbers, same_name)


def test_the_numbers_in_its_sentences_are_among_them():
    written = {number for _, numbers in WRITTEN for number in numbers}
    assert set(re.findall(NUMBER, README)) <= written


def test_its_ratios_of_speed_are_those_of_the_benchmarks():
    lines = [line for line in (ROOT / "benchmarks" / "README.md").read_text().splitlines() if line.startswith("|")]
    speed = re.search(r"\*\*Speed\*\*.+?\n\n", README, re.DOTALL)[0]
    shapes = re.findall(r"([\d.]+)x (?:faster )?at\s(\d+ x \d+)", " ".join(speed.split()))
    assert len(shapes) == 4
    for ratio, shape in shapes:
        assert [line for line in lines if line.startswith(f"| recall | {shape} | 3 | 1 |") and f"**{ratio}**" in line]
    printed = set(re.findall(r"\*\*([\d.]+)\*\*|([\d.]+)x", "\n".join(lines)))
    assert set(re.findall(r"([\d.]+)x\b", speed)) <= {bold or plain for bold, plain in printed}


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_page_begins_with_its_command_and_names_no_folder_of_a_machine(path):
    text = path.read_text()
    assert re.match(rf"# .+\n\n```bash\nmake table-{path.stem}( TRIALS=\d+)? SEEDS=\d\n```\n", text)
    assert "Made of: revision" in text
    assert "uncommitted" not in text
    assert not re.search(r"(?<![\w.:/])/(tmp|home|root|work)/", text)
