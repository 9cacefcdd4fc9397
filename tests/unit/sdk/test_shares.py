"""Shares of workers: disjoint, complete, even."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache_sdk.reading import shuffled
from dscache_sdk.records import RecordWriter
from dscache_sdk.shares import records_of, share_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven files of three records each."""
    folder = tmp_path_factory.mktemp("records")
    for file in range(7):
        with RecordWriter(folder / f"{file}") as writer:
            for record in range(3):
                writer.write(f"{file}.{record}".encode())
    return sorted(folder.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 20, 30])
def test_shares_are_disjoint_complete_and_even(files: list[Path], count: int) -> None:
    shares = [list(records_of(share_of(files, index, count))) for index in range(count)]
    every = [record for share in shares for record in share]
    assert sorted(every) == sorted(f"{f}.{r}".encode() for f in range(7) for r in range(3))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_whole_files_come_first(files: list[Path]) -> None:
    names = [str(file) for file in files]
    share = share_of(files, 1, 3)
    assert share.files == [names[1], names[4]]
    assert share.shared == [names[6]]
    alone = share_of(files, 0, 1)
    assert (alone.files, alone.shared) == (names, [])


@pytest.mark.parametrize(("index", "count"), [(1, 1), (-1, 2), (0, 0)])
def test_no_such_worker(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        share_of([], index, count)


@given(items=st.lists(st.integers(), max_size=50), held_back=st.integers(0, 60))
def test_shuffling_loses_nothing_and_repeats(items: list[int], held_back: int) -> None:
    once = list(shuffled(items, held_back, random.Random(7)))
    assert sorted(once) == sorted(items)
    assert once == list(shuffled(items, held_back, random.Random(7)))
