"""How the log is written where people read it: as text that is safe to print."""

from __future__ import annotations

import logging

from .terminal import printable, redacted


class SafeFormatter(logging.Formatter):
    """Formats tracebacks and all, without secrets and without control characters of others."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redacted(super().format(record)))
