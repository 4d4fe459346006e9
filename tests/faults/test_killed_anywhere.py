"""Runs that are killed again and again, and gone on with by the same command, end as if nothing had happened.

Everything they leave is compared to the last bit, but what a clock told. `make test-faults` runs this alone.
"""

import json
import os
import random
import subprocess
import sys
import time

import pytest
from commanded import COMMON, ROOT
from killing import DYING, Runs, differing, killed_and_gone_on_with, where

SMALL = [*COMMON, "trainer.pictures=true", "trainer.log_every=1", "trainer.epochs=3"]
SMALL += ["scheduler=constant", "tracking.wandb=disabled"]
RETRIEVAL = ["experiment=demo_rambo", *SMALL, "data.sampler.batches_per_epoch=3", "trainer.average=0.9"]
REGRESSION = ["experiment=demo_regression", *SMALL, "weighting=inverse"]
DETECTION = ["experiment=demo_detection", *SMALL, "detection_ap.preset=official"]
CASES = {  # arguments and how many kills
    "retrieval": (RETRIEVAL, 10),
    "retrieval with loaders": ([*RETRIEVAL, "workers=2"], 8),
    "regression": ([*REGRESSION, "fds=gaussian", "regularizer=ranksim"], 10),
    "two stages": ([*REGRESSION, "stages=retrained_head"], 14),
    "detection with loaders": ([*DETECTION, "workers=2"], 10),
}
TOGETHER = 8
# In a step, an evaluation, a line of the record, a checkpoint, between the calls that change names; and at any time.
KINDS = ["step", "updated", "evaluation", "evaluated", "line", "saving", "synced", "replace", "replaced", "link"]
KINDS += ["linked", "removed", "epoch", "begin", "finish", "after", "after"]
pytestmark = [pytest.mark.faults, pytest.mark.slow]


def drawn(name, count, calls, seconds):
    """Faults of as many kinds as can be, each at a moment that the name of the case decides.

    Those by the clock come early enough for a run that is faster than the one that took `seconds`.
    """
    chance, kinds, faults = random.Random(name), [], []
    for _ in range(count):
        kinds = kinds or chance.sample(KINDS, len(KINDS))
        kind = kinds.pop()
        if kind == "after":
            faults.append({"after": chance.uniform(0, 0.7 * seconds)})
        else:
            faults.append({"at": kind, "nth": chance.randint(1, max(1, calls[kind] * 2 // 3))})
    return faults


@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_at_any_moment_ends_as_the_uninterrupted_one(name, tmp_path):
    pytest.importorskip("mlxtend")
    arguments, kills = CASES[name]
    runs = Runs(tmp_path, [*arguments, f"paths.data={tmp_path / 'data'}"])
    status, said = runs.make(tmp_path / "first", {})  # which also makes the stand-in data
    assert status == 0, said
    since = time.monotonic()
    status, said = runs.make(tmp_path / "whole", {"count": str(tmp_path / "calls")})
    assert status == 0, said
    faults = drawn(name, kills, json.loads((tmp_path / "calls").read_text()), time.monotonic() - since)
    made = killed_and_gone_on_with(runs.make, tmp_path / "killed", faults)
    runs.close()
    assert [differing(tmp_path / "whole", folder) for folder in [tmp_path / "first", *made]] == [[]] * (len(made) + 1)


def test_two_processes_of_which_one_is_killed_end_as_the_uninterrupted_ones(tmp_path):
    arguments = [*RETRIEVAL, "model.freeze_batch_norm=true", f"paths.data={tmp_path / 'data'}"]

    def make(folder, fault):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(DYING)]
        answer = subprocess.run(
            [*command, json.dumps(fault), *arguments, where(folder)], cwd=ROOT, timeout=300, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return answer.returncode, answer.stdout  # which tells of SIGKILL

    status, said = make(tmp_path / "whole", {"count": str(tmp_path / "calls")})
    assert status == 0, said
    chance = random.Random("together")
    kinds = chance.sample(
        ["step", "updated", "evaluation", "evaluated", "saving", "linked", "replaced", "line"], TOGETHER
    )
    by_all = ("step", "updated", "evaluation", "evaluated")
    faults = [
        {"at": kind, "nth": chance.randint(1, 4), "rank": chance.randint(0, 1) if kind in by_all else 0}
        for kind in kinds
    ]
    made = killed_and_gone_on_with(make, tmp_path / "killed", faults)
    assert [differing(tmp_path / "whole", folder) for folder in made] == [[]] * len(made)


def test_there_are_as_many_kills_as_the_documents_say():
    kills = sum(kills for _, kills in CASES.values()) + TOGETHER
    assert f"| {kills} kills |" in (ROOT / "docs" / "reliability.md").read_text()
