"""Take the pictures of the web pages: docs/page.png for the README, and docs/pages/. Needs chromium.

Run it after a change to the pages or the shipped bundle, in the development install: python -m docs.photograph_page
"""

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.serving import served

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (360, 1280)  # pixels
SCHEMES = ("light", "dark")
SAMPLES = ("coast", "both_coast_and_highway", "doubtful_kitchen_or_living_room")
NO_SCENE = ROOT / "docs" / "report.png"  # of none of the classes
SHOWN = [*(ROOT / "data" / "samples" / f"{name}.jpg" for name in SAMPLES), NO_SCENE]


def photograph(out: Path) -> None:
    """Serve the shipped bundle and photograph every page at every width, in light and dark."""
    with (
        tempfile.TemporaryDirectory() as corrections,
        served(ROOT / "models" / "scene15", "--collect", corrections) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in SCHEMES:
                page = open_page(browser, width, scheme)
                for name in ("form", "answers", "model", "api"):
                    show(page, address, name)
                    save(page, out / "pages" / f"{name}-{width}-{scheme}.png")
                page.context.close()
        page = open_page(browser, 1280, "light")
        page.goto(address)
        send(page)
        save(page, out / "page.png")
        browser.close()


def open_page(browser: Browser, width: int, scheme: str) -> Page:
    """Return a browser page: a phone's if it is narrow, a desktop's otherwise."""
    small = width < 600
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        locale="en",
        is_mobile=small,
        has_touch=small,
    )
    return context.new_page()


def show(page: Page, address: str, name: str) -> None:
    """Open one of the pages."""
    if name in ("model", "api"):
        page.goto(address + {"model": "model/scene15", "api": "api/docs"}[name])
        return
    page.goto(address)
    if name == "form":
        return
    send(page)
    page.locator(".why summary").last.click()
    page.locator(".maps img").nth(1).wait_for()
    page.locator(".correction summary").last.click()


def choose(page: Page) -> None:
    """Choose pictures that get every kind of answer."""
    page.locator("#pictures").set_input_files(SHOWN)


def send(page: Page) -> None:
    """Have the pictures classified."""
    choose(page)
    page.locator("article").nth(len(SHOWN) - 1).wait_for()
    page.evaluate("document.activeElement.blur()")


def save(page: Page, path: Path) -> None:
    """Photograph a page from top to bottom, with 128 colours."""
    # The window is as high as the page: chromium takes a "full page" picture as a device with a mouse would show it.
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"] if page.viewport_size else WIDTHS[-1]
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)  # until pictures are decoded and animations have ended
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path.parent.mkdir(exist_ok=True)
    picture.quantize(palette=palette(picture), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    page.set_viewport_size({"width": width, "height": 800})


def palette(picture: Image.Image) -> Image.Image:
    """Return 128 colours for a page: its 32 most frequent, exactly, and others spread over all that occur.

    Spread by an octree: by frequency alone, the few pixels of a map would share the colours of photographs.
    """
    colours, counts = np.unique(np.asarray(picture).reshape(-1, 3), axis=0, return_counts=True)
    frequent = colours[np.argsort(-counts)[:32]]
    spread = picture.quantize(96, Image.Quantize.FASTOCTREE).getpalette() or []
    made = Image.new("P", (1, 1))
    made.putpalette([*frequent.ravel().tolist(), *spread])
    return made


if __name__ == "__main__":
    photograph(ROOT / "docs")
