import itertools
import logging
import re
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from torch.utils.data import DataLoader, Dataset

from harness.record import command_line
from harness.record.command_line import PLUGINS, interrupted, refusal
from harness.record.faults import sentence, told

CONFIGS = Path(__file__).parents[3] / "configs"


def chained(*errors):
    """The first error, caused by the second, and so on."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


class Unreadable(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise OSError(f"image {index}.jpg cannot be read")


def test_the_wrapping_of_a_constructor_error_is_taken_off():
    assert (
        sentence(chained(InstantiationException("Error in call to target"), ValueError("margin is -1")))
        == "margin is -1"
    )
    assert sentence(ValueError("plain")) == "plain"


def test_a_missing_extra_is_named_however_deep_it_is_wrapped():
    missing = ModuleNotFoundError("No module", name="pytorch_metric_learning")
    error = chained(InstantiationException("Error"), ImportError("Error loading"), missing)
    assert 'pip install "blackbox-ranking[peers]"' in sentence(error)


def test_an_error_in_a_loading_process_is_its_last_line():
    batches = iter(DataLoader(Unreadable(), num_workers=1))
    with pytest.raises(OSError, match="Original Traceback") as raised:
        next(batches)
    assert sentence(raised.value) == "image 0.jpg cannot be read"


def test_a_command_line_without_experiment_is_answered_with_the_choices():
    for arguments in ([], ["seed=1"], ["-m", "seed=1,2"]):
        assert "cub_rambo " in refusal(arguments, CONFIGS)
    assert refusal(["experiment=cub_rambo"], CONFIGS) is None


def test_help_names_the_groups_and_what_each_key_means():
    overview = refusal(["--help"], CONFIGS)
    assert "regularizer=conr, none, rank_n_contrast, ranksim" in overview
    assert "workers=4   processes that load images" in overview
    keys = refusal(["experiment=cub_rambo", "loss.margin=0.07", "--help"], CONFIGS)
    assert "loss.margin=0.07   Taken from the scores of relevant items" in keys  # of the loss that the config names
    assert "/cub   Folder of the data." in keys  # of a parent of the class
    assert "trainer.clip_norm=null   Largest gradient norm" in keys
    assert "did you mean cub_rambo" in refusal(["experiment=cub_rmbo", "--help"], CONFIGS)


def test_every_setting_of_every_experiment_says_what_it_means():
    silent = set()
    for path in sorted((CONFIGS / "experiment").glob("*.yaml")):
        for line in refusal([f"experiment={path.stem}", "--help"], CONFIGS).splitlines():
            key, _, meaning = line.strip().partition("   ")
            if line.startswith("  ") and not line.startswith("      ") and re.match(r"$|(As in|See) `", meaning):
                silent.add(key.partition("=")[0])
    assert silent == set()


def test_processes_that_were_started_together_make_no_sweep(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal(["experiment=cub_rambo"], CONFIGS) is None
    assert "2 processes were started together" in refusal(["-m", "experiment=cub_rambo", "seed=0,1"], CONFIGS)


def test_a_launcher_that_is_not_installed_is_told_with_its_package(monkeypatch):
    monkeypatch.setattr(command_line, "_is_installed", lambda package: False)
    for name, package in (("ray", "hydra-ray-launcher"), ("joblib", '"blackbox-ranking[sweeps]"')):
        said = refusal(["-m", "experiment=demo_rambo", f"hydra/launcher={name}"], CONFIGS)
        assert said == f"error: hydra/launcher={name} needs hydra-{name}-launcher; run: pip install {package}"


def test_an_error_in_somebodys_code_is_told_with_its_place_and_its_trace_is_kept(tmp_path, monkeypatch):
    log = logging.FileHandler(tmp_path / "train.log")
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    theirs = tmp_path / "my_loss.py"
    theirs.write_text("def forward():\n    return 1 + 'a'\n")
    space = {}
    exec(compile(theirs.read_text(), str(theirs), "exec"), space)
    try:
        space["forward"]()
    except TypeError as error:
        said = told(error)
    assert said.startswith("TypeError: unsupported operand")
    assert "my_loss.py, line 2" in said
    assert f"the trace is in {tmp_path / 'train.log'}" in said
    log.close()
    assert "Traceback" in (tmp_path / "train.log").read_text()


def test_resuming_nothing_is_refused_before_a_folder_is_made(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0")
    assert refusal(["experiment=cub_rambo", f"resume={tmp_path}"], CONFIGS) is None
    assert "no run there" in refusal(["experiment=cub_rambo", f"resume='{tmp_path}/x'"], CONFIGS)
    assert refusal(["experiment=cub_rambo", "resume=null"], CONFIGS) is None


CHOICES = {
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "+sweep=search_rambo": "hydra-optuna-sweeper",
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("around", [True, False])
def test_a_missing_plugin_is_answered_with_what_to_install(choice, around, monkeypatch):
    """Whether other plugins are there, so that the package around them exists, or none is."""
    for module in {f"hydra_plugins.{name.replace('-', '_')}" for name in PLUGINS.values()}:
        monkeypatch.setitem(sys.modules, module, None)
        if not around:
            monkeypatch.delitem(sys.modules, module)
            monkeypatch.setitem(sys.modules, "hydra_plugins", None)
    said = refusal(["-m", "experiment=cub_rambo", choice], CONFIGS)
    assert choice.partition("=")[2] in said
    assert said.endswith(f'needs {CHOICES[choice]}; run: pip install "blackbox-ranking[sweeps]"')
    assert refusal(["-m", "experiment=cub_rambo", "+sweep=seeds", "hydra/launcher=basic"], CONFIGS) is None


@pytest.mark.parametrize("choice", CHOICES)
def test_a_plugin_that_is_there_is_used(choice):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert refusal(["-m", "experiment=cub_rambo", choice], CONFIGS) is None


def test_an_interrupted_sweep_is_told_how_to_go_on():
    assert "the same command with reuse=true" in interrupted(["-m", "experiment=cub_rambo"])
    assert "still running" not in interrupted(["-m", "experiment=cub_rambo"])
    assert "jobs that were submitted are still running" in interrupted(["-m", "hydra/launcher=submitit_slurm"])
