"""Divide records among workers: whole files first, then the remaining files by record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from dscache_sdk.records import read_records


@dataclass(frozen=True)
class Share:
    """What one worker reads: all records of `files`, and every `count`-th record of `shared`,
    from number `index` on."""

    files: Sequence[str]
    shared: Sequence[str] = ()
    index: int = 0
    count: int = 1


def share_of(files: Sequence[str | os.PathLike[str]], index: int, count: int) -> Share:
    """The share of worker `index` of `count`; the shares are disjoint and cover all records.

    Every worker gets the same number of whole files. The remaining files are read by all workers,
    each taking its own records, so no worker has a file more than the others.

    Raises:
        ValueError: `index` is not below `count`.
    """
    if not 0 <= index < count:
        raise ValueError(f"worker {index} of {count}: workers are counted from 0 to {count - 1}")
    names = [os.fspath(file) for file in files]
    whole = len(names) - len(names) % count
    return Share(names[:whole][index::count], names[whole:], index, count)


def records_of(share: Share) -> Iterator[bytes]:
    """The records of a share in order. Raises RecordError for a damaged file."""
    whole = chain.from_iterable(map(read_records, share.files))
    shared = chain.from_iterable(map(read_records, share.shared))
    return chain(whole, islice(shared, share.index, None, share.count))
