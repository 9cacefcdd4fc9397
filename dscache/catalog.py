"""What is in the bucket, for people: the state of a key, and the list of all datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from .errors import IntegrityError
from .protocol import layout, markers
from .protocol.manifests import Alias, Failure, Live, Progress, RawRevision, Ready, Request, Retired
from .protocol.state import State, state_of
from .spec import Spec, split_key
from .store.objects import Objects

READERS = 16


@dataclass(frozen=True)
class Status:
    """All that can be said of one key. `key` is the resolved one when `asked` is an alias."""

    asked: str
    key: str
    state: State
    ready: Ready | None
    failure: Failure | None
    progress: Progress | None
    requests: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with stable names."""
        live = self.ready if isinstance(self.ready, Live) else None
        return {
            "key": self.key,
            "asked": self.asked,
            "state": self.state.value,
            "requests": self.requests,
            "progress": msgspec.to_builtins(self.progress) if self.progress else None,
            "failure": msgspec.to_builtins(self.failure) if self.failure else None,
            "dataset": summary(live) if live else None,
        }


def summary(live: Live) -> dict[str, Any]:
    """The main facts of a ready dataset, JSON-able: key, config, splits, bytes, times."""
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
        "bad_samples": len(live.bad_samples),
        "raw_revision": live.raw_revision,
    }


def status(store: Objects, key: str) -> Status:
    """Look at one key, following aliases. Costs a handful of requests."""
    asked, ready = key, markers.read_ready(store, key)
    for _ in range(markers.MAX_ALIASES):
        if not isinstance(ready, Alias):
            break
        key, ready = ready.key, markers.read_ready(store, ready.key)
    requests = [
        request
        for entry in store.entries(layout.requests_of(key))
        if (request := layout.parse_request(entry.name))
    ]
    failure = None if isinstance(ready, Live) else newest_failure(store, key, ready)
    progress = markers.read_progress(store, key) if requests else None
    state = state_of(ready, [failure] if failure else [], requests, progress, store.now())
    return Status(asked, key, state, ready, failure, progress, requests=len(requests))


def newest_failure(store: Objects, key: str, ready: Ready | None) -> Failure | None:
    """The failure people should read first; one before a dataset that was cleaned away is history.

    Only the newest is read: a thousand requests that fail leave a thousand failures.
    """
    since = ready.retired_at if isinstance(ready, Retired) else 0.0
    entries = sorted(store.entries(layout.failures_of(key)), key=lambda entry: -entry.modified)
    for entry in entries:
        failure = markers.read_known(store, entry.name, Failure)
        if failure is not None:
            return failure if failure.failed_at > since else None
    return None


def live_keys(store: Objects, name: str | None = None) -> list[str]:
    """The keys of all datasets (of that dataset_name), newest first, from names alone.

    Those that have a ready marker and a zip: no alias and, but for a moment, none that was cleaned
    away. Costs one request for a thousand objects.
    """
    built_at: dict[str, float] = {}
    zips = set()
    for entry in store.entries(f"{layout.DATASETS}{name}_" if name else layout.DATASETS):
        if key := layout.parse_ready(entry.name):
            built_at[key] = entry.modified
        elif key := layout.parse_archive(entry.name):
            zips.add(key)
    return sorted(zips & built_at.keys(), key=lambda key: (-built_at[key], key))


def live_datasets(store: Objects, keys: Sequence[str], limit: int | None = None) -> list[Live]:
    """The ready markers of the first `limit` of these keys that are live, newest first.

    One request each; no more are read than it takes.
    """
    found: list[Live] = []
    wanted = len(keys) if limit is None else limit
    begin = 0
    with ThreadPoolExecutor(READERS) as pool:
        while begin < len(keys) and len(found) < wanted:
            some = keys[begin : begin + max(wanted - len(found), READERS)]
            read = pool.map(lambda key: _read_ready(store, key), some)
            found += [marker for marker in read if isinstance(marker, Live)]
            begin += len(some)
    return sorted(found[:wanted], key=lambda marker: -marker.timings.finished_at)


def raw_revisions(store: Objects, names: Iterable[str]) -> dict[str, str]:
    """The revision of the raw data as builders last saw them, by dataset_name."""
    revisions = {}
    for name in set(names):
        raw = markers.read_known(store, layout.raw(name), RawRevision)
        if raw is not None:
            revisions[name] = raw.revision
    return revisions


def raw_changed(live: Live, revisions: Mapping[str, str]) -> bool | None:
    """Whether the raw data are others now than those it was built from; None when unknown."""
    now = revisions.get(live.spec.dataset_name)
    return None if not (now and live.raw_revision) else now != live.raw_revision


def outstanding(store: Objects, name: str | None = None) -> list[Status]:
    """The keys (of that dataset_name) somebody waits for."""
    entries = store.entries(f"{layout.REQUESTS}{name}_" if name else layout.REQUESTS)
    keys = {request.key for e in entries if (request := layout.parse_request(e.name))}
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda key: status(store, key), sorted(keys)))


def spec_of_key(store: Objects, key: str) -> Spec | None:
    """The spec of a key, from its ready marker or from a request; None when there is neither."""
    assert split_key(key)
    ready = markers.read_ready(store, key)
    if ready is not None:
        return ready.spec
    for entry in store.entries(layout.requests_of(key)):
        if layout.parse_request(entry.name):
            request = markers.read_known(store, entry.name, Request)
            if request is not None:
                return request.spec
    return None


def _read_ready(store: Objects, key: str) -> Ready | None:
    try:
        return markers.read_ready(store, key)
    except IntegrityError:
        return None  # of a newer dscache, or damaged: `show` tells
