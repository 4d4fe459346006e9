"""Rows that come part by part, in memory or, if they are many, in a temporary file mapped into memory."""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from typing import IO

import torch
from torch import Tensor

from harness import distributed
from harness.files import WriteError

PIECE_BYTES = 64 * 2**20  # that go from one process to another at a time
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def bytes_of(memory: int | float | str | None) -> int:
    """A number of bytes, also as "2 GiB"; None is a quarter of the machine's memory.

    Raises:
        ValueError: If it is none.
    """
    if memory is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", str(memory))
    if found is None or found[2] not in UNITS or isinstance(memory, bool):
        raise ValueError(f"memory must be a number of bytes, or such as 500 MiB or 2 GiB, got {memory!r}")
    return int(float(found[1]) * UNITS[found[2]])


class Rows:
    """Collects rows of float32 in the order in which they are added.

    The file has no name: it is gone with the last tensor that shows it, or with the process, whatever ends that.

    Args:
        memory: How many bytes of them to keep in memory; with more, all go to a file in the system's temporary folder
            (TMPDIR).

    Attributes:
        count: How many rows were added.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._parts: list[Tensor] = []
        self.count = 0
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def add(self, rows: Tensor) -> None:
        """Adds `rows`, (some, dimensions).

        Raises:
            WriteError: If there is no room for the file.
        """
        self.count += len(rows)
        self._bytes += 4 * rows.numel()
        self._parts.append(rows)
        if self._bytes <= self._memory:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            while self._parts:
                self._file.write(self._parts.pop(0).cpu().contiguous().numpy().tobytes())
            self._file.flush()
        except OSError as error:
            raise WriteError(
                f"could not keep {self._bytes / 2**30:.2f} GiB of embeddings in {tempfile.gettempdir()} ({error}): "
                "free some space, set TMPDIR to a folder with more, or raise metrics.memory of a run, beyond which they"
                " go there"
            ) from error
        self._width = rows.shape[1]

    def tensor(self) -> Tensor:
        """All rows: where they were added from, or in the file, on the CPU. Nothing may be added after."""
        if self._file is not None:
            mapped = mmap.mmap(self._file.fileno(), 0)
            self._file.close()
            return torch.frombuffer(mapped, dtype=torch.float32).view(-1, self._width)
        if not self._parts:
            return torch.empty(0, 0)
        rows = self._parts[0].new_empty(sum(map(len, self._parts)), *self._parts[0].shape[1:])
        start = 0
        while self._parts:  # so that nothing is held twice
            part = self._parts.pop(0)
            rows[start : start + len(part)] = part
            start += len(part)
        return rows


def gathered_by_main(rows: Tensor, memory: int) -> Tensor:
    """The rows of all processes, in order of rank, in the main one; in the others nothing of use.

    Args:
        rows: (some, dimensions), of this process.
        memory: See `Rows`.
    """
    collected = Rows(memory)
    for rank in range(distributed.world()):
        pieces = torch.split(rows, max(1, PIECE_BYTES // max(1, 4 * rows.shape[1]))) if len(rows) else ()
        for number in range(distributed.told_by(rank, len(pieces))):
            own = rank == distributed.rank()
            piece = distributed.told_by(rank, pieces[number].cpu() if own else None)
            if distributed.is_main() and piece is not None:
                collected.add(piece.to(rows.device))
    return collected.tensor() if distributed.is_main() else rows[:0]
