"""W&B's own client against a server that fails, in runs from the command line: no number changes, no run ends.

How the client is used, with a pretended one and in less time: tests/harness/train/test_mirrors.py.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commanded import run, words
from killing import differing, lines
from wandb_server import serving

pytest.importorskip("wandb")
pytestmark = pytest.mark.faults
ONLINE = ("tracking.wandb=online", "trainer.epochs=4", "trainer.pictures=false")
INIT, FINISH = 30, 30  # seconds; a client takes long to begin on a busy machine
LIMITS = {"WANDB_INIT_TIMEOUT": str(INIT), "WANDB_FINISH_TIMEOUT": str(FINISH)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run without W&B, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run("demo_regression", folder, *ONLINE, "tracking.wandb=disabled")
    started = time.perf_counter()
    run("demo_regression", folder.with_name("again"), *ONLINE, "tracking.wandb=disabled")
    return folder, time.perf_counter() - started


def is_as_alone(folder, alone, seconds):
    """The same numbers, in a time that W&B may cost."""
    assert [name for name in differing(alone[0], folder) if not name.startswith("wandb")] == []
    assert seconds < 2 * alone[1] + INIT + FINISH + 30  # the client's own start, and that of a service offline


def service_of(process):
    """The process of W&B's service that another one has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            started_by = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if started_by == process and b"wandb-core" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:  # it has ended
            continue
    return None


def steps(folder):
    return {line["step"] for line in lines(folder)}


def test_a_server_that_answers_gets_every_line(tmp_path, alone):
    with serving() as server:
        said = run("demo_regression", tmp_path / "run", *ONLINE, environment=server.environment)
    is_as_alone(tmp_path / "run", alone, 0)
    assert {line["_step"] for line in server.history} == steps(tmp_path / "run")
    assert "wandb sync" not in said


@pytest.mark.parametrize("answer", [401, 403, 404, 429, 500, "garbage", "silence", "slow", "nobody"])
def test_a_server_that_does_not_take_a_run_changes_nothing_of_it(answer, tmp_path, alone):
    with serving("fine" if answer == "slow" else answer, 2 * INIT if answer == "slow" else 0) as server:
        environment = server.environment | LIMITS
        if answer == "nobody":
            with socket.create_server(("127.0.0.1", 0)) as free:
                environment["WANDB_BASE_URL"] = f"http://127.0.0.1:{free.getsockname()[1]}"
        started = time.perf_counter()
        said = run("demo_regression", tmp_path / "run", *ONLINE, environment=environment)
        is_as_alone(tmp_path / "run", alone, time.perf_counter() - started)
    assert ("look at WANDB_API_KEY, or run `wandb login" in said) == (answer in (401, 403))
    assert_can_be_sent(said, tmp_path / "run")


def assert_can_be_sent(said, folder):
    """What a run says is to be sent brings every line of it to a server that answers."""
    command = said.split("to send it: ")[1].splitlines()[0].split()
    assert command[:2] == ["wandb", "sync"]
    with serving() as server:
        subprocess.run(
            [sys.executable, "-m", "wandb", *command[1:]], env=os.environ | server.environment, check=True, timeout=120,
            capture_output=True, cwd=folder.parent,
        )  # fmt: skip
    assert {line["_step"] for line in server.history} == steps(folder)


@pytest.mark.parametrize("then", [401, 404, 500, "garbage", "silence", "killed", "stopped"])
def test_what_fails_in_the_middle_changes_nothing(then, tmp_path, alone):
    folder = tmp_path / "run"
    with serving() as server:
        command = words("demo_regression", folder, *ONLINE)
        environment = os.environ | server.environment | LIMITS
        started = time.perf_counter()
        # Into a file: a stopped service would keep a pipe open.
        with (tmp_path / "said").open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

        def fail():
            while not (folder / "checkpoints" / "best_on_test.pt").exists() and process.poll() is None:
                time.sleep(0.02)
            if then in ("killed", "stopped"):
                os.kill(service := service_of(process.pid), signal.SIGKILL if then == "killed" else signal.SIGSTOP)
                stopped.append(service)
            else:
                server.answer = then

        stopped = []
        threading.Thread(target=fail).start()
        try:
            process.wait(timeout=300)
        finally:
            process.kill()
            if then == "stopped":
                os.kill(stopped[0], signal.SIGKILL)
    said = (tmp_path / "said").read_text()
    assert process.returncode == 0, said
    is_as_alone(folder, alone, time.perf_counter() - started)
    assert "Traceback" not in said
    if then == "stopped":  # it has not even written what it was given
        assert "to send it: wandb sync" in said
    else:
        assert_can_be_sent(said, folder)


def test_a_folder_that_wandb_cannot_write_changes_nothing(tmp_path, alone):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").write_text("in the way")
    with serving() as server:
        said = run("demo_regression", tmp_path / "run", *ONLINE, environment=server.environment | LIMITS)
    is_as_alone(tmp_path / "run", alone, 0)
    assert "Traceback" not in said
