"""Runs of train.py one after the other, each in a Python of its own or several in one.

The latter is for runs so short that importing torch would take longest, such as those on stand-in data. Each line of
the input of such a Python is a list of arguments in JSON; what a run prints is followed by a line that ends it, with
the exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

END = "\x1e run ended with code "


class InTurn:
    """Starts the Pythons; another one should the last have died.

    Args:
        entry: The path of train.py.
        environment: Of the processes.
        fresh: Whether each run has one of its own.
    """

    def __init__(self, entry: Path, environment: dict[str, str], fresh: bool = False) -> None:
        self.entry, self.environment, self.fresh = entry, environment, fresh
        self.process: subprocess.Popen[str] | None = None

    def run(self, arguments: Sequence[str], hear: Callable[[str], None]) -> int:
        """Runs train.py with these arguments; `hear` receives every line that it prints.

        Returns:
            The exit code.
        """
        if self.fresh:
            with self._started([str(self.entry), *arguments]) as process:
                for line in process.stdout or ():
                    hear(line)
            return process.returncode
        if self.process is None or self.process.poll() is not None:
            self.process = self._started(["-m", "harness.study.in_turn", str(self.entry)], stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(list(arguments)) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout or ():
            if line.startswith(END):
                return int(line.removeprefix(END))
            hear(line)
        return self.process.wait() or 1  # it died

    def _started(self, arguments: Sequence[str], stdin: int | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.entry.parent,
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def close(self) -> None:
        """Ends the Python that several runs share."""
        if self.process is not None:
            self.process.communicate()
            self.process = None


def run_once(entry: str, arguments: Sequence[str]) -> int:
    """What the command `python entry arguments` does, in this process; returns its exit code."""
    sys.argv = [entry, *arguments]
    try:
        runpy.run_path(entry, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Serves until the input ends."""
    entry = sys.argv[1]
    sys.path.insert(0, os.path.dirname(entry))
    for line in sys.stdin:
        code = run_once(entry, json.loads(line))
        sys.stderr.flush()
        print(f"\n{END}{code}", flush=True)


if __name__ == "__main__":
    main()
