"""Text of handlers fits the objects of the bucket, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.errors import NotWritable
from dscache.protocol import manifests
from dscache.protocol.manifests import MAX_BYTES, BadSample, Cancel, Failure
from dscache_builder.attempt.bad_samples import LISTED, WITH_TEXT, listed
from dscache_builder.attempt.requests import LOG_TAIL_CHARS
from dscache_builder.failure import HandlerFailure
from dscache_builder.foreign import CUT, fit
from dscache_builder.hosting.messages import bad_sample

ANY = st.text(st.characters(exclude_categories=()))  # with lone surrogates


@given(ANY, st.integers(20, 60))
def test_any_text_becomes_valid_and_short(text: str, limit: int) -> None:
    fitting = fit(text * 3, limit)
    assert len(fitting.encode()) <= limit


@given(st.text(max_size=20))
def test_text_that_fits_stays(text: str) -> None:
    assert fit(text, 80) == text


def test_both_ends_stay() -> None:
    text = fit("ValueError: " + "é" * 10_000 + " at the end", 100)
    assert text.startswith("ValueError: é")
    assert text.endswith("é at the end")
    assert CUT in text
    assert fit("caf\udce9.png", 100) == r"caf\udce9.png"


@pytest.mark.parametrize("character", ["x", "\x01", "\udce9", '"', "\U0001f600"])
def test_the_longest_failure_can_be_read(character: str) -> None:
    failure = HandlerFailure("handler", *[character * 1_000_000] * 4)
    body = manifests.encode(
        Failure(
            kind=failure.kind,
            message=failure.message,
            nonce="n",
            failed_at=0.0,
            sample=failure.sample,
            traceback=failure.traceback,
            log_tail=failure.log_tail[-LOG_TAIL_CHARS:],
        )
    )
    assert manifests.decode(body, Failure, where="f").message == failure.message
    assert len(body) < MAX_BYTES[Failure]


def test_what_nobody_could_read_is_not_encoded() -> None:
    fitting = Cancel(nonce="n", client="c" * 60_000, cancelled_at=0.0)
    assert manifests.encode(fitting)
    for client, reason in (("c" * (64 << 10), "nobody would read"), ("\ud800", "not Unicode")):
        with pytest.raises(NotWritable, match=reason):
            manifests.encode(Cancel(nonce="n", client=client, cancelled_at=0.0))
    with pytest.raises(NotWritable):
        manifests.encode(fitting, spare_bytes=10_000)


def test_a_bad_sample_is_made_fit() -> None:
    long = BadSample(sample="\udce9" * 9_000, error="E" * 9_000, traceback="T" * 9_000)
    bad = bad_sample(long)
    sizes = [len(text.encode()) for text in (bad.sample, bad.error, bad.traceback)]
    assert sizes == [1_000, 1_000, 4_000]
    assert bad.repeatable


def test_the_first_bad_samples_keep_their_text_and_the_next_their_ids() -> None:
    many = [BadSample(sample=str(n), error="e", traceback="t") for n in range(20_000)]
    killed = BadSample(sample="killed", error="e", repeatable=False)
    kept = listed([*many, killed], before=0)
    assert [bad.sample for bad in kept] == [*map(str, range(LISTED)), "killed"]
    assert [bad.sample for bad in kept if bad.error] == [str(n) for n in range(WITH_TEXT)]
    assert [bad.sample for bad in listed([*many[:9], killed], before=LISTED)] == ["killed"]
    assert [bad.error for bad in listed(many[:3], before=WITH_TEXT - 1)] == ["e", "", ""]
