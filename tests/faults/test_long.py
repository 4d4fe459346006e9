"""A run of thousands of steps and 500 evaluations holds at its end what it held after a fifth of it."""

import json
import os
import subprocess
import sys

import pytest
from commanded import COMMON, ROOT

pytestmark = pytest.mark.faults
STEPS = 4  # of an epoch of the stand-in data
MEMORY = ("loss.memory=gallery", "loss.memory_batches=3", "trainer.average=0.99")
CASES = {  # epochs, a multiple of the looks, and the run
    "memory, average and W&B": (1260, "demo_rambo", "trainer.evaluate_every=2", "tracking.wandb=offline", *MEMORY),
    "loading processes and TensorBoard": (500, "demo_regression", "workers=2", "tracking.tensorboard=true"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_long_run_grows_by_nothing_but_its_record(case, tmp_path):
    epochs, experiment, *words = CASES[case]
    words += [f"experiment={experiment}", *COMMON, "trainer.pictures=true"]
    script = ROOT / "tests" / "harness" / "long_run.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), str(epochs), *words],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    looks = json.loads(done.stdout.splitlines()[-1])
    print(looks[len(looks) // 5 - 1], looks[-1], sep="\n")
    fifth, last = looks[len(looks) // 5 - 1], looks[-1]
    assert last["step"] == epochs * STEPS
    # Of the processor, for another one may begin to use it meanwhile.
    pace = [looks[k + 3]["time"] - looks[k]["time"] for k in (3, len(looks) - 4)]
    for name in ("handles", "threads", "tasks", "files"):
        assert last[name] == fifth[name], name
    assert last["objects"] - fifth["objects"] < epochs // 10  # not one for every epoch
    assert last["bytes"] - fifth["bytes"] < 8e6
    assert last["saved"] - fifth["saved"] < 100 * epochs  # the history: a number for each split and epoch
    assert pace[1] < 1.5 * pace[0]
