import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from harness.record.composition import CONFIGS, composed, composed_for_seeds


def test_the_config_is_the_one_that_hydra_makes():
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        expected = compose("train", ["experiment=demo_rambo", "seed=3", "loss.margin=0.3"])
    assert composed(["experiment=demo_rambo", "seed=3", "loss.margin=0.3"]) == OmegaConf.to_container(
        expected, resolve=True
    )


def test_seeds_at_once_are_the_same_as_one_by_one():
    by_seed = composed_for_seeds(["experiment=demo_rambo"], range(2))
    assert by_seed == {seed: composed(["experiment=demo_rambo", f"seed={seed}"]) for seed in range(2)}
    assert by_seed[1]["data"]["seed"] == 1  # also where it is taken over


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("experiment=cab", "experiment=cab: there is no experiment cab; choose from agedb_ranksim, "),
        ("loss=none", "there is no loss none; choose from average_precision, "),
        ("los.margin=1", "los.margin=1: there is no key los.margin; did you mean loss.margin or recall.margin?"),
        ("+loss.margin=${nowhere}", "nowhere"),
    ],
)
def test_a_choice_that_does_not_exist_is_told_with_those_that_do(override, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        composed(["experiment=demo_rambo", override] if "experiment" not in override else [override])
    assert "\n" not in str(error.value)


def test_a_folder_without_configs_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no configs in .* \(train.yaml is missing\)"):
        composed([], tmp_path)
