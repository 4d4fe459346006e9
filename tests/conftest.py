"""No test sees or touches what belongs to the user: outputs/, data/, accounts, settings of the environment."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
# What the project, or a library that it uses, takes from the environment.
OF_THE_USER = ("WANDB_", "RANKING_", "HYDRA_", "HF_", "TORCH_", "XDG_")
NAMED = ("NETRC", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "MPLBACKEND", "SEEDS", "SCALE")


def leave_home():
    """A home and folders of the tests' own, for this process and those that it starts, pytest-xdist's among them."""
    for name in list(os.environ):
        if name.startswith(OF_THE_USER) or name in NAMED:
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="tests_home_"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {
        "HOME": str(home),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "RANKING_DATA": str(home / "data"),
        "RANKING_OUTPUTS": str(home / "outputs"),
        "WANDB_MODE": "disabled",  # tests of tracking choose a mode themselves
    }


if "PYTEST_XDIST_WORKER" not in os.environ:
    leave_home()
# A busy machine must not fail a test by its slowness; in CI the same examples are tried every time.
settings.register_profile(
    "ours", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("ours")


def belongings():
    """Every file of the user's folders, and when it was written."""
    files = [path for name in ("outputs", "data") for path in (ROOT / name).rglob("*")]
    return {str(path.relative_to(ROOT)): path.lstat().st_mtime_ns for path in files}


def pytest_collection_modifyitems(items):
    """What forks first, then the longest.

    A process in which a test has started autograd's threads cannot be forked any more. And one process would end
    with the longest while the other has nothing left to do.
    """
    items.sort(key=lambda item: (not hasattr(item.module, "processes"), item.get_closest_marker("longest") is None))


def pytest_sessionstart(session):
    session.config.stash_of_belongings = belongings()


def pytest_sessionfinish(session):
    before, now = session.config.stash_of_belongings, belongings()
    touched = sorted(name for name in before | now if before.get(name) != now.get(name))
    if touched and "PYTEST_XDIST_WORKER" not in os.environ:
        session.config.touched = touched
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter, config):
    if touched := getattr(config, "touched", None):
        terminalreporter.section("tests touched the user's folders", red=True)
        terminalreporter.line(f"{len(touched)} files were written or removed meanwhile, such as {touched[0]}")


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    """Makes each run of an experiment once for a module, on stand-in data for one epoch; returns its folder."""
    from hydra import compose, initialize_config_dir

    import train

    made = {}

    def run(experiment, *overrides):
        if (experiment, overrides) not in made:
            folder = tmp_path_factory.mktemp("place")
            common = ("scale=fixture", "workers=0", "threads=1", "trainer.device=cpu", f"paths.data={folder / 'data'}")
            common += ("trainer.epochs=1", "trainer.pictures=false", "trainer.evaluate_first=false")
            with initialize_config_dir(str(train.CONFIGS), version_base="1.3"):
                config = compose("train", [f"experiment={experiment}", *common, *overrides])
            train.train(config, folder / "run", experiment, list(overrides))
            made[experiment, overrides] = folder / "run"
        return made[experiment, overrides]

    return run
