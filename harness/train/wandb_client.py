"""W&B's client: whether and how it is used, what it may cost, and how a run goes on without its server."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from requests.utils import get_netrc_auth

from harness.files import from_json, read_json, write_text
from harness.interrupts import is_interrupt
from harness.record.runs import METRICS

log = logging.getLogger(__name__)
WANDB_MODES = ("auto", "online", "offline", "disabled")
INIT_SECONDS, FINISH_SECONDS = 30.0, 120.0  # for which W&B is waited for
# What its service writes where a server refused something; of these two nothing of the run depends on the second, and
# what the first tells is tried again.
UNSENT = re.compile(r'"level":"ERROR.*"msg":"(?!api: HTTP error|stream: failed to shut down analytics)')


def wandb_mode(wanted: str) -> str:
    """Resolves `auto`, and `online` where nobody is logged in: W&B would ask on a terminal and hold up the run."""
    if wanted == "auto":
        chosen = os.environ.get("WANDB_MODE", "").lower()
        wanted = chosen if chosen in WANDB_MODES else "auto"
    if wanted in ("offline", "disabled"):
        return wanted
    keys = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    if keys or get_netrc_auth(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"):
        return "online"
    if wanted == "online":
        log.warning(
            "nobody is logged in to W&B, so this run is recorded offline; run `wandb login` or set WANDB_API_KEY"
        )
    return "offline"


class Client:
    """W&B's client in one thread; any call may take long, or for ever."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], project: str, name: str | None, init: float, finish: float | None
    ) -> None:
        self.folder, self.config, self.project, self.name = folder, config, project, name
        self.limits = {"init_timeout": init, "finish_timeout": finish or 0.0, "finish_timeout_raises": True}
        self.mode = ""
        self.wandb: Any = None
        self.run: Any = None
        self.finished = False
        self.unsent: list[Path] = []  # folders that W&B can be sent later

    def begin(self, mode: str) -> None:
        """Begins a run, offline if the server cannot be used; raises what the client does if that fails too."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else its telemetry may wait 20 s for a dead server
        import wandb

        self.wandb = wandb
        try:
            self._begin(mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._go_offline(error)

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Shows the numbers of a step."""
        self.run.log(numbers, step=step)

    def image(self, name: str, path: Path, step: int) -> None:
        """Shows a picture."""
        with harmless(f"the picture {name} is not in W&B"):
            self.run.log({name: self.wandb.Image(str(path))}, step=step)

    def model(self, folder: Path, aliases: list[str]) -> None:
        """Keeps a model as an artifact."""
        facts = read_json(folder / "model.json")
        told = {key: facts.get(key) for key in ("task", "checkpoint", "epoch", "metrics", "run")}
        with harmless("the model is no artifact"):
            artifact = self.wandb.Artifact(f"model-{self.run.id}", type="model", metadata=told)
            artifact.add_dir(str(folder))
            self.run.log_artifact(artifact, aliases=aliases)

    def close(self, exit_code: int, broken: bool = False) -> None:
        """Finishes the run, and finds out whether the server took it.

        If the client is `broken`, or breaks now, nobody knows what of the run it kept, so metrics.jsonl is recorded
        anew, offline.
        """
        if self.run is None:
            return
        try:
            self.run.finish(exit_code=exit_code)
            if self.mode == "online" and self._has_errors():
                self._note_unsent()
        except TimeoutError as error:
            log.warning("W&B did not finish (%s)", brief(error))
            self._note_unsent()
        except Exception as error:
            log.warning("W&B did not finish (%s)", brief(error))
            broken = True
        if broken:
            self._record_anew(exit_code)
        self.finished = True
        if self.wandb.run in (None, self.run):  # else somebody has another run in this process
            self._end_service()

    def give_up(self) -> None:
        """From another thread, if a call hangs: nothing at the end of the process shall wait for the service."""
        if self.run is None:
            log.warning("W&B has not begun in time; metrics.jsonl has everything")
        else:
            log.warning("W&B does not answer, and is not waited for any longer")
            if not self.finished:
                self._note_unsent()
        if self.wandb is not None:
            ending = threading.Thread(target=self._end_service, daemon=True)
            ending.start()
            ending.join(1)

    def _begin(self, mode: str) -> None:
        identity = self.folder / "wandb_id.txt"  # a resumed run goes on in the same W&B run
        if not identity.exists():
            write_text(identity, uuid.uuid4().hex[:12])
        settings = self.wandb.Settings(silent=True, console="off")
        for name, value in self.limits.items():
            if hasattr(settings, name):  # those of finish: newer versions only
                setattr(settings, name, value)
        with _keys_hidden():
            self.run = self.wandb.init(
                project=self.project, name=self.name, id=identity.read_text().strip(), resume="allow",
                dir=str(self.folder), config=dict(self.config), mode=mode, settings=settings,
            )  # fmt: skip
        self.mode = mode

    def _go_offline(self, error: Exception) -> None:
        """Begins anew, offline: the service keeps a run that failed, so it is ended first."""
        said = brief(error)
        refused = re.search(r"\b40[13]\b|api.?key|authenti", said, re.IGNORECASE)
        way = "; look at WANDB_API_KEY, or run `wandb login --relogin`" if refused else ""
        log.warning("W&B cannot be used (%s): the run is recorded offline for it%s", said, way)
        self._end_service()
        self._begin("offline")
        self._note_unsent()

    def _record_anew(self, exit_code: int) -> None:
        self._end_service()
        self._begin("offline")
        for line in (self.folder / METRICS).read_text().splitlines():
            numbers = {name: value for name, value in from_json(line).items() if value is not None}
            self.run.log(numbers, step=numbers.pop("step"))
        self.run.finish(exit_code=exit_code)
        self.unsent = [self._kept()]

    def _kept(self) -> Path:
        """Where the client keeps what it was given, until it is sent."""
        return Path(self.run.dir).parent

    def _note_unsent(self) -> None:
        if self._kept() not in self.unsent:
            self.unsent.append(self._kept())

    def _has_errors(self) -> bool:
        """Whether the service has met a server that refused some of it; `finish` does not tell."""
        with suppress(OSError), (self._kept() / "logs" / "debug-internal.log").open(errors="replace") as file:
            return any(UNSENT.search(line) for line in file)
        return False

    def _end_service(self) -> None:
        with suppress(Exception, SystemExit):  # of a service that is gone already, too
            self.wandb.teardown()


def wandb_seconds() -> tuple[float, float | None]:
    """How long W&B is waited for at the start and at the end; None: as long as it takes.

    Its own variables WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT go before `INIT_SECONDS` and `FINISH_SECONDS`; 0 of
    the latter is None.

    Raises:
        ValueError: If one of them is no number of seconds.
    """
    found = []
    for variable, usual in (("WANDB_INIT_TIMEOUT", INIT_SECONDS), ("WANDB_FINISH_TIMEOUT", FINISH_SECONDS)):
        given = os.environ.get(variable) or usual
        try:
            found.append(float(given))
        except ValueError:
            found.append(math.nan)
        if not 0 <= found[-1] < math.inf:
            raise ValueError(f"the environment variable {variable} must be a number of seconds, got {given!r}")
    return found[0], found[1] or None


def brief(error: BaseException) -> str:
    """What went wrong, on one line."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return said if len(said) <= 300 else f"{said[:300]}..."


@contextmanager
def harmless(said: str) -> Iterator[None]:
    """A mirror is a convenience: whatever goes wrong in it costs a warning, and never the run."""
    try:
        yield
    except Exception as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        log.warning("%s (%s); metrics.jsonl has everything", said, brief(error))


@contextmanager
def _keys_hidden() -> Iterator[None]:
    """Inside, variables of Slurm that are keys, as SLURM_JWT, are gone: W&B records whatever Slurm has set."""
    keys = re.compile("SLURM.*(JWT|KEY|TOKEN|SECRET|PASS)")
    hidden = {name: value for name, value in os.environ.items() if keys.match(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
