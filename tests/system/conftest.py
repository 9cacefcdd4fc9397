"""Fixtures of the system tests."""

from __future__ import annotations

from support.system import (
    new_builder,
    numbers,
    pythons,
    request_for,
    shared_environments,
    troubles,
    wheelhouse,
)

__all__ = [
    "new_builder",
    "numbers",
    "pythons",
    "request_for",
    "shared_environments",
    "troubles",
    "wheelhouse",
]
