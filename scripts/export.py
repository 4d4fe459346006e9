"""Takes a trained model out of its run: python scripts/export.py RUN --to onnx."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from hydra.errors import InstantiationException

from harness.checkpoint import CheckpointError
from harness.files import shown, write_text
from harness.record.allowed import OPTION
from harness.record.export import FORMATS, batches, check_packages, export
from harness.record.faults import sentence
from harness.record.hub import push
from harness.record.model_options import WHICH
from harness.record.standalone import Trained, load
from harness.show.card import card
from harness.study import results


def make(chosen: argparse.Namespace) -> list[str]:
    """Makes what is asked for; returns what to say of it."""
    if chosen.to:
        check_packages(chosen.to)
    model, said = load(chosen.run, chosen.which, device="cpu", allow=chosen.allow), []
    path = chosen.out or chosen.run / "exported" / FORMATS[chosen.to or "safetensors"]
    if chosen.to:
        inputs = chosen.inputs[0] if len(chosen.inputs or ()) == 1 else chosen.inputs
        found = export(model, chosen.to, path, batches(model, chosen.run, inputs, chosen.allow), chosen.allow)
        told = ", ".join(f"{difference:.1e} with {size}" for size, difference in sorted(found.items()))
        said.append(
            f"{shown(path)}: {model.facts['checkpoint']}; largest difference from the network by samples: {told}"
        )
    text = about(model, chosen, path.name if chosen.to else "") if chosen.card or chosen.push else ""
    if chosen.card:
        write_text(path.parent / "README.md", text)
        said.append(f"{shown(path.parent / 'README.md')}: the model card")
    if chosen.push:
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            write_text(Path(folder) / "README.md", text)
            if chosen.to in ("onnx", "torch"):
                shutil.copy(path, folder)
            said.append(f"{push(Path(folder), chosen.push, not chosen.public)}: uploaded")
    return said


def about(model: Trained, chosen: argparse.Namespace, file: str) -> str:
    """The model card."""
    run = results.read(chosen.run) if (chosen.run / "DONE").is_file() else None
    seeds = [run] if run else []
    if run and chosen.seeds:
        found = results.group_by_method(results.find_runs([chosen.run, *chosen.seeds]))
        seeds = found[run.label]
    return card(model, run, seeds, chosen.license or "", chosen.push or "", file)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="the folder of a run, or of a saved model")
    add("--to", choices=FORMATS, help="ONNX, torch.export, or the two files of a model")
    add("--out", type=Path, metavar="FILE", help="where to; default: exported/ in the folder of the run")
    add("--which", **WHICH)
    add(
        "--inputs", nargs="+", metavar="FILE",
        help="pictures, or a table, to check with; default: the evaluation data of the run",
    )  # fmt: skip
    add("--card", action="store_true", help="write a model card, README.md, beside it")
    add("--seeds", nargs="+", type=Path, metavar="FOLDER", help="where runs with other seeds are, for the card")
    add("--license", metavar="NAME", help="of the weights, as the Hugging Face hub calls it: mit, cc-by-4.0, ...")
    add("--push", metavar="NAME", help="upload model and card to the Hugging Face hub, as a private repository")
    add("--public", action="store_true", help="make the repository a public one")
    add("--allow", **OPTION)
    chosen = parser.parse_args(arguments)
    if not (chosen.to or chosen.card or chosen.push):
        parser.error("say what to make: --to, --card or --push")
    try:
        for line in make(chosen):
            print(line)
    except (CheckpointError, InstantiationException, OSError, ValueError, ImportError) as error:
        raise SystemExit(f"error: {sentence(error)}") from None


if __name__ == "__main__":
    main()
