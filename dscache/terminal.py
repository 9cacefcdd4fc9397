"""Text of others on somebody's terminal."""

from __future__ import annotations

import re

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
