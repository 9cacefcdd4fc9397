"""The functions of `import dscache`: one client for the process, made at first use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .client import Client

if TYPE_CHECKING:
    from .client import Observer, What
    from .dataset import Dataset


def get(
    what: What,
    *,
    build: bool = True,
    retry: bool = False,
    timeout_s: float | None = None,
    splits: Collection[str] | None = None,
    shards: Collection[int] | None = None,
    priority: int = 5,
    observer: Observer | None = None,
) -> Dataset:
    """`Client.get` with the configuration of files and environment."""
    return Client().get(
        what,
        build=build,
        retry=retry,
        timeout_s=timeout_s,
        splits=splits,
        shards=shards,
        priority=priority,
        observer=observer,
    )


def request_dataset(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    priority: int = 5,
) -> str:
    """Ask for a dataset and return at once, with the topic to wait for: `<key>.<nonce>`."""
    from .spec import Spec

    spec = Spec.of(dataset_name, handler_version, dataset_config)
    return Client().request(spec, priority=priority)


async def wait_for_completion(topic: str, *, timeout_s: float | None = None) -> str:
    """Wait for what `request_dataset` asked for; returns the key of the ready dataset.

    `dscache.get(key)` then downloads it. Cancelling the coroutine ends the waiting, not the build.
    Raises BuildFailed, WaitTimeout, and what talking to the store raises.
    """
    given_up = threading.Event()
    try:
        return await asyncio.to_thread(Client().wait, topic, timeout_s=timeout_s, given_up=given_up)
    except asyncio.CancelledError:
        given_up.set()
        raise
