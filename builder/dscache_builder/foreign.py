"""Text of handlers and tools, made fit for the objects of the bucket. Pure.

An exception's text may be of any length and need not be Unicode: a file name that is not UTF-8
reaches Python as lone surrogates, which no JSON document can hold. The limits are documented in
docs/protocol.md#limits.
"""

from __future__ import annotations

MESSAGE_BYTES = 4_000
SAMPLE_BYTES = 1_000
TRACEBACK_BYTES = 32_000
LOG_BYTES = 64_000
BAD_ERROR_BYTES = 1_000
BAD_TRACEBACK_BYTES = 4_000
CUT = " […] "


def fit(text: str, limit_bytes: int) -> str:
    """Return the text as valid UTF-8 of at most so many bytes; what is too much in it is cut out.

    Both ends stay: a message begins with what happened, and a traceback ends with it.
    """
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    kept = limit_bytes - len(CUT.encode())
    head, tail = encoded[: kept - kept // 3], encoded[len(encoded) - kept // 3 :]
    return head.decode("utf-8", "ignore") + CUT + tail.decode("utf-8", "ignore")
