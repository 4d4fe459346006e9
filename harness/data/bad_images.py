"""Image files that hold no picture: all found before anything is trained, and left out by name."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import PIL

from harness import words
from harness.data import jpeg
from harness.data.images import content_of, decode

log = logging.getLogger(__name__)
KNOWN = "readable.json"  # in the folder of `data.cache`


class BadImages:
    """What is done about image files that cannot be decoded.

    With "stop" nothing is looked at beforehand, and whoever meets such a file ends with its name. With "skip" every
    file is decoded once, before training, and what is bad is no part of the data: batches, epochs and evaluations are
    those of a data set that never had it, whatever the number of workers and wherever a run goes on. Files that are
    missing or cannot be opened are refused either way, as another try may find them.

    Args:
        rule: "stop" or "skip".
        threads: That decode at once.
        known: A folder that remembers which contents can be decoded, or None.

    Raises:
        ValueError: If the rule is neither.
    """

    def __init__(self, rule: str, threads: int = 1, known: str | Path | None = None) -> None:
        if rule not in ("stop", "skip"):
            raise ValueError(f"on_bad_image must be stop or skip, got {rule!r}")
        self.skips, self.threads = rule == "skip", max(1, threads)
        self.known = None if known is None else Path(known) / KNOWN
        self.left_out: list[dict[str, str]] = []

    def good(self, part: str, names: Sequence[str], paths: Sequence[Path], upright: bool) -> list[bool]:
        """Which of the images of a part, each with its name and its file, stay in the data.

        Raises:
            OSError: If a file cannot be opened, or none of the part stays.
        """
        if not self.skips or not paths:
            return [True] * len(paths)
        log.info("looking at all %s images of the %s part (data.on_bad_image=skip)", f"{len(paths):,}", part)
        faults = self._faults(list(dict.fromkeys(paths)), upright)
        for name, path in zip(names, paths, strict=True):
            if path in faults:
                self.left_out.append({"part": part, "image": name, "reason": faults[path]})
        stay = [path not in faults for path in paths]
        if not any(stay):
            raise OSError(f"none of the {len(paths):,} images of the {part} part can be read; {faults[paths[0]]}")
        return stay

    def tell(self, title: str) -> None:
        """Warns of what was left out, in one line."""
        if self.left_out:
            names = [words.printable(one["image"]) for one in self.left_out]
            first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            log.warning(
                "%s: %s images cannot be read and are left out (%s); the record lists them with the reasons",
                title,
                f"{len(names):,}",
                first,
            )

    def record(self) -> dict[str, Any]:
        """For the run record: what was left out, with the reasons; nothing where nobody looked."""
        return {"left_out": {"images": len(self.left_out), "which": self.left_out}} if self.skips else {}

    def _faults(self, paths: Sequence[Path], upright: bool) -> Mapping[Path, str]:
        """What is wrong with those that are bad."""
        known = self._remembered()
        with ThreadPoolExecutor(self.threads) as pool:
            found = list(pool.map(partial(_judged, upright=upright, known=known), paths))
        self._remember(known | {key for key, fault in found if fault is None}, known)
        return {path: fault for path, (_, fault) in zip(paths, found, strict=True) if fault is not None}

    def _remembered(self) -> set[str]:
        if self.known is None:
            return set()
        with suppress(OSError, ValueError, TypeError, KeyError):  # missing or damaged: looked at anew
            held = json.loads(self.known.read_text(encoding="utf-8"))
            return set(held["readable"]) if held["by"] == _libraries() else set()
        return set()

    def _remember(self, now: set[str], before: set[str]) -> None:
        if self.known is None or now == before:
            return
        beside = self.known.with_name(f"{KNOWN}.{uuid.uuid4().hex}.part")  # of its own for each of several runs
        with suppress(OSError):
            self.known.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"by": _libraries(), "readable": sorted(now)}), encoding="utf-8")
            os.replace(beside, self.known)


def _libraries() -> list[str]:
    """Those that judge, as another version may judge otherwise."""
    return [f"Pillow {PIL.__version__}", "libjpeg-turbo" if jpeg.available() else "no libjpeg-turbo"]


def _judged(path: Path, upright: bool, known: set[str]) -> tuple[str, str | None]:
    """A key for what a file holds, and what is wrong with that as a picture, or None."""
    content = content_of(path)
    key = f"{hashlib.sha256(content).hexdigest()}{' upright' * upright}"
    if key in known:
        return key, None
    try:
        decode(path, upright, content)
    except OSError as error:
        return key, str(error)
    return key, None
