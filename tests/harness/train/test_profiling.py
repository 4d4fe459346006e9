"""What `trainer.profile` leaves in the run folder, and that it changes nothing else."""

import json

import pytest
import torch

from harness.device import choose_device
from harness.train import profiling
from tests.harness.toy import fit, lines


@pytest.mark.parametrize("settings", [{}, {"chunk": 1, "accumulate": 2}], ids=["plain", "accumulated chunks"])
def test_a_profile_is_a_table_and_a_trace_and_changes_no_number(tmp_path, settings, caplog):
    """Of the four steps of an epoch one is left out, two are timed and one is traced."""
    caplog.set_level("INFO")
    _, plain = fit(tmp_path / "plain", **settings)
    _, watched = fit(tmp_path / "watched", profile=True, **settings)
    assert torch.equal(plain.linear.weight, watched.linear.weight)
    assert lines(tmp_path / "plain") == lines(tmp_path / "watched")
    assert not (tmp_path / "plain" / "profile").exists()

    table = (tmp_path / "watched" / "profile" / "table.txt").read_text()
    assert table.startswith("2 steps on cpu")
    shown = {line.split()[0]: float(line.split()[1]) for line in table.split("\n\n")[0].splitlines()[2:]}
    assert list(shown) == [*profiling.PARTS, "rest", "step"]
    assert sum(shown.values()) == pytest.approx(2 * shown["step"], abs=0.01)
    assert all(value > 0 for value in shown.values())
    assert "aten::" in table
    assert table.split("\n\n")[0] in caplog.text

    events = json.loads((tmp_path / "watched" / "profile" / "trace.json").read_text())["traceEvents"]
    named = {event.get("name") for event in events}
    assert set(profiling.PARTS) <= named
    assert profiling._watching is None


def test_an_epoch_of_one_step_is_both_timed_and_traced_and_one_that_ends_early_is_let_go(tmp_path):
    profile = profiling.Profile(tmp_path, choose_device("cpu"))
    assert list(profile.watch([1])) == [1]
    assert (tmp_path / "trace.json").is_file()
    assert profile.steps == 1
    watching = profiling.Profile(tmp_path, choose_device("cpu")).watch([1, 2])
    assert [next(watching), next(watching)] == [1, 2]  # in the middle of the trace
    watching.close()
    assert profiling._watching is None
    assert list(profiling.Profile(tmp_path / "short", choose_device("cpu")).watch(iter(range(15)))) == list(range(15))
    assert (tmp_path / "short" / "table.txt").read_text().startswith("10 steps on cpu")  # though it told no length
    assert list(profiling.Profile(tmp_path / "none", choose_device("cpu")).watch(iter([1, 2]))) == [1, 2]
