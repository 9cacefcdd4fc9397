"""Names in the bucket and states derived from what lies there: pure tables."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.errors import IntegrityError
from dscache.protocol import layout, manifests
from dscache.protocol.layout import RequestName
from dscache.protocol.manifests import Alias, Failure, Live, Progress, Ready, Request, Retired
from dscache.protocol.state import State, state_of
from dscache.spec import Spec

SPEC = Spec.of("photos", "1.0.0-rc.1", {"a": 1})
KEY = SPEC.key


def test_names() -> None:
    assert layout.request(KEY, "n1") == f"requests/{KEY}.n1.json"
    assert layout.cancel(KEY, "n1") == f"requests/{KEY}.n1.cancel"
    assert layout.claim(KEY) == f"builds/{KEY}.json"
    assert layout.archive(KEY, 0) == f"datasets/{KEY}.zip"
    assert layout.archive(KEY, 2) == f"datasets/{KEY}.g2.zip"
    assert layout.ready(KEY) == f"datasets/{KEY}.ready"
    assert layout.failed(KEY, "n1") == f"datasets/{KEY}.failed.n1"
    assert layout.lock("photos", "1.0.0") == "handlers/photos/1.0.0.json"
    assert layout.usage(KEY, datetime.date(2026, 1, 2), "u") == f"usage/{KEY}/2026-01-02/u.json"


@given(st.text("0123456789abcdef-", min_size=1, max_size=20))
def test_names_are_read_back(nonce: str) -> None:
    assert layout.parse_request(layout.request(KEY, nonce)) == RequestName(KEY, nonce)
    assert layout.parse_cancel(layout.cancel(KEY, nonce)) == RequestName(KEY, nonce)
    assert layout.parse_failure(layout.failed(KEY, nonce)) == RequestName(KEY, nonce)
    assert layout.parse_ready(layout.ready(KEY)) == KEY


@pytest.mark.parametrize(
    "name",
    ["requests/x.json", f"requests/{KEY}.json", f"requests/{KEY}..json", f"datasets/{KEY}.zip", ""],
)
def test_other_names_are_nothing(name: str) -> None:
    assert layout.parse_request(name) is None
    assert layout.parse_cancel(name) is None
    assert layout.parse_failure(name) is None
    assert layout.parse_ready(name) is None


def live() -> Live:
    return Live(
        spec=SPEC, generation=0, zip_key="z", zip_etag="e", zip_size=1, seal="s", members=[]
    )


def progress(expires_at: float) -> Progress:
    return Progress(
        phase="building", done=1, total=2, bytes=3, remaining_s=1.0, expires_at=expires_at
    )


def failure(at: float) -> Failure:
    return Failure(kind="handler", message=f"at {at}", nonce="n", failed_at=at)


RETIRED = Retired(spec=SPEC, generation=0, nonce="n", retired_at=1.0)


@pytest.mark.parametrize(
    ("ready", "failures", "requests", "shown", "state"),
    [
        (live(), [failure(1)], ["n"], progress(200), State.READY),
        (Alias(key=KEY, spec=SPEC, nonce="n"), [], ["n"], None, State.ALIAS),
        (None, [failure(1)], ["n"], progress(200), State.BUILDING),
        (None, [failure(1)], ["n"], progress(50), State.REQUESTED),
        (None, [], ["n"], None, State.REQUESTED),
        (RETIRED, [failure(1)], [], progress(200), State.FAILED),
        (RETIRED, [], [], progress(200), State.ABSENT),
        (None, [], [], None, State.ABSENT),
    ],
)
def test_states(
    ready: Ready | None,
    failures: list[Failure],
    requests: list[str],
    shown: Progress | None,
    state: State,
) -> None:
    assert state_of(ready, failures, requests, shown, now=100.0) is state


def test_manifests_are_read_back_and_carry_their_schema() -> None:
    request = Request(spec=SPEC, nonce="n", client="c", requested_at=1.5)
    body = manifests.encode(request)
    assert b'"schema": 1' in body
    assert manifests.decode(body, Request, where="r") == request
    for marker in (live(), RETIRED, Alias(key=KEY, spec=SPEC, nonce="n")):
        assert manifests.decode_ready(manifests.encode(marker), where="m") == marker


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "datasets/x.ready"),
        (b"{}", "datasets/x.ready"),
        (b'{"state": "unheard-of"}', "datasets/x.ready"),
        (
            manifests.encode(RETIRED).replace(b'"schema": 1', b'"schema": 2'),
            "schema 2, but this dscache reads 1; upgrade",
        ),
    ],
)
def test_what_is_no_marker(body: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        manifests.decode_ready(body, where="datasets/x.ready")
