"""What a run writes down holds nothing of the environment that nobody asked to be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SECRETS = {
    "WANDB_API_KEY": "a1b2c3d4e5" * 4,
    "HF_TOKEN": "hf_a-secret-of-a-hub",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-a-cloud",
    "RANKING_PASSWORD": "a-secret-of-nobody",
    "SLURM_JWT": "a-secret-of-a-cluster",
}


@pytest.mark.slow
def test_no_secret_of_the_environment_is_in_a_run_folder(tmp_path):
    words = ["experiment=demo_rambo", "scale=fixture", "trainer.epochs=1", "trainer.device=cpu"]
    words += ["tracking.wandb=offline", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, env=os.environ | SECRETS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"report.json", "config.yaml", "train.log", "last.pt"} <= {path.name for path in written}
    assert any(path.suffix == ".wandb" for path in written)
    for content in (done.stdout.encode(), done.stderr.encode(), *(path.read_bytes() for path in written)):
        for secret in SECRETS.values():
            assert secret.encode() not in content
