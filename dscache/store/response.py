"""An HTTP response of the store, whichever client received it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Response:
    """Status, headers with lower-case names, and body (of an upload's response: its first 64 KiB).

    The body explains an error in XML, see `s3errors.parse_error`.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        """The etag without quotes. Raises KeyError if there is none."""
        return self.headers["etag"].strip('"')
