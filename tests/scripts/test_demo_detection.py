import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_trains_shows_a_table_and_leaves_pictures(tmp_path):
    folder = tmp_path / "a demo (1)"  # a name that means something to Hydra's grammar
    arguments = ["--seeds", "1", "--folder", str(folder), "scale=fixture", "trainer.epochs=1"]
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo_detection.py"), *arguments, f"paths.data='{tmp_path}'"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "2/2" in answer.stdout
    assert "cross-entropy" in answer.stdout
    names = {path.name for path in folder.glob("*.png")}
    assert names == {
        "precision_recall.png", "detections_cross_entropy.png", "detections_MeanAveragePrecisionLoss.png",
    }  # fmt: skip
    assert len(list(folder.rglob("DONE"))) == 2
