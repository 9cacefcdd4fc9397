"""The part of a client that uses the store, for what the local cache does not hold.

Importing this loads the HTTP library; a cache hit does not import it.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .cache.cache import Cache
from .catalog import spec_of_key, status
from .config import Config
from .download.options import TransferOptions
from .errors import BuildFailed, DscacheError, NotCached
from .folder.selection import Selection
from .protocol import layout, manifests, markers
from .protocol.cancel import cancel
from .protocol.manifests import Failure, Live
from .protocol.observer import NullObserver, Observer
from .protocol.priority import DEFAULT_PRIORITY
from .protocol.state import State
from .protocol.subscriptions import Waiter, subscriptions_of
from .protocol.wait import OutstandingRequest, WaitOptions, put_request, split_topic, wait
from .reference import is_topic, named_key, spec_of
from .spec import Spec, split_key
from .store.s3 import Store
from .store.signed_http import deadline_in
from .terminal import logger

if TYPE_CHECKING:
    from .reference import DatasetReference

log = logger(__name__)


@dataclass(frozen=True)
class RequestOptions:
    """How to request a dataset that is not ready, and how to wait for it.

    Attributes:
        build: request a build; if False, NotCached is raised instead.
        retry: request it again even if an earlier build failed.
        timeout_s: seconds to wait; None waits for ever.
        priority: 0 to 9, higher is built sooner.
        observer: gets reports of progress.
        given_up: setting it from another thread ends the wait.
    """

    build: bool = True
    retry: bool = False
    timeout_s: float | None = None
    priority: int = DEFAULT_PRIORITY
    observer: Observer = field(default_factory=NullObserver)
    given_up: threading.Event | None = None


class Remote:
    """Requests, waits for and downloads datasets of one bucket. Errors are those of `Client`."""

    def __init__(self, config: Config, store: Store | None = None) -> None:
        self.config = config
        self.store = store or Store(config)

    @property
    def name(self) -> str:
        """The client's name, for people to read: the configured name, or `user@host`."""
        if self.config.client_name:
            return _as_text(self.config.client_name)
        try:
            return _as_text(f"{getpass.getuser()}@{socket.gethostname()}")
        except (OSError, KeyError):  # a container's user without a name
            return socket.gethostname()

    # -- a dataset's ready marker, built if necessary

    def spec_of_key(self, key: str) -> Spec:
        """Return the spec of a key that is in the bucket. Raises NotCached."""
        spec = spec_of_key(self.store, key)
        if spec is None:
            raise NotCached(
                f"{key} is not in bucket {self.config.bucket!r}; a key alone cannot be built: "
                "give the config (`dscache ls` lists the keys)"
            )
        return spec

    def live(self, spec: Spec, options: RequestOptions) -> Live:
        """Return the ready marker of a spec; request a build and wait for it if necessary."""
        with deadline_in(options.timeout_s):
            resolved, ready = markers.resolve(self.store, spec)
            if isinstance(ready, Live):
                log.debug("%s is ready: %s", resolved.key, ready.zip_key)
                return ready
            log.debug("%s is not built", resolved.key)
            if not options.build:
                raise NotCached(
                    f"{resolved.key} is not built in bucket {self.config.bucket!r}; "
                    "leave out --no-build to request a build"
                )
            if not options.retry:
                self._raise_earlier_failure(resolved)
            return self._answer(resolved.key, lambda: self._request(resolved, options), options)

    def _raise_earlier_failure(self, spec: Spec) -> None:
        """Raise BuildFailed if the last build failed, unless it was cancelled or is requested."""
        current = status(self.store, spec.key)
        failure = current.failure
        if current.state is State.FAILED and failure and failure.kind != "cancelled":
            raise build_failed(failure, earlier=True)

    # -- requests

    def request(self, spec: Spec, priority: int) -> str:
        """Request a spec and return the topic to wait for, even if the dataset is ready."""
        resolved, ready = markers.resolve(self.store, spec)
        if isinstance(ready, Live):
            return OutstandingRequest(resolved, _nonce()).topic
        return self._request(resolved, RequestOptions(priority=priority)).topic

    def wait(self, reference: DatasetReference, options: RequestOptions) -> str:
        """Wait until the referenced dataset is ready, and return its key."""
        with deadline_in(options.timeout_s):
            outstanding = self._outstanding(reference, options)
            if isinstance(outstanding, str):
                return outstanding
            return self._answer(outstanding.key, lambda: outstanding, options).spec.key

    def cancel(self, reference: DatasetReference) -> int:
        """Withdraw one request (a topic), or all requests of this client for a key."""
        named = isinstance(reference, str) and (is_topic(reference) or split_key(reference))
        target = str(reference) if named else spec_of(reference).key
        return cancel(self.store, target, client=self.name)

    def url(self, reference: DatasetReference, expires_s: int) -> str:
        """Return a presigned URL of the zip of a ready dataset."""
        key = named_key(reference)
        spec = self.spec_of_key(key) if key else spec_of(reference)
        resolved, ready = markers.resolve(self.store, spec)
        if not isinstance(ready, Live):
            raise NotCached(f"{resolved.key} is not built; `dscache get` requests a build")
        return self.store.presign_get(ready.zip_key, expires_s=expires_s)

    def _outstanding(
        self, reference: DatasetReference, options: RequestOptions
    ) -> OutstandingRequest | str:
        """Return the request to wait for, or the key if the dataset is ready."""
        if isinstance(reference, str) and is_topic(reference):
            return self._outstanding_of_topic(reference)
        spec, ready = markers.resolve(self.store, spec_of(reference))
        return ready.spec.key if isinstance(ready, Live) else self._request(spec, options)

    def _outstanding_of_topic(self, topic: str) -> OutstandingRequest | str:
        key, nonce = split_topic(topic)
        name = layout.request(key, nonce)
        for _ in range(2):  # a request that is missing may have been answered since: check again
            ready = markers.read_ready(self.store, key)
            if isinstance(ready, Live):
                return ready.spec.key
            if ready is not None:
                return OutstandingRequest(ready.spec, nonce)
            failure = markers.read_failure(self.store, key, nonce)
            if failure is not None:
                raise build_failed(failure)
            request = markers.read_request(self.store, key, nonce)
            if request is not None:
                return OutstandingRequest(request.spec, nonce)
        raise NotCached(
            f"{name} does not exist and was not answered; request it again with the config"
        )

    def _request(self, spec: Spec, options: RequestOptions) -> OutstandingRequest:
        outstanding = put_request(
            self.store, spec, nonce=_nonce(), client=self.name, priority=options.priority
        )
        log.debug("requested %s with priority %d", outstanding.topic, options.priority)
        return outstanding

    def _answer(
        self, key: str, request: Callable[[], OutstandingRequest], options: RequestOptions
    ) -> Live:
        """Subscribe, request and wait, in this order. Raises BuildFailed if the build fails."""
        with subscriptions_of(self.config).waiting(key) as signals:
            answer = self._wait_for(request(), signals, options)
        if isinstance(answer, Live):
            return answer
        raise build_failed(answer)

    def _wait_for(
        self, outstanding: OutstandingRequest, signals: Waiter, options: RequestOptions
    ) -> Live | Failure:
        wait_options = WaitOptions(
            signals,
            timeout_s=options.timeout_s,
            on_progress=options.observer.progress,
            on_note=options.observer.note,
            watch=signals.watch,
        )
        if options.given_up is not None:
            wait_options.given_up = options.given_up
        return wait(
            self.store, outstanding, lambda spec: self._request(spec, options), wait_options
        )

    # -- download

    def download(
        self,
        live: Live,
        cache: Cache,
        *,
        requested: str,
        selection: Selection,
        parallel: int | None,
        observer: Observer,
    ) -> Path:
        """Download a dataset into the cache, and record the download in the bucket.

        `requested` is the key that was requested, an alias if it is not that of the dataset.
        """
        started, transferred = time.monotonic(), 0

        def progress(done: int, total: int) -> None:
            nonlocal transferred
            transferred = done
            observer.transferred(done, total)

        path = cache.fetch(
            live,
            lambda: self.store.presign_get(live.zip_key),
            selection,
            TransferOptions(parallel=parallel, progress=progress),
            asked=requested,
            waiting=lambda: observer.note("waiting for another process to download it"),
            note=observer.note,
        )
        if transferred:
            self._record_usage(live.spec.key, transferred, time.monotonic() - started)
        return path

    def _record_usage(self, key: str, size: int, seconds: float) -> None:
        """Record a download; an error of the store does not fail the download."""
        usage = manifests.Usage(
            client=self.name, downloaded_at=self.store.now(), bytes=size, seconds=round(seconds, 3)
        )
        day = datetime.datetime.fromtimestamp(usage.downloaded_at, datetime.UTC).date()
        with contextlib.suppress(DscacheError):
            self.store.put(layout.usage(key, day, _nonce()), manifests.encode(usage))


def _nonce() -> str:
    return secrets.token_hex(8)


def build_failed(failure: Failure, *, earlier: bool = False) -> BuildFailed:
    """Return the exception for a failure, with the remote traceback and log as its details."""
    when = "failed earlier" if earlier else "failed"
    remedy = "; once it is fixed, request it again with --retry" if earlier else ""
    is_named = not failure.sample or failure.sample in failure.message
    sample = "" if is_named else f" (sample {failure.sample})"
    message = f"the build {when}: {failure.kind}: {failure.message}{sample}{remedy}"
    details = "\n".join(part.rstrip() for part in (failure.traceback, failure.log_tail) if part)
    return BuildFailed(message, kind=failure.kind, details=details)


def _as_text(name: str) -> str:
    """The name with bytes that are not UTF-8 spelled out: variables may hold any bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
