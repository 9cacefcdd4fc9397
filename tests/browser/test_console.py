"""A person looks at the bucket in the store's own web console, as the client user."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dscache.devstack.localstore import LocalStore
from dscache.protocol.layout import archive, claim, ready
from dscache.store.s3 import Store

pytestmark = [pytest.mark.browser, pytest.mark.store]
KEY = f"photos_1.0.0_{'0' * 32}"
PATIENCE_MS = 30_000
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    """The installed browser's program."""
    found = next((path for path in map(shutil.which, PROGRAMS) if path), None)
    assert found, f"none of {', '.join(PROGRAMS)} is on PATH: apt-get install chromium"
    return found


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """An empty page of a fresh headless browser; requests to other machines fail the test."""
    outside: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("request", lambda r: outside.append(r.url) if is_outside(r.url) else None)
            yield page
        finally:
            browser.close()
    assert outside == []


def is_outside(url: str) -> bool:
    """Whether a request leaves this machine."""
    return re.match(r"(https?|wss?)://(?!127\.0\.0\.1[:/])", url) is not None


def log_in(page: Page, server: LocalStore, secret_key: str) -> None:
    page.goto(f"{server.console}/login")
    page.locator("#accessKey").fill(server.client_config.access_key)
    page.locator("#secretKey").fill(secret_key)
    page.keyboard.press("Enter")


def test_a_dataset_is_found_in_the_console(page: Page, new_store: Callable[[], LocalStore]) -> None:
    server = new_store()
    store = Store(server.builder_config)
    for name in (archive(KEY, 0), ready(KEY), claim(KEY)):
        store.put(name, b"{}")
    log_in(page, server, server.client_config.secret_key)
    page.locator("#acknowledge-confirm").click()  # the licence
    page.locator(f"#manageBucket-{server.bucket}").click()
    page.get_by_text("datasets", exact=True).click()
    expect(page.get_by_text(f"{KEY}.zip", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text(f"{KEY}.ready", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text(f"{KEY}.json", exact=True)).to_have_count(0)


def test_a_wrong_password_does_not_let_in(page: Page, store_server: LocalStore) -> None:
    log_in(page, store_server, "not-the-password")
    expect(page.get_by_text("invalid login", exact=False).first).to_be_visible(timeout=PATIENCE_MS)
    assert page.url.endswith("/login")
