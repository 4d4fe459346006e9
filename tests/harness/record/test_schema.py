"""Values of a wrong type, and settings that nothing takes, are told by their keys before anything is built."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from harness.record import schema
from harness.record.composition import CONFIGS, compose

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_fits_its_constructors(experiment):
    for scale in ([], ["scale=fixture"]):
        schema.check(compose([f"experiment={experiment}", *scale]))


@pytest.mark.parametrize("group", ["weighting", "lds", "fds", "regularizer", "stages", "optimizer", "scheduler"])
def test_every_choice_of_a_group_fits(group):
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        schema.check(compose(["experiment=demo_regression", f"{group}={path.stem}"]))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["trainer.epochs=abc"], "trainer.epochs: wanted int, got 'abc'"),  # and not scheduler.T_max, which follows it
        (["trainer.epochs=true"], "trainer.epochs: wanted int, got True"),
        (["seed=abc", "loss.margin=x"], "seed: wanted int, got 'abc'; loss.margin: wanted float, got 'x'"),
        (["data.sampler.samples_per_class=1.5"], "data.sampler.samples_per_class: wanted int, got 1.5"),
        (["trainer.splits=test"], "trainer.splits: wanted list of str or null, got 'test'"),
        (["metrics.recall_at=[a]"], "metrics.recall_at: wanted list of int, got ['a']"),
        (["trainer.pictures=3"], "trainer.pictures: wanted bool, got 3"),
        (["+loss.marign=1"], "loss.marign: rambo.objective.RetrievalObjective takes no marign; did you mean margin?"),
        (["+optimizer.foo=1"], "optimizer.foo: torch.optim.AdamW takes no foo; there are amsgrad, betas, "),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(overrides, says):
    with pytest.raises(ValueError, match=r"wanted|takes no") as raised:
        schema.check(compose(["experiment=demo_rambo", *overrides]))
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (3, float, True), (True, float, False), (True, int, False), (3.0, int, False), (None, int | None, True),
        ("a", Path, True), (3, str | Path, False), ([1, 2], tuple[int, int], True), ([1], tuple[int, int], False),
        ([1, 2, 3], tuple[int, ...], True), (["a"], Sequence[float], False), ("ab", Sequence[str], False),
        ({"a": 1}, int, False), ({"_target_": "x"}, int, True), ({"a": 1}, dict[str, int], True), ("b", Any, True),
        ("b", Callable[[], int], False), ("c", Literal["a", "b"], True), (3, Literal["a", "b"], False),
    ],
)  # fmt: skip
def test_what_fits_a_type(value, hint, fits):
    assert schema.fits(value, hint) is fits
