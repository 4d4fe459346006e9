"""Bits turned and ends cut off of everything that a run keeps: found, or harmless, and never other numbers."""

import random
import shutil

import pytest
from killing import same
from mutants import damages

import train
from harness import checkpoint
from harness.checkpoint import CheckpointError
from harness.record import load, runs
from harness.record.composition import CONFIGS, compose
from harness.record.index import KEPT, index
from harness.record.restored import recorded

DRAWS = 200
pytestmark = [pytest.mark.faults, pytest.mark.slow]
WORDS = ["experiment=demo_regression", "scale=fixture", "trainer.device=cpu", "scheduler=constant"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "run"
    words = [*WORDS, f"paths.data={folder.parent / 'data'}"]
    train.train(compose(words, CONFIGS), folder, "demo_regression", words)
    return folder


def named(folder, name):
    """The file of a run, and what reads it."""
    reads = {
        "checkpoints/last.pt": lambda: checkpoint.load(folder / "checkpoints" / "last.pt"),
        "checkpoints/best_on_validation.pt": lambda: checkpoint.load(folder / "checkpoints" / "best_on_validation.pt"),
        "model/model.safetensors": lambda: load(folder / "model").network.state_dict(),
        "model/model.json": lambda: load(folder / "model").facts,
        "config.yaml": lambda: runs.read_config(folder),
        "report.json": lambda: runs.read_report(folder),
        "began.json": lambda: runs.read_began(folder),
        "metrics.jsonl": lambda: [recorded(folder, key) for key in ("epoch", "loss", "test/mae", "validation/mae")],
    }
    return folder / name, reads[name]


FILES = (
    "checkpoints/last.pt", "checkpoints/best_on_validation.pt", "model/model.safetensors", "model/model.json",
    "config.yaml", "report.json", "began.json", "metrics.jsonl",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_a_run_keeps_is_refused_by_name_or_is_what_it_was(run, tmp_path, name):
    folder = shutil.copytree(run, tmp_path / "run")
    file, read = named(folder, name)
    whole, expected, refused = file.read_bytes(), read(), []
    for damaged in damages(whole, DRAWS, random.Random(name)):
        file.write_bytes(damaged)
        try:
            found = read()
        except (CheckpointError, ValueError) as error:
            refused.append(str(error))
        else:
            if isinstance(found, dict) and isinstance(expected, dict):  # the name of the sum itself may be what changed
                found = {key: found[key] for key in expected if key in found}
            assert same(found, expected, besides=()), f"{name} of {len(damaged)} bytes"
    assert len(refused) > 0.9 * DRAWS
    assert all(file.name in said for said in refused)
    file.write_bytes(whole)
    assert same(read(), expected, besides=())


def test_a_damaged_index_finds_the_same_runs(run, tmp_path):
    outputs = tmp_path / "outputs"
    for name in ("a", "b"):
        shutil.copytree(run, outputs / name)
    (outputs / "b" / "DONE").unlink()
    expected = index(outputs)
    whole = (outputs / KEPT).read_bytes()
    for damaged in damages(whole, 50, random.Random(KEPT)):
        (outputs / KEPT).write_bytes(damaged)
        assert index(outputs) == expected


def test_a_run_with_damaged_files_goes_on_to_the_same_numbers_or_says_why_not(run, tmp_path):
    """resume= of a run that was killed after its first epoch, with one file damaged, 5 times each."""
    words = [*WORDS, f"paths.data={run.parent / 'data'}"]
    expected = train.train(compose([*words, "trainer.epochs=3"], CONFIGS), tmp_path / "whole", "demo_regression", words)
    expected = {key: value for key, value in expected["results"].items() if key not in ("seconds", "peak_memory")}
    outcomes = []
    for name in (
        "checkpoints/last.pt",
        "checkpoints/best_on_validation.pt",
        "config.yaml",
        "began.json",
        "metrics.jsonl",
    ):
        whole = (run / name).read_bytes()
        for damaged in damages(whole, 5, random.Random(f"resumed {name}")):
            folder = shutil.copytree(run, tmp_path / f"{len(outcomes)}")
            for left in ("DONE", "report.json"):
                (folder / left).unlink()
            (folder / name).write_bytes(damaged)
            config = compose([*words, "trainer.epochs=3"], CONFIGS)
            config.resume = str(folder)
            try:
                report = train.train(config, folder, "demo_regression", words)
            except (CheckpointError, ValueError) as error:
                outcomes.append((name, "refused" if (folder / name).name in str(error) else str(error)))
                continue
            found = {key: value for key, value in report["results"].items() if key not in ("seconds", "peak_memory")}
            assert found == expected, name
            outcomes.append((name, "equal"))
    assert [outcome for name, outcome in outcomes if name == "checkpoints/last.pt"] == ["equal"] * 5  # by previous.pt
    assert {outcome for _, outcome in outcomes} == {"equal", "refused"}
