"""A Python that imports what runs of train.py need, and then forks for each run: see `harness.study.execution`."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys


def serve(entry: str, *modules: str) -> None:
    """Until the input ends, does a run for each line of it, and prints a line with the exit code of each.

    Ctrl-C is for the run alone, and SIGTERM is passed on to it as Ctrl-C. `modules` are imported first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        run = os.fork()
        if run == 0:
            break
        signal.signal(signal.SIGTERM, lambda *_, run=run: os.kill(run, signal.SIGINT))
        code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print(code, flush=True)
    else:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, descriptor in ((os.devnull, 0), (output, 1), (output, 2)):
        os.dup2(os.open(name, os.O_RDWR | os.O_APPEND), descriptor)
    sys.argv, sys.path[0] = [entry, *arguments], os.path.dirname(entry)
    runpy.run_path(entry, run_name="__main__")
