"""An HTTP response of the store, whichever client received it."""

from __future__ import annotations

import datetime
import email.utils
import re
from dataclasses import dataclass

from ..errors import StoreError

_SIZE = re.compile(r"[0-9]{1,18}")


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
        """The etag without quotes. Raises StoreError if there is none."""
        if "etag" not in self.headers:
            raise StoreError("the response has no ETag; is the endpoint that of an object store?")
        return self.headers["etag"].strip('"')

    @property
    def size(self) -> int:
        """The size of the object, in bytes. Raises StoreError if there is none."""
        length = self.headers.get("content-length", "")
        if not _SIZE.fullmatch(length):
            raise StoreError(
                f"the response's Content-Length is {length[:80]!r}; "
                "is the endpoint that of an object store?"
            )
        return int(length)

    @property
    def sent_at(self) -> float | None:
        """Unix time by the server's clock; None if it does not say, or nothing that is a date."""
        try:
            date = email.utils.parsedate_to_datetime(self.headers.get("date", ""))
            return date.astimezone(datetime.UTC).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
