import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_trains_shows_a_table_and_leaves_pictures(tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    folder = tmp_path / "a demo (1)"  # a name that means something to Hydra's grammar
    arguments = ["--seeds", "2", "--folder", str(folder), "scale=fixture", "trainer.epochs=1"]
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert "4/4" in answer.stdout
    for row in ("untrained", "triplet", "RaMBO"):
        assert row in answer.stdout
    assert {path.name for path in folder.glob("*.png")} == {
        "curves.png",
        "landscape.png",
        "retrievals_rambo.png",
        "retrievals_untrained.png",
    }
    assert len(list(folder.rglob("DONE"))) == 4
