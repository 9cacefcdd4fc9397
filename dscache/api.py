"""The functions of `import dscache`: one client for the process, made at first use."""

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
    """`Client.get` with the configuration of files and environment."""
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
    """Ask for a dataset and return at once, with the topic to wait for: `<key>.<nonce>`."""
    from .spec import Spec

    spec = Spec.of(dataset_name, handler_version, dataset_config)
    return _client().request(spec, priority=priority)


async def wait_for_completion(topic: str, *, timeout_s: float | None = None) -> str:
    """Wait for what `request_dataset` asked for; returns the key of the ready dataset.

    `dscache.get(key)` then downloads it. Cancelling the coroutine ends the waiting, not the build.
    Raises BuildFailed, WaitTimeout, and what talking to the store raises.
    """
    import asyncio  # not at the top: `get` needs neither
    from concurrent.futures import Future

    given_up = threading.Event()
    wait = functools.partial(_client().wait, topic, timeout_s=timeout_s, given_up=given_up)
    try:
        return await asyncio.wrap_future(_in_thread(wait, Future()))
    except asyncio.CancelledError:
        given_up.set()
        raise


def _client() -> Client:
    """One client for each configuration, so that all who wait share connections."""
    config = configuration.load()
    return _clients.setdefault(config, Client(config))


def _in_thread(wait: Callable[[], str], answer: Future[str]) -> Future[str]:
    """Wait in a thread of its own, which does not keep the process from ending.

    asyncio's are too few to wait for a sweep of configs, and every executor's are waited for.
    """

    def run() -> None:
        try:
            answer.set_result(wait())
        except BaseException as error:  # noqa: BLE001 - a future carries whatever was raised
            answer.set_exception(error)

    answer.set_running_or_notify_cancel()
    threading.Thread(target=run, name="dscache-wait", daemon=True).start()
    return answer


def _begin_anew() -> None:
    """In a forked child: what the parent has begun is the parent's."""
    _clients.clear()


os.register_at_fork(after_in_child=_begin_anew)
