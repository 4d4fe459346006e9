"""Runs train.py and ends the process, or sends it a signal, at a chosen call: python dying.py FAULT ARGUMENT ...

FAULT is JSON: `at`, one of what `watch` names, and `nth`, which of these calls, or `after`, seconds; `number` of the
signal, `times` that it is sent, `group` if to all processes, `rank` of the process that is meant; `cores` that there
seem to be. With `count`, a path, nothing happens and the number of calls of each kind is written there.
"""

import functools
import io
import json
import os
import runpy
import signal
import sys
import threading
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Fault:
    """The fault of this process, and the calls so far of each kind."""

    def __init__(self, wanted):
        self.wanted, self.calls = wanted, {}
        self.own = wanted.get("rank") in (None, int(os.environ.get("RANK", "0")))

    def next(self, kind):
        """Whether the next call of this kind is the one."""
        self.calls[kind] = self.calls.get(kind, 0) + 1
        return self.own and kind == self.wanted.get("at") and self.calls[kind] == self.wanted["nth"]

    def strike(self):
        number = self.wanted.get("number", signal.SIGKILL)
        for _ in range(self.wanted.get("times", 1)):
            if self.wanted.get("group"):
                os.killpg(0, number)
            else:
                os.kill(os.getpid(), number)

    def around(self, owner, name, before=None, after=None):
        """Lets calls of `owner.name` count as `before` when they begin, and as `after` when they end."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*given, **named):
            if before and self.next(before):
                self.strike()
            result = real(*given, **named)
            if after and self.next(after):
                self.strike()
            return result

        setattr(owner, name, watched)


def watch(fault):
    """Counts what a run does, in the main process of each rank."""
    import torch

    from harness.record import runs, standalone
    from harness.train.evaluation import Evaluation
    from harness.train.step import Step
    from harness.train.tracking import Tracker
    from harness.train.training import Training

    fault.around(Step, "__call__", before="step")
    fault.around(Training, "_update", after="updated")
    fault.around(Training, "finish_epoch", after="epoch")
    fault.around(Evaluation, "run", before="evaluation", after="evaluated")
    fault.around(standalone, "begin", before="begin")
    fault.around(runs, "finish", before="finish")
    fault.around(os, "fsync", after="synced")
    fault.around(os, "replace", before="replace", after="replaced")
    fault.around(os, "link", before="link", after="linked")
    fault.around(Path, "unlink", after="removed")
    save, log = torch.save, Tracker.log

    def half(state, file, **named):
        if named:  # no checkpoint: what processes send each other
            return save(state, file, **named)
        whole = io.BytesIO()
        save(state, whole)
        middle = len(whole.getvalue()) // 2
        file.write(whole.getvalue()[:middle])
        file.flush()
        if fault.next("saving"):
            fault.strike()
        file.write(whole.getvalue()[middle:])
        return None

    def cut_off(self, numbers, step):
        if fault.next("line"):
            with self.file.open("a") as file:
                file.write('{"step": ')
            fault.strike()
        log(self, numbers, step)

    torch.save, Tracker.log = half, cut_off


def main():
    wanted = json.loads(sys.argv[1])
    fault = Fault(wanted)
    watch(fault)
    if fault.own and "after" in wanted:
        clock = threading.Timer(wanted["after"], fault.strike)
        clock.daemon = True
        clock.start()
    if "cores" in wanted:
        from harness.data import loading

        loading.cores = lambda: wanted["cores"]
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than there are cores
    if wanted.get("group") and os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    entry = str(ROOT / "train.py")
    sys.argv, sys.path[0] = [entry, *sys.argv[2:]], str(ROOT)
    try:
        runpy.run_path(entry, run_name="__main__")
    finally:
        if "count" in wanted:
            Path(wanted["count"]).write_text(json.dumps(fault.calls))


if __name__ == "__main__":
    main()
