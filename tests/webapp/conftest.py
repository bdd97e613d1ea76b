"""What the browser tests share: a test file names its server in a fixture ``address``."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browsing import chromium


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:
    """Return a browser that is closed before the server stops: its idle connections would hold that up."""
    with chromium() as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Return a window of its own for a test."""
    opened = browser.new_context(viewport={"width": 1000, "height": 900})
    yield opened
    opened.close()
