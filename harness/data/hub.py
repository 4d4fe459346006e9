"""Whether the Hugging Face hub answers, before its libraries try for minutes to find out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import requests

SECONDS = (5, 10)  # to connect and to answer, until a hub that does not answer counts as out of reach


def endpoint() -> str:
    """Where the hub is: HF_ENDPOINT, or its own address."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def fault() -> str | None:
    """Why the hub cannot be reached, in a word; None if it answers. Known within the time of `SECONDS`."""
    try:
        requests.head(endpoint(), timeout=SECONDS)
    except requests.RequestException as error:
        return type(error).__name__
    return None


@contextmanager
def offline_unless_reached() -> Iterator[None]:
    """Inside, if the hub does not answer now, its libraries go by what they keep of it, and fail at once without."""
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:  # whoever needs it will tell
        yield
        return
    before = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = before or fault() is not None
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
