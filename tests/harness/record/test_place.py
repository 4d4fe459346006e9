"""A folder that cannot be written is told before Hydra makes it; a log that cannot be written ends nothing."""

import logging
import os
import stat
import subprocess
import sys

import pytest
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from harness.record import place
from harness.record.composition import CONFIGS
from harness.record.reproducibility import CODE


def begun(way, folder):
    """The folder is called by a choice, as in train.yaml, which Hydra alone knows."""
    setup_globals()
    named = f"{folder.parent}/${{hydra:runtime.choices.experiment}}"
    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    config.hydra.run.dir = config.hydra.sweep.dir = named
    config.hydra.runtime.choices = {"experiment": folder.name}
    before = HydraConfig.instance().cfg
    getattr(place.Writable(), way)(config)
    assert HydraConfig.instance().cfg is before


@pytest.mark.parametrize("way", ["on_run_start", "on_multirun_start"])
def test_a_folder_that_can_be_written_is_made(tmp_path, way):
    begun(way, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("way", ["on_run_start", "on_multirun_start"])
def test_a_file_in_the_way_is_told_in_a_sentence(tmp_path, way):
    (tmp_path / "a").touch()
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(SystemExit, match=r"error: .*a.*a file is where a folder is wanted"):
            begun(way, folder)


@pytest.mark.parametrize("which", ["folder", "log"])
def test_a_place_that_may_not_be_written_is_told_in_a_sentence(tmp_path, monkeypatch, which):
    """Asked of the system, which knows of read-only file systems too; root may write whatever the mode says."""
    (tmp_path / "train.log").touch()
    refused = tmp_path if which == "folder" else tmp_path / "train.log"
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused)
    with pytest.raises(SystemExit, match=rf"error: {refused}: it cannot be written; choose a folder"):
        begun("on_run_start", tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_the_mode_of_a_folder_counts(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(SystemExit, match=r"error: .*Permission denied; choose a folder"):
            begun("on_run_start", tmp_path / "run")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.slow
@pytest.mark.parametrize("many", [[], ["-m"]])
def test_train_py_tells_of_it_in_one_sentence(tmp_path, many):
    (tmp_path / "outputs").touch()
    words = [*many, "experiment=demo_rambo", "scale=fixture", f"paths.outputs={tmp_path / 'outputs'}"]
    done = subprocess.run([sys.executable, "train.py", *words], cwd=CODE, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'outputs'}")
    assert done.stderr.count("\n") == 1
    assert "a file is where a folder is wanted" in done.stderr


def test_both_are_what_train_py_is_configured_with():
    hydra = OmegaConf.load(CONFIGS / "train.yaml").hydra
    assert hydra.callbacks.place._target_ == f"{place.__name__}.{place.Writable.__name__}"
    assert hydra.job_logging.handlers.file["class"] == f"{place.__name__}.{place.LogFile.__name__}"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_under_the_log_costs_one_warning(tmp_path, capsys, caplog):
    (tmp_path / "train.log").symlink_to("/dev/full")
    handler = place.LogFile(tmp_path / "train.log")
    log = logging.getLogger("under test")
    log.addHandler(handler)
    try:
        for _ in range(3):
            log.warning("said")
    finally:
        log.removeHandler(handler)
        with pytest.raises(OSError, match="No space left"):
            handler.close()
    assert caplog.text.count("has not all of the log: No space left on device") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_in_what_is_logged_is_still_shown(tmp_path, capsys):
    handler = place.LogFile(tmp_path / "train.log")
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "%d", ("no number",), None))
    handler.close()
    assert "TypeError" in capsys.readouterr().err
