"""Errors of handler code as messages for the builder. Pure."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import Any

from dscache_sdk.errors import OptionsError, RawDataError, SampleError

HOST_FOLDER = str(Path(__file__).resolve().parent)
TRACEBACK_CHARS = 16_000
MESSAGE_CHARS = 16_000  # the builder cuts further; this only spares the pipe
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HostFailure(Exception):
    """A failure with its message; `kind` as in `dscache.protocol.manifests.Failure`."""

    def __init__(self, kind: str, message: str, sample: str = "", trace: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.sample = sample
        self.trace = trace


def failure_event(error: BaseException) -> dict[str, Any]:
    """The event that reports `error`: kind, one-line message, sample and traceback."""
    kind, message = _kind_and_message(error)
    sample, trace = "", ""
    if isinstance(error, HostFailure):
        sample, trace = error.sample, error.trace
    elif isinstance(error, SampleError):
        sample, trace = error.sample_id, error.traceback
    elif kind == "handler":
        trace = traceback_text(error)
    return {
        "event": "failure",
        "kind": kind,
        "message": message[:MESSAGE_CHARS],
        "sample": sample[:MESSAGE_CHARS],
        "traceback": trace[-TRACEBACK_CHARS:],
    }


def is_disk_full(error: BaseException) -> bool:
    """Whether the error or one of its causes is a full disk."""
    return any(isinstance(cause, OSError) and cause.errno in _FULL for cause in _chain(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error or one of its causes is a MemoryError."""
    return any(isinstance(cause, MemoryError) for cause in _chain(error))


def traceback_text(error: BaseException) -> str:
    """The traceback without the host's own frames."""
    first = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename.startswith(HOST_FOLDER):
        first = first.tb_next
    return "".join(traceback.format_exception(type(error), error, first))


def _kind_and_message(error: BaseException) -> tuple[str, str]:
    if isinstance(error, HostFailure):
        return error.kind, error.message
    if is_disk_full(error):
        return "disk", f"the builder's disk is full: {error}"
    if isinstance(error, OptionsError):
        return "options", str(error)
    if isinstance(error, RawDataError):
        return "raw-data", str(error)
    if is_out_of_memory(error):
        return "worker-killed", f"the handler ran out of memory: {error}".rstrip(": ")
    if isinstance(error, SampleError):
        return "handler", str(error)
    return "handler", _one_line(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if text and type(error).__module__.startswith("dscache_sdk."):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain
