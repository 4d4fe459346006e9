"""Run folders made by hand, for the tests of what reads them."""

from harness.files import to_json
from harness.record import runs
from harness.study.results import find_runs

PNG = b"\x89PNG"
SHARE, ERROR = {"kind": "share", "higher_is_better": True}, {"kind": "error", "higher_is_better": False}
MEASURES = {**dict.fromkeys(("recall@1", "recall@2"), SHARE), **dict.fromkeys(("mae", "mse"), ERROR)}


def made(folder, seed=0, recall=0.5, settings=None, overrides=(), curve=None, metrics=None, **report):
    """A finished run with recall@1 of `recall` at its end; `settings` are dotted and go into the config."""
    config = {"seed": seed, "trainer": {"monitor": "recall@1", "higher_is_better": True, "seed": seed}}
    for key, value in (settings or {}).items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    numbers = {"test/recall@1": recall} if metrics is None else metrics
    results = {"last": {"epoch": 2, "metrics": numbers}, "seconds": 30.0, "peak_memory": {"process_bytes": 2**30}}
    record = {
        "experiment": "cub_rambo",
        "overrides": [f"seed={seed}", *overrides],
        "seed": seed,
        "config": config,
        "data": {"name": "CUB-200-2011", "fingerprint": "a" * 64, "fixture": False, "test": {"images": 5924}},
        "results": results,
        "code": {"revision": "0123456789abcdef", "dirty": False},
        "packages": {"torch": "2.6.0"},
        "measures": MEASURES,
        **report,
    }
    folder.mkdir(parents=True)
    runs.begin(folder, config)
    name = next(iter(numbers))
    lines = [{"step": e, "epoch": e, name: value} for e, value in enumerate(curve or [0.1, 0.3, recall])]
    (folder / "metrics.jsonl").write_text("".join(to_json(line) + "\n" for line in lines))
    runs.finish(folder, record)
    return folder


def swept(root, grid, seeds=(0, 1), x="loss.interpolation", y="loss.margin"):
    """Runs of every cell {(x, y): recall}, seed k at recall + k / 10; found."""
    for (at_x, at_y), recall in grid.items():
        for seed in seeds:
            settings = {x: at_x, y: at_y}
            changed = [f"{key}={value}" for key, value in settings.items()]
            made(root / f"{at_x}_{at_y}_{seed}", seed, recall + seed / 10, settings, changed)
    return find_runs([root])
