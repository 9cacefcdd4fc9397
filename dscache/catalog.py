"""What the bucket holds, for display: the state of a key, and lists of datasets and requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec

from .errors import IntegrityError, ObjectTooLarge, StoreUnreachable
from .protocol import layout, markers
from .protocol.manifests import Alias, Failure, Live, Progress, Ready, Retired
from .protocol.state import State, state_of
from .spec import Spec, split_key
from .store.objects import Objects
from .store.signed_http import deadline_in
from .terminal import logger

log = logger(__name__)

T = TypeVar("T")

READERS = 16
_reads_large = threading.Lock()
LARGE_BYTES = 1 << 20  # ready markers above it are read one at a time, so that they fit in memory
READ_S = 20.0  # for one item of a list
MOST_UNSERVED = 2  # items of a list


@dataclass(frozen=True)
class Status:
    """The state of a key. `key` differs from the key `asked` for when that is an alias."""

    asked: str
    key: str
    state: State
    ready: Ready | None
    dataset: dict[str, Any] | None
    failure: Failure | None
    progress: Progress | None
    requests: int

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, whose names are stable."""
        return {
            "key": self.key,
            "asked": self.asked,
            "state": self.state.value,
            "requests": self.requests,
            "progress": msgspec.to_builtins(self.progress) if self.progress else None,
            "failure": msgspec.to_builtins(self.failure) if self.failure else None,
            "dataset": self.dataset,
        }


def summary(live: Live) -> dict[str, Any]:
    """Return the main facts of a ready dataset in JSON form: key, config, splits, bytes, times."""
    return {
        "key": live.spec.key,
        "dataset_name": live.spec.dataset_name,
        "handler_version": live.spec.handler_version,
        "dataset_config": live.spec.dataset_config,
        "splits": live.splits,
        "examples": sum(live.splits.values()),
        "shards": len(live.shards),
        "bytes": live.zip_size,
        "zip": live.zip_key,
        "built_at": live.timings.finished_at,
        "build_s": live.timings.build_s,
        "bad_samples": live.samples_left_out,
        "raw_revision": live.raw_revision,
    }


def status(store: Objects, key: str) -> Status:
    """Return the status of a key, following aliases. Sends about ten requests at most."""
    return _status(store, key, whole=True)


def _status(store: Objects, key: str, *, whole: bool) -> Status:
    asked, (ready, dataset) = key, _read_ready(store, key, whole=whole)
    for _ in range(markers.MAX_ALIASES):
        if not isinstance(ready, Alias):
            break
        key = ready.key
        ready, dataset = _read_ready(store, key, whole=whole)
    requests = [
        request
        for entry in store.entries(layout.requests_of(key))
        if (request := layout.parse_request(entry.name))
    ]
    failure = None if isinstance(ready, Live) else newest_failure(store, key, ready)
    progress = markers.read_progress(store, key) if requests else None
    state = state_of(ready, [failure] if failure else [], requests, progress, store.now())
    return Status(asked, key, state, ready, dataset, failure, progress, requests=len(requests))


def newest_failure(store: Objects, key: str, ready: Ready | None) -> Failure | None:
    """Return the newest failure of a key, unless the dataset was built and retired since.

    Failures are read from the newest on until one can be decoded: a thousand requests that fail
    leave a thousand failures.
    """
    since = ready.retired_at if isinstance(ready, Retired) else 0.0
    entries = sorted(store.entries(layout.failures_of(key)), key=lambda entry: -entry.modified)
    for entry in entries:
        failure = markers.read_known(store, entry.name, Failure)
        if failure is not None:
            return failure if failure.failed_at > since else None
    return None


def live_keys(store: Objects, name: str | None = None) -> list[str]:
    """Return the keys of all datasets (with that dataset_name), newest first, from names alone.

    These are the keys with a ready marker and a zip, so no aliases, and no retired datasets except
    between the two steps of retiring. Sends one request for every thousand objects.
    """
    built_at: dict[str, float] = {}
    zips = set()
    for entry in store.entries(f"{layout.DATASETS}{name}_" if name else layout.DATASETS):
        if key := layout.parse_ready(entry.name):
            built_at[key] = entry.modified
        elif key := layout.parse_archive(entry.name):
            zips.add(key)
    return sorted(zips & built_at.keys(), key=lambda key: (-built_at[key], key))


def live_datasets(
    store: Objects, keys: Sequence[str], limit: int | None = None
) -> list[dict[str, Any]]:
    """Return the summaries of the first `limit` of these keys that are live, newest first.

    Sends one request for each key, in batches, until there are enough.
    """
    live: list[dict[str, Any]] = []
    wanted = len(keys) if limit is None else limit
    begin = 0
    reads = _Reads()
    with ThreadPoolExecutor(READERS) as pool:
        while begin < len(keys) and len(live) < wanted:
            batch = keys[begin : begin + max(wanted - len(live), READERS)]
            read = pool.map(lambda key: reads.one(_summary_of_readable, store, key), batch)
            live += [dataset for dataset in read if dataset is not None]
            begin += len(batch)
    return sorted(live[:wanted], key=lambda dataset: -dataset["built_at"])


def raw_revisions(store: Objects, names: Iterable[str]) -> dict[str, str]:
    """Return the revision of the raw data as builders last saw it, by dataset_name."""
    revisions, reads = {}, _Reads()
    for name in set(names):
        raw = reads.one(markers.read_raw_revision, store, name)
        if raw is not None:
            revisions[name] = raw.revision
    return revisions


def raw_changed(dataset: Mapping[str, Any], revisions: Mapping[str, str]) -> bool | None:
    """Whether the raw data has changed since the dataset (a summary) was built; None if unknown."""
    current, built_from = revisions.get(dataset["dataset_name"]), dataset["raw_revision"]
    return None if not (current and built_from) else current != built_from


def outstanding(store: Objects, name: str | None = None) -> list[Status]:
    """Return the status of all keys (with that dataset_name) that have outstanding requests.

    The ready markers are without their tables, of which a list shows nothing.
    """
    entries = store.entries(f"{layout.REQUESTS}{name}_" if name else layout.REQUESTS)
    keys = {request.key for e in entries if (request := layout.parse_request(e.name))}
    reads, read = _Reads(), partial(_status, whole=False)
    with ThreadPoolExecutor(READERS) as pool:
        statuses = pool.map(lambda key: reads.one(read, store, key), sorted(keys))
        return [status for status in statuses if status is not None]


class _Reads:
    """Reads for a list, which is about the others, too, when one of its objects cannot be read.

    Safe to use from several threads. The list says nothing if the store serves none any more: more
    than MOST_UNSERVED objects that it does not serve are an error.
    """

    def __init__(self) -> None:
        self._unserved = 0

    def one(self, read: Callable[[Objects, str], T | None], store: Objects, of: str) -> T | None:
        """Return what `read` returns, or None, and a warning, if an object is damaged or missing.

        Raises StoreUnreachable.
        """
        try:
            with deadline_in(READ_S):
                return read(store, of)
        except StoreUnreachable as error:
            self._unserved += 1
            if self._unserved > MOST_UNSERVED:
                raise
            log.warning("%s: %s", of, error)
        except IntegrityError as error:
            log.warning("%s", error)
        return None


def spec_of_key(store: Objects, key: str) -> Spec | None:
    """Return the spec of a key, from its ready marker or a request; None if there is neither."""
    assert split_key(key)
    ready = markers.read_ready(store, key)
    if ready is not None:
        return ready.spec
    for entry in store.entries(layout.requests_of(key)):
        name = layout.parse_request(entry.name)
        with suppress(IntegrityError):  # its content is of another key: no word about this one
            request = markers.read_request(store, key, name.nonce) if name else None
            if request is not None:
                return request.spec
    return None


def _summary_of_readable(store: Objects, key: str) -> dict[str, Any] | None:
    """The summary of a live dataset; None for a marker that is damaged or of a newer dscache.

    `dscache show` reports the error.
    """
    try:
        return _read_ready(store, key, whole=False)[1]
    except IntegrityError:
        return None


def _read_ready(
    store: Objects, key: str, *, whole: bool
) -> tuple[Ready | None, dict[str, Any] | None]:
    """Return a ready marker, without its tables unless `whole`, and the summary of a live dataset.

    Raises IntegrityError.
    """
    try:
        return _summarized(markers.read_ready(store, key, LARGE_BYTES), whole=whole)
    except ObjectTooLarge:
        with _reads_large:
            return _summarized(markers.read_ready(store, key), whole=whole)


def _summarized(ready: Ready | None, *, whole: bool) -> tuple[Ready | None, dict[str, Any] | None]:
    if not isinstance(ready, Live):
        return ready, None
    bare = msgspec.structs.replace(ready, members=[], features={}, bad_samples=[])
    return ready if whole else bare, summary(ready)
