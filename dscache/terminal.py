"""What is printed: text of others made harmless, secrets hidden, paths exactly as they are."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

# Control characters but line feed and tab, what turns the direction of text around, and halves of
# surrogate pairs, which are no text and cannot be printed.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return the text with control characters spelled out, as in `\x1b`.

    Client names, option names, messages, log lines and sample ids are written by others. Their
    escape sequences could hide or forge lines, or worse, depending on the terminal.
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


HIDDEN = "…"
MAX_UNEXPECTED = 300  # characters
# Whatever follows in a line, the signed parameters of a URL, and names and passwords in a URL.
_SIGNED = re.compile(
    r"""(?ix)
    (?: (?P<header> AWS4-HMAC-SHA256 | Invalid\ header\ value
          | ["']?\b(?:authorization|x-amz-security-token)["']?\ *[:,=] ) .*
      | (?P<parameter> \b(?:X-Amz-Credential|X-Amz-Security-Token|X-Amz-Signature|Signature) = )
        [^&\s'"]*
      | (?P<scheme> :// ) [^\s'"]*@ )
    """
)


def redacted(text: str) -> str:
    """Return the text without signatures, session tokens, and the passwords of URLs.

    No message of dscache has any. This is for those of other libraries, and for tracebacks.
    """
    return _SIGNED.sub(_without_secret, text)


def _without_secret(match: re.Match[str]) -> str:
    if match["scheme"]:
        return f"{match['scheme']}{HIDDEN}@"
    return f"{match['header'] or match['parameter']}{HIDDEN}"


def unexpected(error: Exception) -> str:
    """One line, without secrets, for an error that nobody expected."""
    line = f"{type(error).__name__}: {error}".partition("\n")[0]
    return f"unexpected error: {redacted(line[:MAX_UNEXPECTED])}"


def show_any_text() -> None:
    """Let standard output spell out what its encoding lacks. Standard error always does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_path(path: str | os.PathLike[str]) -> None:
    """Print a path on standard output, byte for byte, whatever the locale: scripts read it."""
    if sys.stdout is None:  # closed by the parent
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    sys.stdout.buffer.flush()


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
