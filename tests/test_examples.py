"""Every example learns what it shows; those of libraries that are not installed are left out."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
# What it must come to, what it imports, and in how many epochs.
LEARNS = {
    "bare_loop": (lambda before, after: after > before + 0.12, [], 4),
    "metric_learning_trainer": (lambda before, after: after > before + 0.12, ["pytorch_metric_learning"], 4),
    "accelerate_loop": (lambda before, after: after > before + 0.12, ["accelerate"], 4),
    "lightning_module": (lambda before, after: after < before / 3, ["lightning"], 15),
    "sentence_transformer": (lambda before, after: after > before + 0.3, ["sentence_transformers", "datasets"], 8),
}
LONG_IMPORTS = ("metric_learning_trainer", "lightning_module", "sentence_transformer")


@pytest.fixture(autouse=True)
def as_started_there(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG_IMPORTS else []) for name in LEARNS]
)
def test_an_example_learns(name):
    learnt, needed, epochs = LEARNS[name]
    for module in needed:
        pytest.importorskip(module, reason="optional extras: examples, peers, sentences")
    before, after = runpy.run_path(str(FOLDER / f"{name}.py"))["main"](epochs)
    assert learnt(before, after), (before, after)


def test_no_example_is_left_out():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*LEARNS, "letters"}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_holds_no_outputs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None]
    names = {"__name__": "__main__"}
    for cell in cells:
        exec(compile("".join(cell["source"]), str(path), "exec"), names)
    assert names["same"][:, 0].float().mean() > 0.2  # nearest neighbours of classes never seen
