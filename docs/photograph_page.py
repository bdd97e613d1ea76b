"""Takes docs/page.png, the picture of the page in the README. Needs the development install and chromium.

Run it after a change to the page or the shipped bundle: python -m docs.photograph_page
"""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.serving import served

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("coast", "tall_building", "forest", "doubtful_kitchen_or_living_room")


def photograph(out: Path) -> None:
    """Serve the shipped bundle, upload four samples and photograph the answers."""
    samples = [ROOT / "data" / "samples" / f"{name}.jpg" for name in SHOWN]
    with served(ROOT / "models" / "scene15") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(address)
        page.get_by_label("Pictures").set_input_files(samples)
        page.get_by_role("button", name="Classify").click()
        page.wait_for_selector("article")
        page.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    photograph(ROOT / "docs" / "page.png")
