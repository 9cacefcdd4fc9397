"""The one exception between host and builder: a handler or its environment failed."""

from __future__ import annotations

import re

from dscache.errors import DscacheError
from dscache.protocol.manifests import FailureKind

from .foreign import LOG_BYTES, MESSAGE_BYTES, SAMPLE_BYTES, TRACEBACK_BYTES, fit

_NETWORK = re.compile(
    r"error sending request|connection (refused|reset|closed)|operation timed out|timeout was|"
    r"dns error|could not resolve host|temporary failure in name|network is unreachable|"
    r"\b(429|50[0234]) (too many|internal|bad gateway|service|gateway)",
    re.IGNORECASE,
)


class HandlerFailure(DscacheError):
    """A handler failed, for a reason that the failures of its requests state.

    Its text comes from handlers and tools, so it is made fit here (`foreign.fit`).

    Attributes:
        kind: the failure class of `dscache.protocol.manifests.Failure`.
        message: one line: what is wrong, where, and what to do.
        sample: id of the sample in progress, or "".
        traceback: the handler's traceback, or a tool's output, or "".
        log_tail: the end of the handler's output, or "".
    """

    exit_code = 3

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        sample: str = "",
        traceback: str = "",
        log_tail: str = "",
    ) -> None:
        self.message = fit(message, MESSAGE_BYTES)
        super().__init__(self.message)
        self.kind: FailureKind = kind
        self.sample = fit(sample, SAMPLE_BYTES)
        self.traceback = fit(traceback, TRACEBACK_BYTES)
        self.log_tail = fit(log_tail, LOG_BYTES)

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed: the build is retried before the failure counts."""
        return self.kind in ("disk", "store")


class RawDataChanged(HandlerFailure):
    """The raw data changed while shards were made from it. `what` names the files."""

    transient = True

    def __init__(self, what: str) -> None:
        super().__init__(
            "raw-data",
            f"the raw data changed during the build ({what}); request it again when the raw data "
            "is complete",
        )


class EnvironmentFailed(HandlerFailure):
    """An environment could not be resolved or made. `traceback` is the tool's output."""

    @property
    def transient(self) -> bool:
        """Whether uv or git reported a network error."""
        return _NETWORK.search(f"{self.message}\n{self.traceback}") is not None

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__("environment", message, traceback=output)
