"""A run's metrics by another checkpoint or on other data: python scripts/evaluate.py RUN data=cub data.root=/birds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from harness.checkpoint import CheckpointError
from harness.record import allowed, load, model_options
from harness.record.faults import sentence
from harness.show import sheet
from harness.show.sheet import Line, Sheet
from harness.train.evaluated import evaluate


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="the folder of a run, finished or not")
    add("overrides", nargs="*", help="as of train.py: data=..., data.root=..., metrics.recall_at=[1], ...")
    add("--which", **model_options.WHICH)
    add("--device", **model_options.DEVICE)
    add("--out", type=Path, metavar="FOLDER", help="where to write; default: a new one in RUN/evaluations")
    add("--allow", **allowed.OPTION)
    asked = parser.parse_intermixed_args(words)
    try:
        model = load(asked.run, asked.which, asked.device, asked.allow)
        folder, report = evaluate(asked.run, model, asked.overrides, asked.out, asked.allow)
    except (
        CheckpointError, InstantiationException, OmegaConfBaseException, ValueError, OSError, ImportError,
    ) as error:  # fmt: skip
        raise SystemExit(f"error: {sentence(error)}") from None
    own = report["data"].get("fingerprint") == report["evaluated"]["trained_on"]
    recorded = model.facts["metrics"] if own else {}
    rows = [
        Line([name, f"{value:.6g}", f"{recorded[name]:.6g}" if recorded.get(name) is not None else ""])
        for name, value in report["results"]["last"]["metrics"].items()
    ]
    above = [f"{asked.run}, {model.facts['checkpoint']}, on {report['data'].get('name')}"]
    sheet.show(Sheet(["metric", "now", "the run's"], rows, above=above, below=[f"report: {folder}"]))


if __name__ == "__main__":
    main()
