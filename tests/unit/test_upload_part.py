"""Sending a part: what passes is tried again, so that it does not end a build of hours."""

from __future__ import annotations

import pytest

import dscache.store.upload
from dscache.config import Config
from dscache.errors import NoSuchUpload, StoreUnreachable
from dscache.store.response import Response
from dscache.store.s3 import Store

SENT = Response(200, {"etag": '"e"'}, b"")
BUSY = Response(503, {}, b"<Code>SlowDown</Code>")
BROKEN = StoreUnreachable("connection reset")


def send(monkeypatch: pytest.MonkeyPatch, *outcomes: Response | Exception) -> tuple[str, int]:
    """The etag that came of it, and how often it paused."""
    pending = list(outcomes)

    def put(url: str, segments: object, *, where: str) -> Response:
        outcome = pending.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    config = Config(endpoint="http://store.example", access_key="a", secret_key="s")
    store = Store(config)
    pauses: list[float] = []
    monkeypatch.setattr(store._signed, "_sleep", pauses.append)
    monkeypatch.setattr(dscache.store.upload, "put", put)
    etag = store.upload_part("datasets/x.zip", "upload", 1, [b"x"])
    assert pending == []
    return etag, len(pauses)


@pytest.mark.parametrize("first", [BUSY, BROKEN])
def test_what_passes_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, first: Response | Exception
) -> None:
    assert send(monkeypatch, SENT) == ("e", 0)
    assert send(monkeypatch, first, first, SENT) == ("e", 2)
    with pytest.raises(StoreUnreachable):
        send(monkeypatch, first, first, first)


def test_an_answer_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSuchUpload):
        send(monkeypatch, Response(404, {}, b"<Code>NoSuchUpload</Code>"))
