"""A trained model that needs neither the data it was trained on nor the config of its training.

A folder of two files: `model.safetensors` has the weights, `model.json` everything else. Every run has one, `model/` in
its folder: `model.json` from the beginning, so that a run that was stopped can be loaded too, and the weights of its
best epoch from the end. To take part, a model has `task`, and `without_data()`, the settings that stand for what it was
told by data and files; a data set has `for_use(settings)`, see `harness.data.dataset.PartedData`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import save as in_bytes
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from harness import checkpoint
from harness.checkpoint import CheckpointError
from harness.data import pretrained
from harness.device import choose_device, map_tensors, to_device
from harness.files import read_json, write_record, write_whole
from harness.record import allowed, runs
from harness.record.faults import sentence
from harness.record.restored import draws_kept, restored

FORMAT = 1
FOLDER, FACTS, WEIGHTS = runs.MODEL, "model.json", "model.safetensors"
PROVENANCE = ("experiment", "seed", "started", "code", "python", "packages", "hardware", "data")
BEST = ("best_on_validation", "best_on_test")


@dataclass(frozen=True)
class Trained:
    """A trained model and what reads its inputs.

    Attributes:
        network: In evaluation mode.
        reader: See `harness.data.reading`; None if the data set told none.
        facts: What model.json says: `task`, the configs `model` and `reader`, `classes`, `target_scale`, `density`,
            `quantity`, `unit`, `checkpoint` and its `epoch`, `metrics` and `measures`, and `run`, where it comes from.
    """

    network: nn.Module
    reader: Any
    facts: dict[str, Any]

    def embed(self, images: Any, batch_size: int | None = None, workers: int = 0) -> Tensor:
        """Embeddings of unit length, float32 (images, dimensions), on the CPU; arguments and errors of `answers`."""
        self._check("retrieval", "embed")
        return torch.cat([output.float() for output in self.answers(images, batch_size, workers)])

    def predict(self, inputs: Any, batch_size: int | None = None, workers: int = 0) -> Any:
        """What a regression model or a detector says; arguments and errors of `answers`.

        Returns:
            Of regression float32 (samples,), or (samples, outputs), in the unit of the target. Of a detector for each
            picture `boxes` float32 (detections, 4), left, top, right, bottom in its pixels, `scores`, `labels`, and
            `names` of these, best first. On the CPU.
        """
        self._check("regression or detection", "predict")
        outputs = self.answers(inputs, batch_size, workers)
        if self.facts["task"] == "regression":
            return torch.cat([output.prediction.float() for output in outputs])
        classes = self.facts["classes"]
        named = (
            {**one, "names": [classes[label - 1] for label in one["labels"].tolist()]} for o in outputs for one in o
        )
        return list(named)

    def answers(
        self,
        inputs: Any,
        batch_size: int | None = None,
        workers: int = 0,
        skipped: dict[int, str] | None = None,
    ) -> Iterator[Any]:
        """What the network gives for each batch, in order, moved to the CPU.

        Args:
            inputs: Pictures: paths, images of Pillow, or tensors (3, height, width), uint8 or floating point from 0 to
                1. Rows of numbers: a CSV file's path, a data frame, {column: number} each, or a tensor. Pairs of
                sentences.
            batch_size: None: as the run evaluated, which gives its numbers to the last bit.
            workers: Processes that read.
            skipped: Takes up the place of each input that cannot be read, and why; such are left out then. Whatever the
                batches so far give is of the other inputs, in order.

        Raises:
            ValueError: If there is no input, or one is not what the model takes.
            OSError: If a file cannot be read; with its name.
        """
        if self.reader is None:
            raise ValueError("the data of this run told no way to read inputs (for_use); call .network with a batch")
        entries, size = self.reader.listed(inputs), batch_size or self.facts.get("batch_size", 64)
        if not entries:
            raise ValueError("there is no input to read")
        there = _Entries(self.reader, entries)
        options: dict[str, Any] = {"num_workers": workers, "collate_fn": there.collate}
        device = next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))
        for batch, faults in DataLoader(there, size, generator=torch.Generator(), **options):
            for place, fault in faults.items():
                if skipped is None:
                    raise fault
                skipped[place] = str(fault)
            if batch is None:
                continue
            with torch.no_grad():
                output = self.network(to_device(batch, device))
            yield map_tensors(output, Tensor.cpu)

    def fingerprint(self) -> str:
        """sha256 of the weights and of the settings of network and reader: with an equal one, answers are equal."""
        settings = [self.facts["model"], self.facts.get("reader")]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Writes the two files into `folder`, from which `load` reads them anywhere, and returns it."""
        folder = Path(folder)
        _write(folder, self.facts, self.network.state_dict())
        return folder

    def _check(self, wanted: str, method: str) -> None:
        if (task := self.facts["task"]) not in wanted.split(" or "):
            way = {"retrieval": "embed", "regression": "predict", "detection": "predict"}.get(task, "answers")
            raise ValueError(f"{method} is for {wanted}, and this model is for {task or 'something else'}: use {way}")


def load(path: str | Path, which: str | None = None, device: str = "auto", allow: Sequence[str] = ()) -> Trained:
    """Loads what a run has learned; nothing but the folder is needed, and no code that it brings is run.

    Args:
        path: The folder of a run, finished or not, or one that `Trained.save` wrote, such as `model/` in that of a run.
        which: Of a run, `best` (on validation, else on test, else the last; also None), `last`, `average` (the best of
            `trainer.average`), or any file in its checkpoints, such as `best_on_test`.
        device: Where the model goes; `auto` takes a GPU when there is one.
        allow: Packages of your own that the config may name; see `harness.record.allowed`.

    Raises:
        FileNotFoundError: If there is no run, or no such checkpoint; those there are are named.
        CheckpointError: If weights are damaged or of another model.
        ValueError: If a file is damaged or of a newer version, or names what may not be built.
    """
    folder = Path(path).expanduser()
    if (folder / FACTS).is_file():
        facts, state, file = *_saved(folder, which), folder / WEIGHTS
    elif which is None and not (folder / "checkpoints").is_dir() and (folder / FOLDER / WEIGHTS).is_file():
        return load(folder / FOLDER, which, device, allow)  # somebody made room
    else:
        facts, state, file = _of_run(folder, which, allow)
    allowed.check({noun: facts.get(noun) for noun in ("model", "reader")}, file.parent, allow)
    with draws_kept():
        network: nn.Module = instantiate(facts["model"], _convert_="all")
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys  # more than that served training
    except RuntimeError:  # of shapes
        missing = ["some"]
    if missing:
        wrong = checkpoint.told(checkpoint.differing(network.state_dict(), state))
        raise CheckpointError(f"{file} holds another model than {FACTS} tells of: {wrong}")
    reader = instantiate(facts["reader"], _convert_="all") if facts.get("reader") else None
    return Trained(network.to(choose_device(device)).eval(), reader, facts)


def begin(folder: Path, config: Mapping[str, Any], data: Any, model: nn.Module, record: Mapping[str, Any]) -> None:
    """Writes model.json of the run that begins, or goes on, in `folder`; `config` is resolved."""
    write_record(folder / FOLDER / FACTS, _described(config, data, model, record))


def finish(folder: Path, report: Mapping[str, Any]) -> None:
    """Adds the weights of the best epoch, and its numbers, to what `begin` wrote."""
    write(folder, report, _chosen(folder, None), folder / FOLDER)


def write(folder: Path, report: Mapping[str, Any], name: str, into: Path) -> None:
    """Writes the two files of the checkpoint `name` of a run whose `begin` and report are there."""
    state = checkpoint.load(folder / "checkpoints" / f"{name}.pt")["model"]
    _write(into, _facts(folder / FOLDER) | _result(report, name), state)


def _described(config: Mapping[str, Any], data: Any, model: nn.Module, record: Mapping[str, Any]) -> dict[str, Any]:
    settled, told = getattr(model, "without_data", None), getattr(data, "for_use", None)
    pictures = config.get("pictures") or {}
    return {
        "format": FORMAT,
        "task": getattr(model, "task", None),
        "model": _changed(config["model"], settled() if settled else {}),
        **(told(config["data"]) if told else {}),
        **{key: pictures[key] for key in ("quantity", "unit") if key in pictures},
        "evaluation": config.get("metrics"),
        "run": {key: record[key] for key in PROVENANCE if key in record},
    }


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with other settings, blocks inside it likewise."""
    inside = {k: _changed(config[k], v) for k, v in changes.items() if isinstance(v, Mapping) and config.get(k)}
    return {**config, **changes, **inside}


def _saved(folder: Path, which: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    facts = _facts(folder)
    held = facts.get("checkpoint")
    if held is None or not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {WEIGHTS}, which a run adds at its end; load the folder of the run, or copy both files"
        )
    if which not in (None, held):
        raise FileNotFoundError(f"{folder} holds {held}, not {which}; load the folder of the run")
    return facts, pretrained.read_saved(folder / WEIGHTS)


def _of_run(folder: Path, which: str | None, allow: Sequence[str]) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    config = runs.read_config(folder)
    name = _chosen(folder, which)
    checkpoints = folder / "checkpoints"
    file = checkpoints / f"{name}.pt"
    if (folder / FOLDER / FACTS).is_file():
        facts = _facts(folder / FOLDER)
    else:  # of before this was written
        try:
            run = restored(folder, name, allow=allow)
        except (OSError, InstantiationException) as error:
            raise FileNotFoundError(
                f"{folder} has no {FOLDER}/{FACTS}, as older runs, and loading it needs its data: {sentence(error)}"
            ) from error
        facts = _described(config, run.data, run.model, runs.read_began(folder))
    report = folder / "report.json"
    results = read_json(report) if report.is_file() else {}
    if not results and checkpoint.is_there(checkpoints):
        results = checkpoint.newest(checkpoints, mapped=True).state
    return facts | _result(results, name), checkpoint.load(file)["model"], file


def _chosen(folder: Path, which: str | None) -> str:
    """The checkpoint of a run that is meant; a FileNotFoundError names those there are."""
    there = checkpoint.names(folder / "checkpoints")
    if not there:
        raise FileNotFoundError(f"{folder} has no checkpoint yet; go on with it: resume={folder}")
    ending = {None: "", "best": "", "average": "_average"}.get(which)
    wanted = [which] if ending is None else [f"{name}{ending}" for name in (*BEST, "last")]
    for name in wanted:
        if name in there:
            return str(name)
    raise FileNotFoundError(f"{folder} has no checkpoint {which}; there are best, {', '.join(there)}")


def _result(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The epoch and the metrics of a checkpoint, of the report of a run or of its last checkpoint."""
    found = (record.get("results") or {}).get(name) or {}
    measured = {"metrics": found.get("metrics", {}), "measures": record.get("measures", {})}
    return {"checkpoint": name, "epoch": found.get("epoch"), **measured}


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    facts = read_json(path)
    if (
        not isinstance(facts, dict)
        or not isinstance(facts.get("format"), int)
        or not isinstance(facts.get("model"), dict)
    ):
        raise ValueError(f"{path} is not what a run writes; copy or export it again")
    if facts["format"] > FORMAT:
        raise ValueError(
            f"{path} is of format {facts['format']}, and this version reads {FORMAT}; install a newer blackbox-ranking"
        )
    return facts


def _write(folder: Path, facts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    tensors = {name: value.cpu().contiguous().clone() for name, value in state.items() if isinstance(value, Tensor)}
    weights = in_bytes(tensors, {"format": "pt"})
    write_whole(folder / WEIGHTS, lambda file: file.write(weights))
    write_record(folder / FACTS, {**facts, pretrained.WEIGHTS_SUM: hashlib.sha256(weights).hexdigest()})


class _Entries(Dataset[Any]):
    """What a reader reads, one by one, each with its place; an error in place of what cannot be read."""

    def __init__(self, reader: Any, entries: Sequence[Any]) -> None:
        self.reader, self.entries = reader, entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        try:
            return index, self.reader.read(self.entries[index])
        except (OSError, ValueError) as error:
            return index, error

    def collate(self, read: Sequence[tuple[int, Any]]) -> tuple[Any, dict[int, Exception]]:
        """The batch of what could be read, None if nothing could, and the errors by place."""
        faults = {place: one for place, one in read if isinstance(one, Exception)}
        samples = [one for place, one in read if place not in faults]
        return self.reader.collate(samples) if samples else None, faults
