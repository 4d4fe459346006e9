"""What an installation brings: its files, the losses with torch alone, the command `ranking`."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness import command as ours

ROOT = Path(__file__).parent.parent
PACKAGES = ("harness", "rambo", "ranksim")
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
# What torch requires of others: nothing else beside the standard library is there for the five steps.
OF_TORCH = (
    "torch",
    "torchgen",
    "functorch",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
)
OF_TORCH += ("fsspec", "filelock", "triton", "setuptools", "cuda", "nvidia")
FIVE_STEPS = """
import importlib.util, sys
assert not any(importlib.util.find_spec(name) for name in ("hydra", "numpy", "PIL", "scipy", "timm"))
import torch
import rambo.losses, rambo.metrics, rambo.ranking, rambo.sampling, ranksim.losses, ranksim.metrics
assert rambo.__file__.startswith(sys.argv[1]) and ranksim.__file__.startswith(sys.argv[1])
torch.manual_seed(0)
labels = torch.arange(32) // 4
inputs = torch.randn(8, 8)[labels] + 0.7 * torch.randn(32, 8)
model = torch.nn.Linear(8, 4)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
losses = rambo.losses.RecallLoss(4.0, margin=0.02), ranksim.losses.RankSimilarity(interpolation=2.0)
values = []
for batch in [*rambo.sampling.ClassBalancedBatches(labels, batch_size=32, samples_per_class=4).batches(0)] * 5:
    features = model(inputs[batch])
    values.append(losses[0](features, labels[batch]) + losses[1](features, labels[batch].float()))
    optimizer.zero_grad()
    values[-1].backward()
    optimizer.step()
assert len(values) == 5 and values[-1] < values[0], values
assert rambo.metrics.retrieval_metrics(model(inputs).detach(), labels)["recall@1"] >= 0
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what is in the wheel of this code."""
    pytest.importorskip("setuptools", minversion="77")
    place = tmp_path_factory.mktemp("wheel")
    source, site = place / "source", place / "site"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for other in ("tests", "scripts", "configs", "examples"):  # as in a clone, where they must be left out
        (source / other).mkdir()
        (source / other / "__init__.py").touch()
    subprocess.run([sys.executable, "-c", BUILD, str(place)], cwd=source, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_wheel_holds_the_packages_and_what_they_read(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    facts = {name for name in files if ".dist-info/" in name}
    read = ("py.typed", "templates/*", "*.csv.gz")
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", *read)
        for path in (ROOT / package).rglob(pattern)
    }
    assert files - facts == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    said = next(installed.glob("*.dist-info/METADATA")).read_text()
    assert [line for line in said.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line] == [
        "Requires-Dist: torch>=2.10"
    ]


def test_five_steps_with_torch_alone(installed, tmp_path):
    for name in OF_TORCH:
        if spec := importlib.util.find_spec(name):
            place = Path(next(iter(spec.submodule_search_locations or ()), spec.origin))
            (tmp_path / place.name).symlink_to(place)
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-S", "-W", "ignore", "-c", FIVE_STEPS, str(installed)]
    subprocess.run(command, cwd=tmp_path, check=True, env=environment)


def test_the_command_hands_over_to_a_script(monkeypatch, capsys):
    handed = []
    monkeypatch.setattr(os, "execv", lambda program, words: handed.append((program, words)))
    ours.main(["train", "experiment=cub_rambo", "-m"])
    ours.main(["gpu-check"])
    assert handed == [
        (sys.executable, [sys.executable, str(ROOT / "train.py"), "experiment=cub_rambo", "-m"]),
        (sys.executable, [sys.executable, str(ROOT / "scripts" / "gpu_check.py")]),
    ]
    ours.main(["--help"])
    said = capsys.readouterr().out
    assert {path.stem.replace("_", "-") for path in (ROOT / "scripts").glob("*.py")} <= set(said.split())
    assert re.search("^  train +Trains and evaluates one experiment$", said, re.MULTILINE)
    with pytest.raises(SystemExit, match=r"no command 'tabel'; there are train, "):
        ours.main(["tabel"])


def test_the_command_without_a_clone(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    starts = [sys.executable, "-c", "import sys, harness.command as c; c.main(sys.argv[1:])"]
    given = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    assert "blackbox-ranking 0." in subprocess.run([*starts, "--version"], check=True, **given).stdout
    refused = subprocess.run([*starts, "train", "seed=1"], check=False, **given)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: 'ranking train' needs a clone of the project")
    assert len(refused.stderr.splitlines()) == 1
