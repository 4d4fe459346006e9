import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_trains_shows_two_tables_and_leaves_pictures(tmp_path):
    pytest.importorskip("mlxtend")
    folder = tmp_path / "a demo (1)"  # a name that means something to Hydra's grammar
    arguments = ["--seeds", "1", "--folder", str(folder), "scale=fixture", "trainer.epochs=1"]
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo_regression.py"), *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "4/4" in answer.stdout
    for word in ("untrained", "vanilla", "LDS + RankSim", "mean absolute error", "geometric mean error"):
        assert word in answer.stdout
    names = {path.name for path in folder.glob("*.png")}
    assert names == {"targets.png", "errors.png", "similarity.png", "predictions.png"}
    assert len(list(folder.rglob("DONE"))) == 4
