"""The bucket, its two users and their least-privilege policies.

The policies are `policies/client.json` and `policies/builder.json`, with BUCKET in place of the
bucket's name. A server that has just started refuses administration for a moment; that is retried.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, S3Error

from .errors import StackError
from .process import wait_until
from .record import Credentials, Login

Role = Literal["client", "builder"]
POLICIES = Path(__file__).with_name("policies")
PLACEHOLDER = "BUCKET"
INITIALISING_S = 30.0
TIMEOUT_S = 10.0


def policy(role: Role, bucket: str) -> dict[str, Any]:
    """Return the policy of a role for a bucket, or for a pattern of buckets such as `t-*`."""
    text = (POLICIES / f"{role}.json").read_text()
    document: dict[str, Any] = json.loads(text.replace(PLACEHOLDER, bucket))
    return document


def provision(endpoint: str, users: Credentials, *, buckets: str) -> None:
    """Create both users and their policies for the buckets. Raises StackError.

    Safe to repeat: secrets and policies that were changed by hand are restored.
    """
    with _pool() as pool:
        admin = MinioAdmin(
            endpoint=urlsplit(endpoint).netloc,
            credentials=StaticProvider(users.root.access_key, users.root.secret_key),
            secure=endpoint.startswith("https://"),
            http_client=pool,
        )
        _add_user(admin, "client", users.client, buckets)
        _add_user(admin, "builder", users.builder, buckets)


def create_bucket(endpoint: str, root: Login, bucket: str) -> None:
    """Create the bucket if it does not exist. Raises StackError."""
    with _pool() as pool:
        client = Minio(
            urlsplit(endpoint).netloc,
            access_key=root.access_key,
            secret_key=root.secret_key,
            secure=endpoint.startswith("https://"),
            http_client=pool,
        )

        def create() -> None:
            if not client.bucket_exists(bucket):
                client.make_bucket(bucket)

        _when_initialised(create, f"bucket {bucket!r} could not be created")


def _add_user(admin: Any, role: Role, login: Login, buckets: str) -> None:
    name = f"dscache-{role}"
    failure = f"user {login.access_key!r} could not be set up"
    _when_initialised(lambda: admin.policy_add(name, policy=policy(role, buckets)), failure)
    _when_initialised(lambda: admin.user_add(login.access_key, login.secret_key), failure)
    _when_initialised(lambda: admin.policy_set(name, user=login.access_key), failure)


def _when_initialised(
    action: Callable[[], object], failure: str, *, clock: Callable[[], float] = time.monotonic
) -> None:
    """Run an action; retry while the server reports that it is still initialising."""
    last_error: Exception | None = None

    def done() -> bool:
        nonlocal last_error
        try:
            action()
        except (MinioAdminException, S3Error) as error:
            last_error = error
            return "NotInitialized" not in str(error)
        last_error = None
        return True

    try:
        wait_until(done, timeout_s=INITIALISING_S, clock=clock)
    except urllib3.exceptions.HTTPError as error:
        raise StackError(f"{failure}: no answer from the store: {error}") from error
    if last_error is not None:
        raise StackError(f"{failure}: {last_error}") from last_error


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(TIMEOUT_S), retries=urllib3.Retry(2, backoff_factor=0.2)
    )
