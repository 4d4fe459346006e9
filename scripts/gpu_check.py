"""What this machine's GPU makes of the losses, a step, an evaluation and an epoch, in at most eight minutes.

    python scripts/gpu_check.py                         # writes outputs/gpu_check/report.json and report.md
    python scripts/gpu_check.py --device cpu --small    # a trial without a GPU; its numbers mean nothing

Needs torch 2.10. A part that needs a package that is missing is left out, with the reason. Parts run one after the
other, each in a process of its own and with a time limit of its own, so that one that fails does not end the others.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

import torch

from benchmarks.evaluation import processor
from benchmarks.gpu import PARTS, Finding, NotHereError

OURS = ("harness", "rambo", "ranksim", "benchmarks")
OLDEST = (2, 10)


def device_name(device: torch.device, small: bool) -> list[Finding]:
    """The name of the device, which is asked in a process of its own as well, for CUDA does not outlive a fork."""
    torch.empty(0, device=device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return [Finding("device", name)]


def in_child(name: str, limit: float, device: str, small: bool) -> dict[str, Any]:
    """Runs a part in a process of its own; its status ("done", "left out" or "failed"), reason and findings."""
    context = multiprocessing.get_context("fork")  # what is imported already need not be imported again
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=run_part, args=(name, device, small, sender))
    start, patience = time.perf_counter(), 0
    child.start()
    sender.close()
    try:
        outcome = failed(f"took longer than {limit:g} seconds")
        if receiver.poll(limit):
            outcome, patience = receiver.recv(), 5
    except EOFError:
        child.join()
        outcome = failed(f"ended with status {child.exitcode} before it had a result")
    finally:
        child.join(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid or 0, signal.SIGKILL)  # whatever it has started included
        child.join()
    return {"part": name, **outcome, "seconds": round(time.perf_counter() - start, 1)}


def run_part(name: str, device: str, small: bool, sender: Connection) -> None:
    os.setsid()
    if small:
        torch.set_num_threads(1)  # threads that wait for each other on a busy machine would take most of the time
    part = device_name if name == "device" else PARTS[name][0]
    try:
        outcome = {
            "status": "done",
            "reason": "",
            "findings": [vars(each) for each in part(torch.device(device), small)],
        }
    except ModuleNotFoundError as error:
        missing = str(error.name).split(".")[0]
        left_out = {"status": "left out", "reason": f"needs {missing}, which is not installed", "findings": []}
        outcome = failed(traceback.format_exc()) if missing in OURS else left_out
    except NotHereError as error:
        outcome = {"status": "left out", "reason": str(error), "findings": []}
    except BaseException:
        outcome = failed(traceback.format_exc())
    sender.send(outcome)


def failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason.strip(), "findings": []}


def markdown(report: dict[str, Any]) -> str:
    """The report as a table, with what was left out or failed below it."""
    lines = [f"{report['device']}, torch {report['torch']}, Python {report['python']}, {report['date']}", ""]
    if report["small"]:
        lines += ["A trial with tiny shapes; its numbers mean nothing.", ""]
    lines += ["| part | what | found | target | |", "|---|---|---|---|---|"]
    for part in report["parts"]:
        for each in part["findings"]:
            verdict = {True: "met", False: "**missed**", None: ""}[each["met"]]
            lines.append(f"| {part['part']} | {each['what']} | {each['value']} | {each['target']} | {verdict} |")
        if part["status"] != "done":
            reason = part["reason"].splitlines()[-1]
            lines.append(f"| {part['part']} | **{part['status']}**: {reason} | | | |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="what to measure on (default: cuda)")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to see whether everything runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="some parts alone")
    parser.add_argument("--limit", type=float, help="seconds that each part may take (default: its own)")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check"), help="folder of the report")
    chosen = parser.parse_args(arguments)
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        print(f"torch {torch.__version__} is too old: 2.10 or newer is needed", file=sys.stderr)
        return 2
    found = in_child("device", 60, chosen.device, chosen.small)
    if found["status"] != "done":
        reason = found["reason"].splitlines()[-1]
        print(f"--device {chosen.device} cannot be used here ({reason}); --help has a trial on a CPU", file=sys.stderr)
        return 2
    report: dict[str, Any] = {
        "device": found["findings"][0]["value"],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "small": chosen.small,
        "parts": [],
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.parts:
        part = in_child(name, chosen.limit or PARTS[name][1], chosen.device, chosen.small)
        report["parts"].append(part)
        print(f"{name}: {part['status']} after {part['seconds']} s {part['reason']}", flush=True)
        # after every part, so that what was found stays if this process is ended
        (chosen.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        (chosen.out / "report.md").write_text(markdown(report))
    print(f"\n{markdown(report)}\nwritten to {chosen.out}")
    return int(any(part["status"] == "failed" for part in report["parts"]))


if __name__ == "__main__":
    sys.exit(main())
