"""The client: ask for datasets, wait for them, get them.

`get` looks at the local cache first, and imports what talks to a store only when it must.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from . import config as configuration
from .cache import Cache
from .canonical import key_of, split_key
from .config import Config
from .dataset import Dataset
from .errors import BuildFailed, DatasetReplaced, DscacheError, NotCached
from .observer import Observer, Silent
from .what import is_topic, members_of, named_key, spec_of

if TYPE_CHECKING:
    import threading

    from .hub import Waiter
    from .manifests import Failure, Live
    from .spec import Spec
    from .store import Store
    from .wait import Outstanding
    from .what import What

REPLACED_TRIES = 5


class Client:
    """Asks one bucket for datasets and keeps them in one local cache.

    Without a configuration the files and the environment decide (`dscache.config.load`).
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or configuration.load()
        self.cache = Cache(
            self.config.home,
            shared=self.config.shared_homes,
            limit_bytes=self.config.cache_limit,
        )
        self._store: Store | None = None

    def __repr__(self) -> str:
        return f"Client(endpoint={self.config.endpoint!r}, bucket={self.config.bucket!r})"

    @property
    def store(self) -> Store:
        """The object store; connecting to it is put off until it is needed."""
        if self._store is None:
            from .store import Store

            self._store = Store(self.config)
        return self._store

    # -- get

    def get(
        self,
        what: What,
        *,
        build: bool = True,
        retry: bool = False,
        timeout_s: float | None = None,
        splits: Collection[str] | None = None,
        shards: Collection[int] | None = None,
        priority: int = 5,
        parallel: int | None = None,
        observer: Observer | None = None,
    ) -> Dataset:
        """The dataset of a spec (or of the file, dict or key that tells it), built if need be.

        Args:
            what: a Spec, its members as a dict, the path of a JSON file, a key, or a topic.
            build: when False, raise NotCached instead of asking for a build.
            retry: ask again even if an earlier request failed.
            timeout_s: seconds to wait for the build; the build goes on after that. A store that
                does not even answer the first question by then is StoreUnreachable.
            splits: fetch only these splits.
            shards: fetch only the shards with these numbers (of each split, from 0).
            priority: 0–9, higher is built sooner.
            parallel: connections to download over, 1–8; None finds out how many help.
            observer: is told of progress.

        Raises:
            SpecError, ConfigError: the words are off.
            NotCached: it is not there and `build` is False.
            BuildFailed: the builder said why not, now or earlier.
            WaitTimeout: `timeout_s` passed first; the build goes on.
            AccessDenied, StoreUnreachable: the store refuses the credentials, or does not answer.
            NoSpace: the local disk cannot hold the dataset.
            IntegrityError: the bytes are not what the ready marker says.
        """
        watcher = observer or Silent()
        key = named_key(what)
        members = None if key else members_of(what)
        asked = key or key_of(members or {})
        dataset = self.cache.open(asked, splits=splits, shards=shards)
        if dataset is not None:
            return dataset
        spec = spec_of(members) if members else self._spec_of_key(asked)
        for _ in range(REPLACED_TRIES):
            live = self._live(spec, build, retry, timeout_s, priority, watcher)
            try:
                self._download(asked, live, splits, shards, parallel, watcher)
            except DatasetReplaced as error:
                watcher.note(f"{error}; looking again")
                continue
            dataset = self.cache.open(live.spec.key, splits=splits, shards=shards)
            if dataset is not None:
                return dataset
            watcher.note(f"{asked}: removed here as soon as it had come; looking again")
        raise DatasetReplaced(
            f"{asked}: replaced or removed {REPLACED_TRIES} times while it was downloaded"
        )

    def _spec_of_key(self, key: str) -> Spec:
        from .catalog import spec_of_key

        spec = spec_of_key(self.store, key)
        if spec is None:
            raise NotCached(
                f"{key} is not in bucket {self.config.bucket!r}; a key alone cannot be built: "
                "give the config (see `dscache ls` for what is there)"
            )
        return spec

    def _live(
        self,
        spec: Spec,
        build: bool,
        retry: bool,
        timeout_s: float | None,
        priority: int,
        watcher: Observer,
    ) -> Live:
        from .manifests import Live
        from .markers import resolve
        from .signed import within

        with within(timeout_s):
            resolved, ready = resolve(self.store, spec)
            if isinstance(ready, Live):
                return ready
            if not build:
                raise NotCached(
                    f"{resolved.key} is not built in bucket {self.config.bucket!r}; "
                    "leave out --no-build to have it built"
                )
            if not retry:
                self._raise_earlier_failure(resolved)
            answer = self._ask_and_wait(resolved, timeout_s, priority, watcher)
        if isinstance(answer, Live):
            return answer
        raise build_failed(answer)

    def _raise_earlier_failure(self, spec: Spec) -> None:
        """An earlier failure is reported, unless somebody asks again already or it was a cancel."""
        from .catalog import status
        from .state import State

        found = status(self.store, spec.key)
        if found.state is State.FAILED and found.failure and found.failure.kind != "cancelled":
            raise build_failed(found.failure, earlier=True)

    def _download(
        self,
        asked: str,
        live: Live,
        splits: Collection[str] | None,
        shards: Collection[int] | None,
        parallel: int | None,
        watcher: Observer,
    ) -> Path:
        started = time.monotonic()
        transferred = [0]

        def progress(done: int, total: int) -> None:
            transferred[0] = done
            watcher.transferred(done, total)

        path = self.cache.fetch(
            live,
            lambda: self.store.presign_get(live.zip_key),
            asked=asked,
            splits=splits,
            shards=shards,
            progress=progress,
            waiting=lambda: watcher.note("another process here downloads it; waiting for that"),
            note=watcher.note,
            parallel=parallel,
        )
        if transferred[0]:
            self._record_usage(live.spec.key, transferred[0], time.monotonic() - started)
        return path

    def _record_usage(self, key: str, size: int, seconds: float) -> None:
        """Best effort: a download counts even when nobody could write that down."""
        import datetime

        from . import layout, manifests

        usage = manifests.Usage(
            client=self.name, downloaded_at=self.store.now(), bytes=size, seconds=round(seconds, 3)
        )
        day = datetime.datetime.fromtimestamp(usage.downloaded_at, datetime.UTC).date()
        with contextlib.suppress(DscacheError):
            self.store.put(layout.usage(key, day, _unique()), manifests.encode(usage))

    # -- ask, wait, cancel

    @property
    def name(self) -> str:
        """Who asks, for other people to read (the configured name, or `user@host`)."""
        import getpass
        import socket

        if self.config.client_name:
            return self.config.client_name
        try:
            return f"{getpass.getuser()}@{socket.gethostname()}"
        except (OSError, KeyError):  # a container's user without a name
            return socket.gethostname()

    def request(self, what: What, *, priority: int = 5) -> str:
        """Ask for a dataset and return at once, with the topic to wait for: `<key>.<nonce>`.

        A dataset that is ready already is not asked for again; waiting for the topic then returns
        at once. Raises as `get` does for specs and stores.
        """
        from . import markers, wait
        from .manifests import Live

        spec, ready = markers.resolve(self.store, spec_of(what))
        if isinstance(ready, Live):
            return wait.Outstanding(spec, _unique()).topic
        return self._ask(spec, priority).topic

    def wait(
        self,
        what: What,
        *,
        timeout_s: float | None = None,
        observer: Observer | None = None,
        given_up: threading.Event | None = None,
    ) -> str:
        """Wait until what was asked for is ready, and return its key; nothing is downloaded.

        `what` is a topic of `request`, or anything `get` takes (then it is asked for). Raises
        BuildFailed, WaitTimeout, NotCached (nobody asked for that topic).
        """
        from .manifests import Live
        from .signed import within

        watcher = observer or Silent()
        with within(timeout_s):
            out = self._outstanding(what)
            if isinstance(out, str):
                return out
            answer = self._wait(out, timeout_s, 5, watcher, given_up)
        if not isinstance(answer, Live):
            raise build_failed(answer)
        return answer.spec.key

    def _outstanding(self, what: What) -> Outstanding | str:
        """What to wait for, or the key when it is ready already."""
        from . import layout, manifests, markers, wait
        from .manifests import Live

        if not (isinstance(what, str) and is_topic(what)):
            spec, ready = markers.resolve(self.store, spec_of(what))
            return ready.spec.key if isinstance(ready, Live) else self._ask(spec, 5)
        key, nonce = wait.split_topic(what)
        name = layout.request(key, nonce)
        for _ in range(2):  # once more when it is gone: it may have been answered in between
            ready = markers.read_ready(self.store, key)
            if isinstance(ready, Live):
                return ready.spec.key
            if ready is not None:
                return wait.Outstanding(ready.spec, nonce)
            failure = markers.read_failure(self.store, key, nonce)
            if failure is not None:
                raise build_failed(failure)
            found = self.store.get(name)
            if found is not None:
                request = manifests.decode(found.body, manifests.Request, where=name)
                return wait.Outstanding(request.spec, nonce)
        raise NotCached(f"{name} is not there and was not answered; ask again with the config")

    def cancel(self, what: What) -> int:
        """Say that nobody here needs this build any more; returns how many requests that was.

        A topic cancels that request; anything else all requests of this client for the key. The
        builder stops only when everybody who asked has cancelled.
        """
        from .cancel import cancel

        named = isinstance(what, str) and (is_topic(what) or split_key(what))
        return cancel(self.store, str(what) if named else spec_of(what).key, client=self.name)

    def url(self, what: What, *, expires_s: int = 3600) -> str:
        """A URL that downloads the zip of a ready dataset without credentials. Raises NotCached."""
        from .manifests import Live
        from .markers import resolve

        key = named_key(what)
        spec, ready = resolve(self.store, self._spec_of_key(key) if key else spec_of(what))
        if not isinstance(ready, Live):
            raise NotCached(f"{spec.key} is not built; `dscache get` has it built")
        return self.store.presign_get(ready.zip_key, expires_s=expires_s)

    def _ask(self, spec: Spec, priority: int) -> Outstanding:
        from .wait import ask

        return ask(self.store, spec, nonce=_unique(), client=self.name, priority=priority)

    def _ask_and_wait(
        self, spec: Spec, timeout_s: float | None, priority: int, watcher: Observer
    ) -> Live | Failure:
        from .hub import hub_of

        with hub_of(self.config).waiting(spec.key) as signals:
            out = self._ask(spec, priority)
            return self._wait_on(signals, out, timeout_s, priority, watcher, None)

    def _wait(
        self,
        out: Outstanding,
        timeout_s: float | None,
        priority: int,
        watcher: Observer,
        given_up: threading.Event | None,
    ) -> Live | Failure:
        from .hub import hub_of

        with hub_of(self.config).waiting(out.key) as signals:
            return self._wait_on(signals, out, timeout_s, priority, watcher, given_up)

    def _wait_on(
        self,
        signals: Waiter,
        out: Outstanding,
        timeout_s: float | None,
        priority: int,
        watcher: Observer,
        given_up: threading.Event | None,
    ) -> Live | Failure:
        from .wait import Waiting, wait

        how = Waiting(
            signals,
            timeout_s=timeout_s,
            on_progress=watcher.progress,
            on_note=watcher.note,
            watch=signals.watch,
        )
        if given_up is not None:
            how.given_up = given_up
        return wait(self.store, out, lambda spec: self._ask(spec, priority), how)


def _unique() -> str:
    """A nonce that is never used again."""
    import secrets  # not at the top: a cache hit needs none, and it loads OpenSSL

    return secrets.token_hex(8)


def build_failed(failure: Failure, *, earlier: bool = False) -> BuildFailed:
    """The exception that tells a failure, with the remote traceback and log as details."""
    when = "failed earlier" if earlier else "failed"
    again = "; ask again with --retry once that is mended" if earlier else ""
    named = not failure.sample or failure.sample in failure.message
    sample = "" if named else f" (sample {failure.sample})"
    message = f"the build {when}: {failure.kind}: {failure.message}{sample}{again}"
    details = "\n".join(part.rstrip() for part in (failure.traceback, failure.log_tail) if part)
    return BuildFailed(message, kind=failure.kind, details=details)
