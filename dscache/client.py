"""The client: request datasets, wait for them, get them. Light until the store is needed."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from . import config as configuration
from .cache.cache import Cache
from .canonical import key_of
from .config import Config
from .errors import DatasetReplaced
from .folder.selection import Selection
from .protocol.observer import NullObserver
from .protocol.priority import DEFAULT_PRIORITY
from .reading.dataset import Dataset
from .reference import members_of, named_key, spec_of

if TYPE_CHECKING:
    import threading

    from .protocol.observer import Observer
    from .reference import DatasetReference
    from .remote import Remote
    from .store.s3 import Store

MAX_REPLACEMENTS = 5


class Client:
    """Gets datasets from one bucket and keeps them in one local cache.

    Without a configuration, the configuration files and the environment decide
    (`dscache.config.load`).
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or configuration.load()
        self.cache = Cache(
            self.config.home,
            shared=self.config.shared_homes,
            limit_bytes=self.config.cache_limit,
        )
        self._remote: Remote | None = None

    def __repr__(self) -> str:
        return f"Client(endpoint={self.config.endpoint!r}, bucket={self.config.bucket!r})"

    @property
    def store(self) -> Store:
        """The object store; the first use loads the HTTP library."""
        return self.remote.store

    @property
    def remote(self) -> Remote:
        """The part of the client that uses the store, made at first use."""
        if self._remote is None:
            from .remote import Remote  # not at the top: a cache hit needs no HTTP library

            self._remote = Remote(self.config)
        return self._remote

    @property
    def name(self) -> str:
        """The client's name, for people to read: the configured name, or `user@host`."""
        return self.remote.name

    def get(
        self,
        reference: DatasetReference,
        *,
        build: bool = True,
        retry: bool = False,
        timeout_s: float | None = None,
        splits: Collection[str] | None = None,
        shards: Collection[int] | None = None,
        priority: int = DEFAULT_PRIORITY,
        parallel: int | None = None,
        observer: Observer | None = None,
    ) -> Dataset:
        """Return a dataset; request a build and download it if necessary.

        Args:
            reference: a Spec, its members as a dict, the path of a JSON file, a key or a topic.
            build: if False, raise NotCached instead of requesting a build.
            retry: request a build even if an earlier one failed.
            timeout_s: seconds to wait for the build, which continues after that. A store that
                does not answer the first request by then counts as unreachable.
            splits: fetch only these splits.
            shards: fetch only the shards with these indices (in each split, from 0).
            priority: 0 to 9; higher is built sooner.
            parallel: connections to download over, 1–8; None adapts the number.
            observer: gets reports of progress.

        Raises:
            SpecError, ConfigError: invalid argument or configuration.
            NotCached: the dataset is not built and `build` is False.
            BuildFailed: the build failed, now or earlier.
            WaitTimeout: `timeout_s` passed first; the build continues.
            AccessDenied, StoreUnreachable: the store refuses the credentials, or does not respond.
            NoSpace: the local disk cannot hold the dataset.
            IntegrityError: the data differs from what the ready marker says.
        """
        selection = Selection.of(splits, shards)
        key = named_key(reference)
        members = None if key else members_of(reference)
        requested = key or key_of(members or {})
        dataset = self.cache.open(requested, selection)
        if dataset is not None:
            return dataset
        from .remote import RequestOptions

        observer = observer or NullObserver()
        options = RequestOptions(
            build=build, retry=retry, timeout_s=timeout_s, priority=priority, observer=observer
        )
        spec = spec_of(members) if members else self.remote.spec_of_key(requested)
        for _ in range(MAX_REPLACEMENTS):
            live = self.remote.live(spec, options)
            try:
                self.remote.download(
                    live,
                    self.cache,
                    requested=requested,
                    selection=selection,
                    parallel=parallel,
                    observer=observer,
                )
            except DatasetReplaced as error:
                observer.note(f"{error}; checking again")
                continue
            dataset = self.cache.open(live.spec.key, selection)
            if dataset is not None:
                return dataset
            observer.note(f"{requested}: removed from the cache after its download; checking again")
        raise DatasetReplaced(
            f"{requested}: replaced or removed {MAX_REPLACEMENTS} times while it was downloaded"
        )

    def request(self, reference: DatasetReference, *, priority: int = DEFAULT_PRIORITY) -> str:
        """Request a dataset, and return the topic to wait for without waiting: `<key>.<nonce>`.

        A dataset that is ready is not requested again; `wait` for its topic then returns
        immediately. Raises the errors of `get` for invalid specs and for the store.
        """
        return self.remote.request(spec_of(reference), priority)

    def wait(
        self,
        reference: DatasetReference,
        *,
        timeout_s: float | None = None,
        observer: Observer | None = None,
        given_up: threading.Event | None = None,
    ) -> str:
        """Wait until a dataset is ready, and return its key; nothing is downloaded.

        Args:
            reference: a topic that `request` returned, or anything that `get` takes (which is
                then requested).
            timeout_s: seconds to wait; None waits for ever.
            observer: gets reports of progress.
            given_up: setting it from another thread ends the wait within half a second.

        Raises:
            BuildFailed: the build failed.
            WaitTimeout: `timeout_s` passed first; the build continues.
            NotCached: the request does not exist.
        """
        from .remote import RequestOptions

        options = RequestOptions(
            timeout_s=timeout_s, observer=observer or NullObserver(), given_up=given_up
        )
        return self.remote.wait(reference, options)

    def cancel(self, reference: DatasetReference) -> int:
        """Withdraw requests of this client; return their number.

        A topic withdraws that request, anything else all requests of this client for the key. The
        build stops only when all its requests are withdrawn.
        """
        return self.remote.cancel(reference)

    def url(self, reference: DatasetReference, *, expires_s: int = 3600) -> str:
        """Return a URL that downloads the zip of a ready dataset without credentials.

        `expires_s` is its lifetime in seconds, at most 7 days. Raises NotCached, ValueError.
        """
        return self.remote.url(reference, expires_s)
