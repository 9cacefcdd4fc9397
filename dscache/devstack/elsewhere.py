"""Find a store that is already configured, which `dscache up` then uses."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from .. import config as configuration
from ..config import Config
from ..errors import ConfigError, UnknownProfile
from ..protocol.layout import DATASETS
from ..store.s3 import Store

TIMEOUT_S = 3.0


def configured(profile: str, own_endpoint: str, environ: Mapping[str, str]) -> Config | None:
    """Return the configuration of another store than the stack's, if it answers; else None.

    Args:
        profile: the profile that the stack writes.
        own_endpoint: the endpoint of the stack's store.
        environ: environment variables.

    Raises AccessDenied or BucketMissing if the configuration does not work with that store.
    """
    try:
        config = configuration.load(environ=environ)
    except UnknownProfile as error:
        if error.profile != profile:
            raise
        return None  # it is the default profile, and about to be written
    from_own_profile = config.origin.get("endpoint", "").endswith(f"[profiles.{profile}]")
    if not config.endpoint or config.endpoint == own_endpoint or from_own_profile:
        return None
    if not answers(config.require_endpoint()):
        return None
    next(Store(config).entries(DATASETS), None)
    return config


def answers(endpoint: str) -> bool:
    """Whether an HTTP server answers at the endpoint."""
    parts = urlsplit(endpoint)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def is_default(endpoint: str, environ: Mapping[str, str]) -> bool:
    """Whether `dscache get` without options uses this endpoint."""
    try:
        return configuration.load(environ=environ).endpoint == endpoint
    except ConfigError:
        return False
