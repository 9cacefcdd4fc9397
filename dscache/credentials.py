"""Which credentials may be sent to which endpoint. Pure.

A project's `dscache.toml` comes with a repository, and anybody may have written it. Its endpoint
gets credentials that stand in the same file, or that the user has set for dscache alone. All
others it gets only once the user trusts the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

SECRETS = ("access_key", "secret_key", "session_token")
ENDPOINTS = ("endpoint", "public_endpoint")
CHAIN = "credentials of the AWS SDK"


class Owner(Enum):
    """Who has chosen a setting."""

    USER = "the user's file"
    PROJECT = "a project's file"
    DSCACHE = "a variable DSCACHE_*"
    AWS = "a variable AWS_*"
    CALLER = "the command line or a program"
    MACHINE = "what the AWS SDK finds on this machine"


FOR_A_PROJECT = frozenset({Owner.PROJECT, Owner.DSCACHE, Owner.CALLER})


class Source(NamedTuple):
    """Where a setting comes from; `name` is for messages."""

    owner: Owner
    name: str


class Withheld(NamedTuple):
    """The endpoint of the setting `endpoint` may not get `credential`, which is from `source`."""

    endpoint: str
    credential: str
    source: str


def may_be_sent(credential: Owner, endpoint: Owner) -> bool:
    """Whether credentials that one owner has chosen may go to an endpoint that another has."""
    return endpoint is not Owner.PROJECT or credential in FOR_A_PROJECT


def withheld(settings: Mapping[str, Any], sources: Mapping[str, Source]) -> list[Withheld]:
    """Return all credentials that may not be sent to an endpoint which they would be sent to."""
    return [
        Withheld(endpoint, credential, source.name)
        for endpoint in ENDPOINTS
        if settings.get(endpoint)
        for credential, source in _used(settings, sources).items()
        if not may_be_sent(source.owner, sources[endpoint].owner)
    ]


def _used(settings: Mapping[str, Any], sources: Mapping[str, Source]) -> dict[str, Source]:
    """The credentials that requests are signed with; without an access key, the AWS SDK's."""
    if not settings.get("access_key"):
        return {CHAIN: Source(Owner.MACHINE, "this machine")}
    return {name: sources[name] for name in SECRETS if settings.get(name)}
