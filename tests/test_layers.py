"""Imports point inwards: harness knows neither paper, rambo knows harness, the losses know torch alone."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("data", "record", "train", "study", "show")
MAY_IMPORT = {"harness": set(), "rambo": {"harness"}, "ranksim": {"harness", "rambo.ranking"}}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", [name for name in MAY_IMPORT if (ROOT / name).is_dir()])
def test_a_package_imports_only_what_is_further_in(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path):
            if name.split(".")[0] in MAY_IMPORT and name.split(".")[0] != package:
                allowed = any(name == other or name.startswith(other + ".") for other in MAY_IMPORT[package])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def room_of(name):
    """The place of a module of harness among the rooms; what lies beside them, and harness itself, comes first."""
    parts = name.split(".")
    return ROOMS.index(parts[1]) + 1 if len(parts) > 1 and parts[1] in ROOMS else 0


def test_a_room_of_harness_imports_only_from_those_above_it():
    for path in (ROOT / "harness").rglob("*.py"):
        own = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for name in imported(path):
            if name.split(".")[0] == "harness":
                assert room_of(name) <= room_of(own), f"{own} imports {name}"


def test_figures_read_metrics_and_never_the_reverse():
    for path in (path for stem in ("metrics", "evaluation") for path in ROOT.glob(f"ra*/**/{stem}.py")):
        assert not [name for name in imported(path) if "figures" in name or "pictures" in name], path


PUBLIC = "rambo.losses, rambo.metrics, rambo.ranking, rambo.sampling, ranksim.losses, ranksim.metrics"


def in_a_fresh_interpreter(program, folder=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, env=environment)


def test_what_users_import_needs_torch_alone():
    """In a fresh interpreter where everything else that we use is missing."""
    in_a_fresh_interpreter(f"""
import sys
for name in ("hydra", "omegaconf", "timm", "torchvision", "wandb", "matplotlib", "rich", "harness", "scipy", "sklearn",
             "nltk", "pandas", "pytorch_metric_learning", "numpy"):
    sys.modules[name] = None
import torch
import {PUBLIC}
labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
embeddings = torch.randn(8, 4, requires_grad=True)
loss = rambo.losses.RecallLoss(interpolation=4.0, margin=0.02)(embeddings, labels)
loss.backward()
assert embeddings.grad.abs().sum() > 0
assert "recall@1" in rambo.metrics.retrieval_metrics(embeddings.detach(), labels)
similarity = ranksim.losses.RankSimilarity(interpolation=2.0, weight=100.0)
features = torch.randn(8, 4, requires_grad=True)
similarity(features, torch.arange(8.0)).backward()
assert features.grad.abs().sum() > 0
assert ranksim.metrics.regression_metrics(torch.arange(8.0) + 1, torch.arange(8.0))["mae"] == 1
""")


def test_what_users_import_works_beside_an_engine_of_theirs(tmp_path):
    (tmp_path / "engine.py").write_text("def train_one_epoch(): ...\n")
    in_a_fresh_interpreter(f"from engine import train_one_epoch\nimport {PUBLIC}", tmp_path)
