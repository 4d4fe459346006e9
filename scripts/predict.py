"""What a trained regression model or detector says of new inputs: python scripts/predict.py RUN photos."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

import torch
from hydra.errors import InstantiationException
from rich.progress import Progress

from harness.checkpoint import CheckpointError
from harness.data.inputs import TABLES, listed, pictures, told
from harness.data.reading import Images
from harness.data.spreadsheet import read_spreadsheet
from harness.files import check_free, whole_folder, write_text
from harness.record import model_options
from harness.record.faults import sentence
from harness.record.standalone import Trained
from rambo.detection.written import FORMATS, Written, names_of
from ranksim.bins import Density

ADDED = ("prediction", "shot")
USUAL_THRESHOLD = 0.5


def targets_of(model: Trained) -> list[str]:
    """What the columns are called that a regression model was trained to predict; none where its data told none."""
    named = model.facts.get("target") or []
    return [named] if isinstance(named, str) else list(named)


def inputs_of(model: Trained, given: Sequence[Path]) -> tuple[list[dict[str, str]], Sequence[Any]]:
    """What the output says of each input beside the answer, and the inputs as the reader of the model takes them."""
    table = len(given) == 1 and given[0].suffix.lower() in TABLES
    if isinstance(model.reader, Images):
        if table and given[0].is_file():
            sheet = read_spreadsheet(given[0])
            crops = sheet.crops(targets_of(model)) if model.facts["task"] == "regression" else None
            paths = listed(sheet)
            return sheet.rows, [(path, crops[i]) if crops and crops[i] else path for i, path in enumerate(paths)]
        found = [path for one in given for path in pictures(one)]
        return [{"path": str(path)} for path in found], found
    if not table:
        raise ValueError(f"this model takes one table ({', '.join(sorted(TABLES))}), got {' '.join(map(str, given))}")
    if not given[0].is_file():
        raise FileNotFoundError(f"there is no {given[0]}; name a table with what the model takes in its columns")
    return read_spreadsheet(given[0]).rows, model.reader.listed(given[0])


def answered(
    model: Trained, inputs: Sequence[Any], asked: argparse.Namespace, skipped: dict[int, str]
) -> Iterator[tuple[int, Any]]:
    """The place of each input and what the network says of it, in order; those left out go to `skipped`."""
    out = skipped if asked.on_bad_image == "skip" else None
    batches = model.answers(inputs, asked.batch_size, asked.workers, out)
    place = 0
    for output in batches:
        for one in output if isinstance(output, list) else output.prediction.float():
            while place in skipped:
                place += 1
            yield place, one
            place += 1
    if len(skipped) == len(inputs):
        raise ValueError(f"none of the {len(inputs):,} inputs could be read; the first: {skipped[0]}")


def regression(model: Trained, asked: argparse.Namespace, bar: Progress) -> list[str]:
    """Writes a table of predictions, in the unit of the target, with the shot of each; returns what to say of it."""
    said, inputs = inputs_of(model, asked.inputs)
    called = targets_of(model) if len(targets_of(model)) > 1 else []
    if taken := [name for name in (*ADDED, *(f"{ADDED[0]}_{one}" for one in called)) if name in said[0]]:
        raise ValueError(f"{asked.inputs[0]} has a column {taken[0]!r} already, as the output has; rename it")
    skipped: dict[int, str] = {}
    places, values = zip(*bar.track(answered(model, inputs, asked, skipped), len(inputs)), strict=True)
    predictions = torch.stack(values)
    numbers = predictions.reshape(len(predictions), -1).numpy()
    several = numbers.shape[1] > 1
    columns = called or range(1, numbers.shape[1] + 1)
    names = [f"{ADDED[0]}_{column}" for column in columns] if several else [ADDED[0]]
    shots: list[list[str]] = [[] for _ in places]
    if not several and (record := model.facts.get("density")):
        rule = {"rule" if k == "shot_rule" else k: v for k, v in (model.facts.get("evaluation") or {}).items()}
        rule = {key: value for key, value in rule.items() if key in ("rule", "many", "few")}
        shots = [[shot] for shot in Density.recorded(record).regions(predictions.reshape(-1), **rule)]
        names.append(ADDED[1])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*said[0], *names])
    for place, row, shot in zip(places, numbers, shots, strict=True):
        table.writerow([*said[place].values(), *map(str, row), *shot])
    write_text(asked.out, text.getvalue())
    what = ", ".join(called) or model.facts.get("quantity")
    unit = " ".join(filter(None, [what, f"in {u}" if (u := model.facts.get("unit")) else ""]))
    return [*told(skipped, inputs), f"{len(places):,} predictions{f' ({unit})' if unit else ''}: {asked.out}"]


def detection(model: Trained, asked: argparse.Namespace, bar: Progress) -> list[str]:
    """Writes boxes in the formats asked for; returns what to say of it."""
    _, inputs = inputs_of(model, asked.inputs)
    names, kept, highest, skipped = names_of(inputs), 0, 0.0, dict[int, str]()
    threshold = USUAL_THRESHOLD if asked.threshold is None else asked.threshold
    with whole_folder(asked.out, asked.force) as folder:
        written = Written(folder, model.facts["classes"], asked.to or FORMATS)
        for place, found in bar.track(answered(model, inputs, asked, skipped), len(inputs)):
            good = found["scores"] > threshold
            kept, highest = kept + int(good.sum()), max([highest, *found["scores"].tolist()])
            boxes = {key: values[good] for key, values in found.items()}
            written.add(names[place], inputs[place], model.reader.picture(inputs[place]), boxes)
        written.finish()
    none = "" if kept else f" (no score is above {threshold:g}, the highest is {highest:.3g}: see --threshold)"
    return [*told(skipped, inputs), f"{kept:,} objects in {len(inputs) - len(skipped):,} pictures{none}: {asked.out}"]


def predict(asked: argparse.Namespace) -> list[str]:
    """Loads the model, then `regression` or `detection`."""
    model = model_options.loaded(asked)
    task = model.facts["task"]
    if task not in ("regression", "detection"):
        way = "; scripts/embed.py embeds" if task == "retrieval" else ""
        raise ValueError(f"{asked.run} is trained for {task or 'something else'}, of which nothing is predicted{way}")
    if task == "regression" and (asked.to or asked.threshold is not None):
        raise ValueError("--to and --threshold are for detectors, and this model predicts a number")
    asked.out = asked.out or Path("predictions.csv" if task == "regression" else "predictions")
    check_free(asked.out, asked.force)
    with Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
        return (regression if task == "regression" else detection)(model, asked, bar)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    model_options.add(parser)
    add("inputs", nargs="+", type=Path, help="pictures, folders, lists (.txt, .csv); a table of numbers or sentences")
    add("--out", type=Path, help="predictions.csv if not given, or, of a detector, the folder predictions")
    add("--force", action="store_true", help="write over what is there")
    add("--to", nargs="+", choices=FORMATS, help="of a detector: VOC XML, COCO JSON, pictures with boxes; default: all")
    add("--threshold", type=float, help=f"of a detector: scores above it are kept; default: {USUAL_THRESHOLD}")
    try:
        lines = predict(parser.parse_intermixed_args(words))
    except (CheckpointError, InstantiationException, ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {sentence(error)}") from None
    for line in lines[:-1]:
        print(line, file=sys.stderr)
    print(lines[-1])


if __name__ == "__main__":
    main()
