"""TFRecord files: framing, observers, damage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from dscache_sdk import RecordError
from dscache_sdk.records import (
    FRAME_BYTES,
    Observer,
    RecordWriter,
    count_records,
    mask_crc,
    masked_crc,
    read_records,
)

SIZES = [0, 1, 200, 32_768, 32_769, 300_000, 7, 2_000_000, 0]


def records() -> list[bytes]:
    return [bytes([size % 251]) * size for size in SIZES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.tfrecord"


def write(path: Path, items: Iterable[bytes], observers: Sequence[Observer] = ()) -> RecordWriter:
    with RecordWriter(path, observers) as writer:
        for item in items:
            writer.write(item)
    return writer


def test_records_come_back(path: Path) -> None:
    writer = write(path, records())
    assert list(read_records(path)) == records()
    assert count_records(path) == writer.records == len(SIZES)
    assert writer.bytes == path.stat().st_size == sum(SIZES) + FRAME_BYTES * len(SIZES)


def test_known_bytes(path: Path) -> None:
    # What tf.io.TFRecordWriter writes.
    write(path, [b"hello"])
    assert path.read_bytes().hex() == "0500000000000000eab2043e68656c6c6fbb1f1c19"


def test_many_small_records(path: Path) -> None:
    items = [b"%d" % number for number in range(100_000)]
    write(path, items)
    assert list(read_records(path)) == items


def test_a_record_in_pieces_is_the_same_record(path: Path, tmp_path: Path) -> None:
    write(path, [b"small", b"x" * 50_000 + b"y" * 10, b"tail"])
    other = tmp_path / "pieces.tfrecord"
    with RecordWriter(other) as writer:
        writer.write(b"sm", b"all")
        writer.write(b"x" * 50_000, b"", b"y" * 10)
        writer.write(b"tail")
    assert other.read_bytes() == path.read_bytes()
    assert writer.records == 3


def test_observers_see_the_file(path: Path) -> None:
    digest, seen = hashlib.sha256(), []
    write(path, records(), [digest.update, lambda chunk: seen.append(len(chunk))])
    assert digest.digest() == hashlib.sha256(path.read_bytes()).digest()
    assert sum(seen) == path.stat().st_size


def test_an_empty_file_has_no_records(path: Path) -> None:
    write(path, [])
    assert path.read_bytes() == b""
    assert list(read_records(path)) == []
    assert count_records(path) == 0


def test_a_failed_block_leaves_no_file(path: Path) -> None:
    with pytest.raises(RuntimeError), RecordWriter(path) as writer:
        writer.write(b"a" * 100_000)
        raise RuntimeError
    assert not path.exists()


def test_a_full_disk_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No space"), RecordWriter("/dev/full") as writer:
        writer.write(b"a")


def test_each_flipped_byte_is_noticed(path: Path) -> None:
    write(path, [b"first record", b"second"])
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(RecordError) as caught:
            list(read_records(path))
        assert caught.value.offset == (0 if place < 12 + 12 + 4 else 28)
        assert caught.value.path == str(path)


def test_each_cut_is_noticed(path: Path) -> None:
    write(path, [b"first record", b"second"])
    good = path.read_bytes()
    for size in set(range(1, len(good))) - {28}:
        path.write_bytes(good[:size])
        for read in (lambda: list(read_records(path)), lambda: count_records(path)):
            with pytest.raises(RecordError, match="ends"):
                read()


def test_an_absurd_length_is_not_allocated(path: Path) -> None:
    write(path, [b"abc"])
    data = bytearray(path.read_bytes())
    data[0:8] = (2**60).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(RecordError, match="ends"):
        list(read_records(path, verify=False))


def test_without_verification_damaged_data_is_read(path: Path) -> None:
    write(path, [b"abc"])
    path.write_bytes(path.read_bytes().replace(b"abc", b"abd"))
    assert list(read_records(path, verify=False)) == [b"abd"]


def test_masked_crc_of_the_standard_check_string() -> None:
    # CRC-32C of "123456789" is 0xe3069283 (RFC 3720, B.4 names the polynomial).
    crc = 0xE3069283
    expected = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
    assert masked_crc(b"123456789") == expected & 0xFFFFFFFF
    assert mask_crc(crc) == masked_crc(b"123456789")  # what `dscache verify` rolls over chunks
