"""How much of the bad samples a checkpoint keeps, so that any number of them fits. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dscache.protocol.manifests import BadSample

WITH_TEXT = 1_000
LISTED = 10_000


def listed(bad: Sequence[BadSample], before: int) -> list[BadSample]:
    """Those of a shard's bad samples to list, when `before` were bad in other shards.

    The first ones of a dataset keep their text, and the next ones their ids. What is not repeatable
    is always listed: it decides whether the dataset is, and there are few (a worker died for each).
    """
    keeping = [
        sample
        for number, sample in enumerate(bad, before)
        if number < LISTED or not sample.repeatable
    ]
    return [
        sample if number < WITH_TEXT else msgspec.structs.replace(sample, error="", traceback="")
        for number, sample in enumerate(keeping, before)
    ]
