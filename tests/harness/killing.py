"""Runs of train.py that are killed and gone on with, and whether two run folders hold the same."""

import json
from pathlib import Path

import torch

from harness import checkpoint
from harness.record.reuse import LOCK
from harness.study.execution import Worker

DYING = Path(__file__).with_name("dying.py")
BY_THE_CLOCK = ("seconds", "peak_memory", "record")  # the last: of a checkpoint, the sum of lines with seconds


def same(one, other, besides=BY_THE_CLOCK):
    """Whether two values hold the same to the last bit, but what a clock or the memory told: keys that begin so."""
    if isinstance(one, torch.Tensor):
        alike = isinstance(other, torch.Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return alike and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    if isinstance(one, dict):
        keys = [key for key in one if not str(key).startswith(besides)]
        return one.keys() == other.keys() and all(same(one[key], other[key], besides) for key in keys)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair, besides) for pair in zip(one, other, strict=True))
    return one == other or (one != one and other != other)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def differing(one, other):
    """What two run folders, of the same command, hold that is not the same."""
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (one, other)]
    found = sorted((names[0] ^ names[1]) - {LOCK})  # which a killed process leaves, and anybody may take
    for name in sorted(names[0] & names[1]):
        ours, theirs = one / name, other / name
        if name.endswith(".pt"):
            equal = same(*(checkpoint.load(path) for path in (ours, theirs)))
        elif name.endswith("metrics.jsonl"):
            equal = same(lines(ours.parent), lines(theirs.parent))
        elif name.endswith("report.json"):
            reports = [json.loads(path.read_text()) for path in (ours, theirs)]
            equal = same(*([report[key] for key in ("results", "data", "loss", "seed")] for report in reports))
        elif name.endswith((".safetensors", ".png")):
            equal = ours.read_bytes() == theirs.read_bytes()
        else:
            equal = True
        found += [] if equal else [name]
    return found


def where(folder):
    """How a user gives this folder again: to go on with, once it has a checkpoint."""
    there = any(path.name in (checkpoint.LAST, checkpoint.PREVIOUS) for path in folder.rglob("*.pt"))
    return f"resume={folder}" if there else f"hydra.run.dir={folder}"


def killed_and_gone_on_with(make, folder, faults):
    """Begins runs below `folder`, and gives the same command again until each is finished; returns their folders.

    Each fault is tried until it has ended a run; where the run had come too far, it meets the next one.

    Args:
        make: Called with the folder of a run and a fault; returns exit status and output.
        faults: What shall end runs; an endless one may not be among them.
    """
    made = [folder / "0"]
    for fault in faults:
        answer = make(made[-1], fault)
        while answer[0] == 0:
            assert len(made) < 2 * len(faults), f"{fault} never happens"
            made.append(folder / str(len(made)))
            answer = make(made[-1], fault)
        assert "SIGKILL" in answer[1], answer[1]
        for sound in (path for path in made[-1].rglob("checkpoints") if checkpoint.is_there(path)):
            assert checkpoint.newest(sound).fault is None
        if (made[-1] / "DONE").exists():  # killed when all was said
            made.append(folder / str(len(made)))
    status, said = make(made[-1], {})
    assert status == 0, said
    return made


class Runs:
    """Makes runs of one command, one after the other, each in a process of its own.

    Args:
        folder: For what they print.
        arguments: Of train.py.
    """

    def __init__(self, folder, arguments):
        self.worker, self.arguments = Worker(DYING, folder), arguments

    def make(self, folder, fault, *more):
        """The exit status, and what was printed, of the run in `folder`, which goes on if it has a checkpoint."""
        self.worker.begin([json.dumps(fault), *self.arguments, where(folder), *more])
        return self.worker.end()

    def close(self):
        self.worker.commands.close()
        self.worker.process.wait(60)
        self.worker.codes.close()
