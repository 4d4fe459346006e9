"""A small table of one runnable method and one that is published only, and runs to fill it with."""

from pathlib import Path

from harness.record import runs
from harness.study.jobs import Job
from harness.study.tables import Table

TABLE = """
title: Letters, recall@k
data: rendered letters
unit: "%"
selection: best_on_test
columns:
  R@1: {metric: test/recall@1, scale: 100, decimals: 1, better: higher, resolution: 1.0}
  R@2: {metric: test/recall@2, scale: 100, decimals: 1, better: higher, resolution: 1.0}
sources:
  paper: {text: "A. Author 2020, table 1", read: paper}
  readme: {text: "their README", read: repository}
rows:
  triplet: {name: Triplet, published: {R@1: 36.1, R@2: 48.6}, source: paper}
  ours:
    name: Ours, log log
    experiment: demo_rambo
    overrides: [loss.margin=0.1]
    published: {R@1: 64.0, R@2: {value: 75.3, source: readme}}
    source: paper
    seeds: 3
    note: the margin is ours
notes: [All of it is made up.]
"""


def written(folder, text=TABLE, name="toy"):
    path = Path(folder) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(folder, *changes):
    """The table with each (old, new) of `changes` replaced in its file."""
    text = TABLE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Table.load(written(folder, text))


def finished(folder, recall=(0.64, 0.75), data="a", fixture=False, metrics=None, selection="best_on_test"):
    """A finished run with recall@1 and recall@2."""
    numbers = {f"test/recall@{k}": value for k, value in zip((1, 2), recall, strict=True) if value is not None}
    report = {
        "experiment": "demo_rambo",
        "overrides": [],
        "seed": 0,
        "config": {"metrics": metrics or {"recall_at": [1, 2]}},
        "data": {"fingerprint": data, "fixture": fixture},
        "results": {"last": {"metrics": {}}, selection: {"epoch": 2, "metrics": numbers}},
    }
    runs.begin(folder, report["config"])
    runs.finish(folder, report)
    return folder


def jobs(*folders, row="ours"):
    """Seed 0, 1, ... of a row, with the folder of each finished run, or None."""
    return [
        Job("toy", row, seed, (f"seed={seed}",), f"print{seed}", finished=folder) for seed, folder in enumerate(folders)
    ]
