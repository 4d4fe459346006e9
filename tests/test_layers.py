"""Imports point inwards: engine knows neither paper, rambo knows engine, the losses know torch alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"engine": set(), "rambo": {"engine"}, "ranksim": {"engine", "rambo.ranking"}}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("package", [name for name in MAY_IMPORT if (ROOT / name).is_dir()])
def test_a_package_imports_only_what_is_further_in(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path):
            if name.split(".")[0] in MAY_IMPORT and name.split(".")[0] != package:
                allowed = any(name == other or name.startswith(other + ".") for other in MAY_IMPORT[package])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_ranking_and_losses_need_torch_alone():
    """In a fresh interpreter where everything else that we use is missing."""
    program = """
import sys
for name in ("hydra", "omegaconf", "timm", "torchvision", "wandb", "matplotlib", "rich", "engine",
             "pytorch_metric_learning", "scipy", "sklearn", "numpy"):
    sys.modules[name] = None
import torch
import rambo.losses, rambo.ranking, ranksim.losses
embeddings = torch.randn(8, 4, requires_grad=True)
loss = rambo.losses.RecallLoss(interpolation=4.0, margin=0.02)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
loss.backward()
assert embeddings.grad.abs().sum() > 0
similarity = ranksim.losses.RankSimilarity(interpolation=2.0, weight=100.0)
features = torch.randn(8, 4, requires_grad=True)
similarity(features, torch.arange(8.0)).backward()
assert features.grad.abs().sum() > 0
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
