"""JSON that every reader takes: a number that is not finite is written as null, for which JSON has no other word."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; what JSON does not know becomes text."""
    return json.dumps(_finite(value), indent=indent, default=str, allow_nan=False)


def loads(text: str) -> Any:
    """What `dumps` wrote; the NaN and Infinity of older files are read as None, too.

    Raises:
        json.JSONDecodeError: If it is no JSON.
    """
    return json.loads(text, parse_constant=lambda _: None)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
