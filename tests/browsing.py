"""A real Chromium for the tests that need one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser; skip the test where none is installed.

    Close it before a server stops: its idle connections would hold that up.
    """
    path = shutil.which("chromium")
    if path is None:
        assert not os.environ.get("CANONISTIA_REQUIRE_BROWSER"), "chromium is required here and not installed"
        pytest.skip("chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield started
        started.close()
