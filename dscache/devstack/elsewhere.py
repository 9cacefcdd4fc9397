"""A store that is configured already and answers: then none is started."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from .. import config as configuration
from ..config import Config
from ..errors import ConfigError, UnknownProfile
from ..protocol.layout import DATASETS
from ..store.s3 import Store

ANSWER_S = 3.0


def configured(profile: str, own_endpoint: str, environ: Mapping[str, str]) -> Config | None:
    """The configuration of a store that is not this stack's and answers, else None.

    `profile` is the stack's own. Raises AccessDenied or BucketMissing when that store cannot be
    worked with as it is configured.
    """
    try:
        found = configuration.load(environ=environ)
    except UnknownProfile as error:
        if error.profile != profile:
            raise
        return None  # the default profile is the one that is about to be written
    from_own_profile = found.origin.get("endpoint", "").endswith(f"[profiles.{profile}]")
    if not found.endpoint or found.endpoint == own_endpoint or from_own_profile:
        return None
    if not answers(found.require_endpoint()):
        return None
    next(Store(found).entries(DATASETS), None)
    return found


def answers(endpoint: str) -> bool:
    """Whether anything speaks HTTP at the endpoint."""
    parts = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=ANSWER_S)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def is_default(endpoint: str, environ: Mapping[str, str]) -> bool:
    """Whether plain `dscache get` talks to this endpoint."""
    try:
        return configuration.load(environ=environ).endpoint == endpoint
    except ConfigError:
        return False
