"""Where a run is to be written: asked before Hydra makes the folder, and a log that cannot end the run."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from harness import disk, distributed

log = logging.getLogger(__name__)


class Writable(Callback):
    """Makes the folder of a run or of a sweep, and ends the command with one sentence where it cannot be written."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Looks at the folder of the run."""
        _check(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Looks at the folder of the sweep, below which its runs are."""
        _check(config, "hydra.sweep.dir")


def _check(config: DictConfig, key: str) -> None:
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        hydra.set_config(config)  # as Hydra does next: its folder may be called by what is chosen
        folder = Path(OmegaConf.select(config, key))
    finally:
        hydra.cfg = before
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.glob("train.log")):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, "it cannot be written", str(path))
    except OSError as error:
        said = f"error: {disk.sentence(error) or error}"
        raise SystemExit(said if distributed.is_first_started() else 1) from None


class LogFile(logging.FileHandler):
    """The log of a run in its folder: where it cannot be written any more, that costs one warning and not the run."""

    told = False

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Warns once of what the disk does; anything else is a fault of whoever logs."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.told:
            self.told = True
            log.warning("%s has not all of the log: %s", self.baseFilename, error.strerror)
