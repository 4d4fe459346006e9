"""Tables on stand-in data, as `make tables SCALE=fixture` runs them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.study.tables import Table

ROOT = Path(__file__).parent.parent
TABLES = {path.stem: Table.load(path) for path in sorted((ROOT / "configs" / "table").glob("*.yaml"))}
RUN = {name: [key for key, row in table.rows.items() if row.experiment] for name, table in TABLES.items()}
# Of every table the row with the most overrides, from three on; each row of one of these names runs, in whatever table.
LONGEST = {name: max(rows, key=lambda key: len(TABLES[name].rows[key].overrides)) for name, rows in RUN.items() if rows}
FEW = sorted({key for name, key in LONGEST.items() if len(TABLES[name].rows[key].overrides) > 2})


@pytest.mark.parametrize(
    "only",
    [
        pytest.param(FEW, marks=[pytest.mark.slow, pytest.mark.longest], id="few"),
        pytest.param([], marks=pytest.mark.tables, id="all"),
    ],
)
def test_every_cell_of_what_is_run_on_stand_in_data_is_filled(only, tmp_path):
    command = [sys.executable, "scripts/table.py", "--all", "--scale", "fixture", "--seeds", "1"]
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "tables")]
    rows = ["--only", *only] if only else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RANKING_DATA": str(tmp_path / "data")}
    answer = subprocess.run([*command, *folders, *rows], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    assert "failed" not in answer.stdout
    for name, run in RUN.items():
        if not run:
            continue
        page = (tmp_path / "tables" / f"{name}_fixture.md").read_text()
        assert "mean nothing" in page
        with open(tmp_path / "tables" / f"{name}_fixture.csv") as file:
            cells = list(csv.DictReader(file))
        asked = [cell for cell in cells if not only or cell["row"] in only]
        assert {cell["verdict"] for cell in asked} <= {"stand-in data", "not measured"}
        measured = {cell["row"] for cell in asked if cell["verdict"] == "stand-in data"}
        assert measured == {key for key in run if not only or key in only}
