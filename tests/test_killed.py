"""A few of the kills of tests/faults, as often as any other test."""

import pytest
from commanded import COMMON
from killing import Runs, differing, killed_and_gone_on_with

SMALL = ["experiment=demo_rambo", *COMMON, "data.sampler.batches_per_epoch=2"]
SMALL += ["tracking.wandb=disabled"]
KILLS = ["begin", "step", "saving", "linked"]


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_in_a_step_and_in_a_save_ends_as_the_uninterrupted_one(tmp_path):
    runs = Runs(tmp_path, [*SMALL, f"paths.data={tmp_path / 'data'}"])
    status, said = runs.make(tmp_path / "whole", {})
    assert status == 0, said
    faults = [{"at": kind, "nth": 1} for kind in KILLS]
    (killed,) = killed_and_gone_on_with(runs.make, tmp_path / "killed", faults)
    runs.close()
    assert differing(tmp_path / "whole", killed) == []
