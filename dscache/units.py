"""Format sizes, ages and counts for people, and parse sizes. Pure."""

from __future__ import annotations

import re

from .errors import UsageError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)
_MAX_BYTES = 2**63


def format_bytes(size: int) -> str:
    """`1536` -> `1.5 KiB`; powers of 1024, at most one decimal."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def format_age(seconds: float) -> str:
    """`7300` -> `2 h ago`; less than a minute, or a time in the future, is `just now`."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit} ago"
    return "just now"


def format_count(count: int, noun: str) -> str:
    """`1 dataset`, `2 datasets`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def parse_bytes(text: str) -> int:
    """`200GB`, `1.5 TiB`, `500M` or a plain number, in bytes; units are powers of 1024 throughout.

    Raises UsageError.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:80]!r} is not a size; write for example 500M, 200GB or 1.5TiB")
    power = " kmgtp".index(match[2].lower() or " ")
    size = float(match[1]) * 1024**power
    if size >= _MAX_BYTES:
        raise UsageError(f"{text[:80]!r} is more than any disk holds")
    return int(size)
