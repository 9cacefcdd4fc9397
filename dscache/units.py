"""Sizes as people write and read them. Pure."""

from __future__ import annotations

import re

from .errors import UsageError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)


def format_bytes(size: int) -> str:
    """`1536` -> `1.5 KiB`; powers of 1024, at most one decimal."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def parse_bytes(text: str) -> int:
    """`200GB`, `1.5 TiB`, `500M` or a plain number, in bytes; units are powers of 1024 throughout.

    Raises UsageError.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a size; write for example 500M, 200GB or 1.5TiB")
    power = " kmgtp".index(match[2].lower() or " ")
    return int(float(match[1]) * 1024**power)
