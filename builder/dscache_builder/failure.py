"""The one exception between host and builder: a handler or its environment failed."""

from __future__ import annotations

import re

from dscache.errors import DscacheError
from dscache.protocol.manifests import FailureKind

_NETWORK = re.compile(
    r"error sending request|connection (refused|reset|closed)|operation timed out|timeout was|"
    r"dns error|could not resolve host|temporary failure in name|network is unreachable|"
    r"\b(429|50[0234]) (too many|internal|bad gateway|service|gateway)",
    re.IGNORECASE,
)


class HandlerFailure(DscacheError):
    """A handler failed, for a reason that the failures of its requests state.

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
        super().__init__(message)
        self.kind: FailureKind = kind
        self.message = message
        self.sample = sample
        self.traceback = traceback
        self.log_tail = log_tail

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed: the build is retried before the failure counts."""
        return self.kind in ("disk", "store")


class EnvironmentFailed(HandlerFailure):
    """An environment could not be resolved or made. `traceback` is the tool's output."""

    @property
    def transient(self) -> bool:
        """Whether uv or git reported a network error."""
        return _NETWORK.search(f"{self.message}\n{self.traceback}") is not None

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__("environment", message, traceback=output)
