"""A trained model as a file for other programs, which is there only if it answers as the network does.

An ONNX file (`onnx`) or one of torch.export (`torch`) takes what the network reads of a batch, with any number of
samples, and carries `preprocessing`, what is to be done before, and `model.json`, everything that is known of the
model. `safetensors` is the folder that `Trained.save` writes.
"""

from __future__ import annotations

import importlib
import io
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from harness.data.loading import Batch
from harness.files import to_json, writing
from harness.record.restored import restored
from harness.record.standalone import Trained, load

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model"}  # and what a run's file is called
NEEDED: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": (), "safetensors": ()}
SIZES = (2, 1, 5)  # of the batches by which a file is checked; the first is traced
TOLERANCE = 1e-4  # of an answer of 1 or less, otherwise of the largest
OUTPUTS = {"retrieval": "embedding", "regression": "prediction"}
Answer = Callable[[Batch], Any]
INSTEAD = "load its model/ folder instead: harness.record.load"


def check_packages(to: str) -> None:
    """Refuses a format (ModuleNotFoundError) whose packages are not installed."""
    for name in NEEDED[to]:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'--to {to} needs {error.name}; run: pip install "blackbox-ranking[export]"'
            ) from error


def batches(model: Trained, run: Path, inputs: Any = None, allow: Sequence[str] = ()) -> list[Batch]:
    """Batches of `SIZES` real samples: of `inputs`, as `Trained.answers` takes them, or of the run's evaluation data.

    Where there are fewer samples, they come again.

    Raises:
        FileNotFoundError: If no inputs are given and the data of the run are not there.
        ValueError: If inputs are given and none is one, or the model came without what reads them.
    """
    if inputs is not None:
        if model.reader is None:
            raise ValueError("the data of this run told no way to read inputs (for_use); leave --inputs out")
        listed = model.reader.listed(inputs)[: sum(SIZES)]
        samples, collate = [model.reader.read(entry) for entry in listed], model.reader.collate
    else:
        if not (run / "config.yaml").is_file():
            raise FileNotFoundError(
                f"{run} is a model without its data; give real inputs to check with: --inputs FILE ..."
            )
        loader = next(reversed(restored(run, model.facts["checkpoint"], allow=allow).data.evaluation.values()))
        samples = [loader.dataset[index] for index in range(min(sum(SIZES), len(loader.dataset)))]
        collate = loader.collate_fn
    if not samples:
        raise ValueError("there is no input to check with")
    following = itertools.cycle(samples)
    return [collate(list(itertools.islice(following, size))) for size in SIZES]


def export(model: Trained, to: str, path: Path, given: Sequence[Batch], allow: Sequence[str] = ()) -> dict[int, float]:
    """Writes `model`, which must be on the CPU, to `path` and checks it on the batches that are `given`.

    Returns:
        The largest difference from the network's answers by number of samples.

    Raises:
        ValueError: If the network cannot be exported, or the file answers otherwise; then none is left.
        ModuleNotFoundError: If a package is missing, see `check_packages`.
    """
    check_packages(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}_") as folder:
        made = Path(folder) / path.name
        if to == "safetensors":
            saved = load(model.save(made), device="cpu", allow=allow).network
            differences = _checked(saved, model.network, given, path)
            model.save(path)
        else:
            names = _read_by(model.network, given[0])
            program = _traced(_Positional(model.network, names), names, given)
            answer = {"onnx": _onnx, "torch": _pt2}[to](program, made, names, _documents(model, names, given))
            differences = _checked(answer, model.network, given, path)
            made.replace(path)
    return differences


class _Positional(nn.Module):
    """The network on the tensors that it reads of a batch, in order, and of its answer the tensor that counts."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, list(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        output = self.network(dict(zip(self.names, tensors, strict=True)))
        answer: Tensor = getattr(output, "prediction", output)
        return answer


class _Seen(dict[str, Any]):
    """A batch that knows what was read of it."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> Any:
        self.names[name] = None
        return super().__getitem__(name)


def _read_by(network: nn.Module, batch: Batch) -> list[str]:
    """What of a batch the network reads, all of it tensors."""
    seen, kind = _Seen(batch), type(network).__name__
    with torch.no_grad():
        output = network(seen)
    if other := [name for name in seen.names if not isinstance(batch[name], Tensor)]:
        raise ValueError(f"{kind} cannot be exported, as it reads a list ({other[0]}) and no tensor; {INSTEAD}")
    if not isinstance(getattr(output, "prediction", output), Tensor):
        raise ValueError(f"{kind} cannot be exported, as it gives {type(output).__name__} and no tensor; {INSTEAD}")
    return list(seen.names)


def _traced(own: _Positional, names: Sequence[str], given: Sequence[Batch]) -> Any:
    """The network as torch.export keeps it; free are the number of samples and what differs between the batches."""
    free = tuple(
        {
            place: torch.export.Dim.DYNAMIC
            for place, size in enumerate(given[0][name].shape)
            if place == 0 or any(batch[name].shape[place] != size for batch in given)
        }
        for name in names
    )
    try:
        with _quiet():
            tensors = tuple(given[0][name] for name in names)
            return torch.export.export(own.eval(), tensors, dynamic_shapes=(free,), strict=False)
    except Exception as error:  # whatever a network of any kind makes torch say
        raise ValueError(
            f"{type(own.network).__name__} cannot be exported, as torch.export cannot follow it "
            f"({_first_line(error)}); {INSTEAD}"
        ) from error


def _onnx(program: Any, file: Path, names: Sequence[str], documents: Mapping[str, str]) -> Answer:
    import onnxruntime

    try:
        with _quiet():
            options: dict[str, Any] = {"input_names": list(names), "output_names": [documents["output"]]}
            made: Any = torch.onnx.export(program, (), **options, dynamo=True, verbose=False)
    except Exception as error:
        raise ValueError(f"this network has no form in ONNX ({_first_line(error)}); take --to torch") from error
    made.model.metadata_props.update(documents)
    with writing(file):
        made.save(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    return lambda batch: torch.from_numpy(session.run(None, {name: batch[name].numpy() for name in names})[0])


def _pt2(program: Any, file: Path, names: Sequence[str], documents: Mapping[str, str]) -> Answer:
    with _quiet():
        content = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.export.save(program, content, extra_files=dict(documents))
        with writing(file):
            file.write_bytes(content.getbuffer())
        module = torch.export.load(file).module()
    return lambda batch: module(*(batch[name] for name in names))


def _checked(answer: Answer, network: nn.Module, given: Sequence[Batch], path: Path) -> dict[int, float]:
    """The largest difference between two answers by number of samples; a ValueError if one is too large."""
    found = {}
    for size, batch in zip(SIZES, given, strict=True):
        with torch.no_grad():
            wanted, got = _numbers(network(batch)), _numbers(answer(batch))
        difference = float((got - wanted).abs().max()) if len(got) == len(wanted) else float("inf")
        if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):  # also refuses nan
            raise ValueError(
                f"{path} was not written, as it would answer otherwise than the network: in a batch of {size} by "
                f"{difference:.3g} (allowed are {TOLERANCE:g} of the largest answer)"
            )
        found[size] = difference
    return found


def _numbers(output: Any) -> Tensor:
    """All that counts of an answer in one row."""
    leaves = [leaf for leaf in tree_leaves(getattr(output, "prediction", output)) if isinstance(leaf, Tensor)]
    return torch.cat([torch.zeros(1), *(leaf.flatten() for leaf in leaves)])


def _documents(model: Trained, names: Sequence[str], given: Sequence[Batch]) -> dict[str, str]:
    """What a file says of itself: how inputs are made, what they are, and everything that model.json says."""
    inputs = {}
    for name in names:
        sizes = zip(*(batch[name].shape[1:] for batch in given), strict=True)
        shape = ["any", *(size[0] if len(set(size)) == 1 else "any" for size in sizes)]
        inputs[name] = {"type": str(given[0][name].dtype).removeprefix("torch."), "shape": shape}
    described = getattr(model.reader, "described", lambda: "Not known: the data told no reader.")
    return {
        "preprocessing": described(),
        "inputs": to_json(inputs),
        "output": OUTPUTS.get(str(model.facts["task"]), "output"),
        "model.json": to_json(model.facts),
    }


def _first_line(error: BaseException) -> str:
    line = " ".join(str(error.__cause__ or error).strip().partition("\n")[0].split())
    return line if len(line) < 160 else f"{line[:160]} ..."


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says about itself while it exports."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
