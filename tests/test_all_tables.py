"""Every row of every table on stand-in data, as `make tables SCALE=fixture` runs it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.study.tables import Table

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "configs" / "table").glob("*.yaml"))
TABLES = [path.stem for path in PATHS if any(row.experiment for row in Table.load(path).rows.values())]


@pytest.mark.slow
@pytest.mark.longest
def test_every_cell_of_every_table_is_filled_on_stand_in_data(tmp_path):
    command = [sys.executable, "scripts/table.py", "--all", "--scale", "fixture", "--seeds", "1"]
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "tables")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RANKING_DATA": str(tmp_path / "data")}
    answer = subprocess.run([*command, *folders], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    assert "failed" not in answer.stdout
    for name in TABLES:
        page = (tmp_path / "tables" / f"{name}_fixture.md").read_text()
        assert "mean nothing" in page
        with open(tmp_path / "tables" / f"{name}_fixture.csv") as file:
            cells = list(csv.DictReader(file))
        assert {cell["verdict"] for cell in cells} <= {"stand-in data", "not measured"}
