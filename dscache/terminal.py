"""Text of others on somebody's terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

# Control characters but line feed and tab; and what turns the direction of text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return the text with control characters spelled out, as in `\x1b`.

    Client names, option names, messages, log lines and sample ids are written by others. Their
    escape sequences could hide or forge lines, or worse, depending on the terminal.
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def logger(name: str) -> logging.Logger:
    """Return the logger of that name; its messages and tracebacks are made printable.

    That is done to the record, since handlers differ: those of the commands, those of a program
    that uses the library, and, if it sets none up, the one that prints warnings all the same.
    """
    import logging  # a cache hit imports this module, and logs nothing

    found = logging.getLogger(name)
    found.addFilter(_make_printable)
    return found


def _make_printable(record: logging.LogRecord) -> bool:
    import logging

    record.msg, record.args = printable(record.getMessage()), None
    if record.exc_info:
        record.exc_text = printable(logging.Formatter().formatException(record.exc_info))
    return True
