"""dscache-builder, but it kills itself (SIGKILL) before its n-th request to the store.

n is $CRASH_BEFORE; the progress, preview and log objects are not counted: they decide nothing.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

from dscache.store.s3 import Store
from dscache_builder.__main__ import main

REQUESTS = (
    "get", "head", "put", "delete", "entries", "create_upload", "upload_part", "list_parts",
    "complete_upload", "abort_upload",
)  # fmt: skip
HINTS = (".progress", ".preview.png", ".log")
serial = itertools.count(1)
crash_before = int(os.environ["CRASH_BEFORE"])


def counted(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def before(self: Store, name: str, *rest: Any, **more: Any) -> Any:
        if not name.endswith(HINTS) and next(serial) == crash_before:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, name, *rest, **more)

    return before


for request in REQUESTS:
    setattr(Store, request, counted(getattr(Store, request)))
main()
