"""Every decoder: what parses bytes or text that others can write, with its documented errors."""

from __future__ import annotations

import functools

from fuzz import of_builder, of_client, of_handlers
from fuzz.running import Decoder

# Functions that are named like decoders and are not in the table, and why.
ELSEWHERE = {
    "dscache_builder.attempt.publish.read_ready": "reads with markers.read_ready_register",
    "dscache_builder.hosting.host_main.load_package": "loads the builder's own code",
    "dscache_builder.raw_watch.read_revision": "reads with markers.read_raw_revision",
    "dscache_sdk.plain.load_handler": "takes the name of an entry point in builder.toml",
}


@functools.cache
def decoders() -> tuple[Decoder, ...]:
    """The table."""
    return (*of_client.table(), *of_builder.table(), *of_handlers.table())
