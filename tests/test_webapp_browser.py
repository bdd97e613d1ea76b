"""The page in a real browser, served by a real server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import draw
from tests.serving import served

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        assert not os.environ.get("CANONISTIA_REQUIRE_BROWSER"), "chromium is required here and not installed"
        pytest.skip("chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    with served(tiny_bundle) as url:
        yield url


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_person_uploads_two_pictures_and_reads_the_answers(
    browser: Browser, address: str, tmp_path: Path, javascript: bool
) -> None:
    for label in ("sky", "rows"):
        draw(label, 8).save(tmp_path / f"{label}.png")
    (tmp_path / "text.jpg").write_text("text")
    context = browser.new_context(java_script_enabled=javascript, viewport={"width": 360, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(address)
    page.get_by_label("Pictures").set_input_files([tmp_path / name for name in ("sky.png", "text.jpg", "rows.png")])
    if javascript:
        assert page.locator("#chosen img").count() == 3
    page.get_by_role("button", name="Classify").click()
    page.wait_for_selector("article")
    assert page.locator("article").count() == 3
    assert page.locator("article.bad").count() == 1
    assert page.locator("meter").count() == 4
    natural = page.locator("article img").first.evaluate("image => image.naturalWidth") if javascript else 72
    assert natural == 72
    assert page.get_by_text("Not answered").is_visible()
    body = page.locator("body").bounding_box()
    assert body is not None
    assert body["width"] <= 360  # nothing sticks out on a telephone
    assert not complaints  # no script or style was refused by the page's own policy
    context.close()
