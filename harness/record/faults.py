"""What a user is told of an error: a sentence, and of what is no answer of ours the place and the trace."""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from harness import disk
from harness.data.loading import explained
from harness.files import shown
from harness.record.reproducibility import CODE

ANSWERS = (ValueError, OSError, ImportError, OmegaConfBaseException, HydraException)  # kinds that our sentences have
OWN = ("harness", "rambo", "ranksim", "train.py")
IN_A_WORKER = "Original Traceback"  # torch tells an error in a loading process so


def sentence(error: BaseException) -> str:
    """The message of the error that a constructor or a loading process raised, without what was wrapped around it."""
    causes = _causes(error)
    if (lost := explained(causes[0])) is not None:
        return str(lost)
    if any(isinstance(e, ModuleNotFoundError) and e.name == "pytorch_metric_learning" for e in causes):
        return 'this loss comes from pytorch-metric-learning; run: pip install "blackbox-ranking[peers]"'
    if (of_disk := disk.sentence(causes[0])) is not None:
        return of_disk
    message = str(causes[0])
    return message.strip().splitlines()[-1].partition(": ")[2] if IN_A_WORKER in message else message


def told(error: BaseException) -> str:
    """`sentence`, and for what is no answer of ours, as a fault in somebody's own loss, its kind, place and trace.

    The trace goes into the log file of the run in any case.
    """
    log, first = _logged(error), _causes(error)[0]
    file, line = _raised_at(first)
    known = explained(first) is not None or disk.sentence(first) is not None
    own = type(first).__module__.partition(".")[0] in OWN or known
    if own or (isinstance(first, ANSWERS) and _is_ours(file)):
        return sentence(error)
    place = f" ({shown(file)}, line {line})" if file else ""
    where = f"; the trace is in {log}" if log else "; HYDRA_FULL_ERROR=1 shows the trace"
    return f"{type(first).__name__}: {' '.join(sentence(error).split())}{place}{where}"


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it, without what Hydra wrapped around it."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return [cause for cause in causes if not isinstance(cause, InstantiationException)] or [error]


def _raised_at(error: BaseException) -> tuple[str, int]:
    """File and line, of an error in a loading process as its message tells them."""
    if IN_A_WORKER in str(error) and (told := re.findall(r'File "(.+?)", line (\d+)', str(error))):
        return told[-1][0], int(told[-1][1])
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)


def _is_ours(file: str) -> bool:
    """Whether an error raised in `file` is a sentence for the user: in our code, or in what reads the config."""
    path = Path(file)
    own = path.is_relative_to(CODE) and path.relative_to(CODE).parts[0] in OWN
    return own or not file or bool({"hydra", "omegaconf"} & set(path.parts))


def _logged(error: BaseException) -> str | None:
    """Writes the trace into the log files and not on the console; returns the name of the file."""
    files = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    trace = (type(error), error, error.__traceback__)
    for handler in files:
        handler.handle(logging.LogRecord("train", logging.ERROR, __file__, 0, "it ended with an error", (), trace))
    return shown(files[0].baseFilename) if files else None
