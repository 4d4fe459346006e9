"""Runs that Ctrl-C or SIGTERM ends: one sentence, its status, and a run that goes on as if nothing had happened."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from commanded import COMMON, ROOT
from killing import Runs, differing, where

SMALL = [*COMMON, "trainer.pictures=true", "trainer.log_every=1", "trainer.epochs=2"]
RETRIEVAL = ["experiment=demo_rambo", *SMALL, "scheduler=constant", "data.sampler.batches_per_epoch=4"]
OFF = "tracking.wandb=disabled"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
MOMENTS = [("step", 1), ("step", 2), ("step", 3), ("updated", 4), ("epoch", 1)]  # of two epochs of four batches
KINDS = ["begin", "saving", "synced", "line", "evaluation", "linked", "replaced", "finish"]
WORKERS = [0, 1, 4]
RANDOM = 40
pytestmark = [pytest.mark.faults, pytest.mark.slow]


def told_in_one_sentence(said):
    """Whether the last line says that it was interrupted, and nothing else does, nor shows a trace."""
    told = [line.startswith("interrupted") for line in said.strip().splitlines()]
    return sum(told) == 1 and told[-1] and not complaints(said)


def complaints(said):
    return [word for word in ("Traceback", "Error", "error", "Exception", "Warning") if word in said]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run leaves; the stand-in data are made with it."""
    folder = tmp_path_factory.mktemp("interrupted")
    runs = Runs(folder, [*RETRIEVAL, OFF, f"paths.data={folder / 'data'}"])
    status, said = runs.make(folder / "whole", {})
    assert status == 0, said
    yield folder / "whole", runs
    runs.close()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("number", STATUS)
def test_a_run_interrupted_at_any_batch_ends_as_the_uninterrupted_one(whole, tmp_path, number, workers):
    """As in a terminal or by a batch system, all of its processes are told; twice in a row in every second case."""
    expected, runs = whole
    for case, (kind, nth) in enumerate(MOMENTS):
        folder = tmp_path / str(case)
        fault = {"at": kind, "nth": nth, "number": number, "group": True, "times": 1 + case % 2, "cores": 4}
        status, said = runs.make(folder, fault, f"workers={workers}")
        assert (status, told_in_one_sentence(said)) == (STATUS[number], True), said
        assert f"resume={folder}" in said
        status, said = runs.make(folder, {"cores": 4}, f"workers={workers}")
        assert status == 0, said
        assert differing(expected, folder) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_in_the_midst_of_a_file_or_an_evaluation(whole, tmp_path, kind):
    expected, runs = whole
    number = signal.SIGTERM if len(kind) % 2 else signal.SIGINT
    status, said = runs.make(tmp_path / "run", {"at": kind, "nth": 1, "number": number, "times": 2})
    assert (status, told_in_one_sentence(said)) == (STATUS[number], True), said
    status, said = runs.make(tmp_path / "run", {})
    assert status == 0, said
    assert differing(expected, tmp_path / "run") == []


def started(folder, arguments):
    """A run that answers SIGTERM, as it does from its first line on; how soon that is read depends on the machine."""
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments, where(folder)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    until = time.monotonic() + 60
    while not answers(process) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    return process


def answers(process, number=signal.SIGTERM):
    """Whether a process has said what shall happen at this signal, as the system knows it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("part", range(4))
def test_an_interrupt_at_a_random_moment_from_the_first_line_to_the_end(whole, tmp_path, part):
    """Of one process or of all, once or twice, with loading processes or without, with W&B offline or without."""
    expected, _ = whole
    chance, common = random.Random(part), [*RETRIEVAL, f"paths.data={expected.parent / 'data'}"]
    wandb = [OFF] if part % 2 else ["tracking.wandb=offline"]
    arguments = [*common, *wandb, f"workers={2 * (part // 2)}"]
    process, since = started(tmp_path / "timed", arguments), time.monotonic()
    assert process.wait(300) == 0
    seconds = time.monotonic() - since
    for case in range(RANDOM // 4):
        folder, number = tmp_path / str(case), chance.choice(list(STATUS))
        send = chance.choice([os.kill, os.killpg])
        process = started(folder, arguments)
        time.sleep(seconds * (case + chance.random()) * 4 / RANDOM)
        for _ in range(chance.choice([1, 2])):
            if process.poll() is None:
                send(process.pid, number)
                time.sleep(chance.choice([0, 0.01, 0.1]))
        said = process.communicate(timeout=200)[0]
        if process.returncode != 0:  # it was not over
            assert (process.returncode, told_in_one_sentence(said)) == (STATUS[number], True), (case, said)
        if not (folder / "DONE").exists():
            again = started(folder, arguments)
            said = again.communicate(timeout=300)[0]
            assert again.returncode == 0, said
        found = [name for name in differing(expected, folder) if not name.startswith("wandb")]
        assert found == [], (case, found)


def test_there_are_as_many_interrupts_as_the_documents_say():
    count = len(MOMENTS) * len(WORKERS) * len(STATUS) + len(KINDS) + RANDOM
    assert f"{Path(__file__).name})) | {count} |" in (ROOT / "docs" / "reliability.md").read_text()
