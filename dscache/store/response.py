"""An HTTP response of the store, whichever client received it. What it says is decoded here."""

from __future__ import annotations

import datetime
import email.utils
import re
from dataclasses import dataclass

from ..errors import DscacheError, StoreError

_SIZE = re.compile(r"[0-9]{1,18}")
_ETAG = re.compile(r'"([!#-~]{1,256})"|((?!W/")[!#-~]{1,256})')
_SHOWN_CHARS = 80


def parse_etag(header: str) -> str | None:
    """Return the etag without quotes; None if it is none, or weak (W/"…"): no store sends those,
    but proxies that change responses do."""
    match = _ETAG.fullmatch(header)
    return (match[1] or match[2]) if match else None


@dataclass(frozen=True)
class Response:
    """Status, headers with lower-case names, and body (of an upload's response: its first 64 KiB).

    The body explains an error in XML, see `s3errors.parse_error`. `where` names the object, and
    `unreadable` is the error for what cannot be decoded.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    where: str = ""
    unreadable: type[DscacheError] = StoreError

    @property
    def etag(self) -> str:
        """The etag without quotes. Raises `unreadable` if there is none."""
        header = self.headers.get("etag")
        if header is None:
            raise self._error("the response has no ETag")
        etag = parse_etag(header)
        if etag is None:
            raise self._error(f"the response's ETag is {header[:_SHOWN_CHARS]!r}")
        return etag

    @property
    def size(self) -> int:
        """The size of the object, in bytes. Raises `unreadable` if there is none."""
        length = self.headers.get("content-length", "")
        if not _SIZE.fullmatch(length):
            raise self._error(f"the response's Content-Length is {length[:_SHOWN_CHARS]!r}")
        return int(length)

    @property
    def sent_at(self) -> float | None:
        """Unix time by the server's clock; None if it does not say, or nothing that is a date."""
        try:
            date = email.utils.parsedate_to_datetime(self.headers.get("date", ""))
            return date.astimezone(datetime.UTC).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None

    def _error(self, problem: str) -> DscacheError:
        return self.unreadable(
            f"{self.where}: {problem}; is the endpoint that of an object store, without a proxy "
            "that changes responses?"
        )
