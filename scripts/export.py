"""Takes a trained model out of its run: python scripts/export.py RUN --to onnx."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.files import shown
from harness.record.allowed import OPTION
from harness.record.export import FORMATS, batches, check_packages, export
from harness.record.faults import sentence
from harness.record.standalone import load


def write(chosen: argparse.Namespace) -> None:
    """Writes what is asked for and says what was found."""
    check_packages(chosen.to)
    model = load(chosen.run, chosen.which, device="cpu", allow=chosen.allow)
    inputs = chosen.inputs[0] if len(chosen.inputs or ()) == 1 else chosen.inputs
    path = chosen.out or chosen.run / "exported" / FORMATS[chosen.to]
    given = batches(model, chosen.run, inputs, chosen.allow)
    found = export(model, chosen.to, path, given, chosen.allow)
    told = ", ".join(f"{difference:.1e} with {size}" for size, difference in sorted(found.items()))
    print(f"{shown(path)}: {model.facts['checkpoint']}; largest difference from the network by samples: {told}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, or of a saved model")
    parser.add_argument("--to", choices=FORMATS, required=True, help="ONNX, torch.export, or the two files of a model")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to; default: exported/ in the folder of the run"
    )
    parser.add_argument(
        "--which", metavar="CHECKPOINT", help="best (default), last, average, or a file of checkpoints/"
    )
    parser.add_argument(
        "--inputs", nargs="+", metavar="FILE",
        help="pictures, or a table, to check with; default: the evaluation data of the run",
    )  # fmt: skip
    parser.add_argument("--allow", **OPTION)
    try:
        write(parser.parse_args(arguments))
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"error: {sentence(error)}") from None


if __name__ == "__main__":
    main()
