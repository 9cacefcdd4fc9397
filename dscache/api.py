"""The functions of `import dscache`, which share one client for each configuration."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from . import config as configuration
from .client import Client
from .config import Config
from .protocol.priority import DEFAULT_PRIORITY

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .protocol.observer import Observer
    from .reading.dataset import Dataset
    from .reference import DatasetReference

_clients: dict[Config, Client] = {}


def get(
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
    """Return a dataset as `Client.get` does, with the configuration of files and environment."""
    return _client().get(
        reference,
        build=build,
        retry=retry,
        timeout_s=timeout_s,
        splits=splits,
        shards=shards,
        priority=priority,
        parallel=parallel,
        observer=observer,
    )


def request_dataset(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    priority: int = DEFAULT_PRIORITY,
) -> str:
    """Request a dataset, and return the topic to wait for without waiting: `<key>.<nonce>`.

    Raises the errors of `Client.request`.
    """
    from .spec import Spec

    spec = Spec.of(dataset_name, handler_version, dataset_config)
    return _client().request(spec, priority=priority)


async def wait_for_completion(topic: str, *, timeout_s: float | None = None) -> str:
    """Wait for the dataset of a topic that `request_dataset` returned; return its key.

    `dscache.get(key)` then downloads it. Cancelling the coroutine ends the wait, not the build.
    Raises the errors of `Client.wait`.
    """
    import asyncio  # not at the top: a cache hit needs neither of the two
    from concurrent.futures import Future

    given_up = threading.Event()
    wait = functools.partial(_client().wait, topic, timeout_s=timeout_s, given_up=given_up)
    try:
        return await asyncio.wrap_future(_in_thread(wait, Future()))
    except asyncio.CancelledError:
        given_up.set()
        raise


def _client() -> Client:
    """Return the client of the current configuration; concurrent waits share its connections."""
    config = configuration.load()
    return _clients.setdefault(config, Client(config))


def _in_thread(wait: Callable[[], str], result: Future[str]) -> Future[str]:
    """Call `wait` in a daemon thread of its own, and return the future of its result.

    asyncio's default executor has too few threads to wait for hundreds of configs, and the
    interpreter joins the threads of every executor at exit.
    """

    def run() -> None:
        try:
            result.set_result(wait())
        except BaseException as error:  # noqa: BLE001 - a future carries any exception
            result.set_exception(error)

    result.set_running_or_notify_cancel()
    threading.Thread(target=run, name="dscache-wait", daemon=True).start()
    return result


def _forget_clients() -> None:
    """Make new clients in a forked child: connections and threads are the parent's."""
    _clients.clear()


os.register_at_fork(after_in_child=_forget_clients)
