"""The check of conditional creates, while a builder deletes stray cancels."""

from __future__ import annotations

from typing import Any

import pytest

from dscache.errors import StoreError
from dscache.protocol import layout
from dscache.protocol.selftest import check_conditional_create
from dscache.store.s3 import Store

pytestmark = pytest.mark.store


class Reconciled(Store):
    """The bucket, with a builder that deletes stray cancels as soon as they are written."""

    def put(self, name: str, body: bytes, **how: Any) -> str:
        etag = super().put(name, body, **how)
        if layout.parse_cancel(name):
            self.delete(name)
        return etag


class Careless(Store):
    """A store that ignores conditions."""

    def put(self, name: str, body: bytes, **how: Any) -> str:
        return super().put(name, body)


def test_a_builder_that_deletes_the_cancel_is_no_fault_of_the_store(store: Store) -> None:
    for nonce in ("a", "b"):
        check_conditional_create(Reconciled(store.config), nonce)


def test_clients_and_builders_are_allowed_to_check(
    client_store: Store, builder_store: Store
) -> None:
    check_conditional_create(client_store, "a")
    check_conditional_create(builder_store, "b")


def test_a_store_that_ignores_conditions_is_found_out(store: Store) -> None:
    with pytest.raises(StoreError, match="ignores `If-None-Match"):
        check_conditional_create(Careless(store.config), "a")
