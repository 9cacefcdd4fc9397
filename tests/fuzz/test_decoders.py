"""Whatever comes, a decoder ends soon, with its result or with a documented error.

`make stress` runs the same table for as long as it is told to. A finding becomes a plain test
beside the decoder's own.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.__main__ import main, stress
from fuzz.decoders import ELSEWHERE, decoders
from fuzz.mutation import large, mutated
from fuzz.running import Decoder, limited_memory, problem

TABLE = {decoder.name: decoder for decoder in decoders()}
LARGE_BYTES = 256 << 10
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dscache", "builder/dscache_builder", "handlers/sdk/dscache_sdk",
            "handlers/dataset-handlers/dataset_handlers")  # fmt: skip
DECODER_NAME = re.compile(r"(decode|parse|read|load)(_\w+)?")
SAME_EACH_TIME = settings(
    max_examples=30, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", TABLE)
def test_what_the_encoders_wrote_is_decoded(name: str) -> None:
    for seed in TABLE[name].seeds:
        TABLE[name].decode(seed)


@pytest.mark.parametrize("name", TABLE)
def test_what_others_wrote_is_decoded_or_refused(name: str) -> None:
    decoder = TABLE[name]

    @SAME_EACH_TIME
    @given(st.binary(max_size=300) | _mutations(decoder))
    def check(data: bytes) -> None:
        assert problem(decoder, data) is None

    check()


def _mutations(decoder: Decoder) -> st.SearchStrategy[bytes]:
    """Hypothesis chooses the seed and the number that all other choices follow from."""
    return st.builds(
        lambda seed, number: mutated(seed, decoder.form, random.Random(number)),
        st.sampled_from(decoder.seeds),
        st.integers(0, 2**32),
    )


@pytest.mark.parametrize("name", TABLE)
def test_much_costs_little(name: str) -> None:
    """Neither seconds nor gigabytes, for a quarter of a megabyte. `make stress` takes more."""
    decoder = TABLE[name]
    makers = large(decoder.seeds[0], decoder.form, LARGE_BYTES)
    with limited_memory():
        for make in random.Random(0).sample(makers, min(4, len(makers))):
            assert problem(decoder, make()) is None


def planted(data: bytes) -> None:
    """A decoder that forgets an error: a number of too many digits."""
    if b"9" * 20 in data:
        raise OverflowError("planted")


PLANTED = Decoder("planted", planted, (KeyError,), (b'{"a": 1}',), "json", ())


def test_a_raw_exception_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stress([PLANTED], 60.0, range(1, 500), tmp_path) == 1
    (saved,) = tmp_path.iterdir()
    assert b"9" * 20 in saved.read_bytes()
    said = capsys.readouterr().out
    assert "planted: OverflowError: planted" in said
    assert f"--replay {saved}" in said


def test_a_saved_input_is_decoded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "size-0123456789ab"
    saved.write_bytes(b"12 GB")
    assert main(["--replay", str(saved)]) == 0
    assert "size: nothing is wrong" in capsys.readouterr().out


def test_what_takes_too_much_is_found() -> None:
    with limited_memory(1 << 28):
        found = problem(Decoder("greedy", lambda data: data * 10**9, (), (), "binary", ()), b"b")
    assert found is not None
    assert found.kind.startswith("MemoryError")


def test_what_does_not_end_is_found() -> None:
    def slow(data: bytes) -> None:
        while data:
            data = bytes(data)

    found = problem(Decoder("slow", slow, (), (), "binary", ()), b"b", ends_s=0.2)
    assert found is not None
    assert found.kind.startswith("does not end")


def test_every_decoder_is_in_the_table() -> None:
    covered = {name for decoder in TABLE.values() for name in decoder.covers}
    assert covered.isdisjoint(ELSEWHERE)
    assert set(named_like_decoders()) - covered - ELSEWHERE.keys() == set()
    assert ELSEWHERE.keys() <= set(named_like_decoders())


def named_like_decoders() -> Iterator[str]:
    """The public functions of all modules that are called decode, parse, read or load."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to((ROOT / package).parent).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and DECODER_NAME.fullmatch(node.name):
                    yield f"{module}.{node.name}"
