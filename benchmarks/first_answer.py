"""Twelve photos of 3 MB, chosen on the page in a real browser: how long until the first answer, and until the last.

    python -m benchmarks.first_answer [--model scene15] [--rounds 5]

Needs chromium and the development install. The photos have 12 megapixels of edges, texture and noise, each from its own
seed. Server and browser share this machine. The time runs from the choice of the files to the card on the page. The
load of the machine is printed, too: what else runs there counts.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from PIL import Image
from playwright.sync_api import Browser

from benchmarks.large_photos import draw_photo
from benchmarks.machine import processor_name
from benchmarks.serve.processes import running
from cascade.threads import processors
from tests.browsing import chromium

_PHOTOS = 12
_BYTES = 3_000_000  # of a photo, at least and about
_PATIENCE = 300_000  # milliseconds


def write_photos(folder: Path) -> list[Path]:
    """Write the photos, at the lowest quality that makes them large enough, found on a sixteenth of the first one."""
    part = draw_photo().crop((0, 0, 1000, 750))
    quality = next(quality for quality in range(40, 100, 4) if 16 * len(encoded(part, quality)) >= _BYTES)
    paths = [folder / f"{number:02d}.jpg" for number in range(_PHOTOS)]
    for seed, path in enumerate(paths):
        path.write_bytes(encoded(draw_photo(seed), quality))
    return paths


def encoded(photo: Image.Image, quality: int) -> bytes:
    """Return a photo as a JPEG."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return file.getvalue()


def seconds(browser: Browser, address: str, photos: Sequence[Path]) -> tuple[float, float]:
    """Return the seconds until the first answer and until the last, on a page just opened."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address)
    started = time.perf_counter()
    page.locator("#pictures").set_input_files(list(photos))
    page.locator("article").first.wait_for(timeout=_PATIENCE)
    first = time.perf_counter() - started
    page.locator("article").nth(len(photos) - 1).wait_for(timeout=_PATIENCE)
    last = time.perf_counter() - started
    context.close()
    return first, last


def main() -> None:
    """Measure, and print the medians with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder))
        size = sum(path.stat().st_size for path in photos) / len(photos) / 1e6
        with running("canonistia", "serve", "--model", options.model, "--port") as (_, port), chromium() as browser:
            took = [seconds(browser, f"http://127.0.0.1:{port}/", photos) for _ in range(options.rounds)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{processor_name()}, {processors()} cores, load {load} (1, 5, 15 minutes)")
    print(f"{_PHOTOS} photos of {size:.1f} MB, {options.rounds} rounds")
    for name, values in zip(("first answer", "last answer"), zip(*took, strict=True), strict=True):
        print(f"  {name:<14}{median(values):7.2f} s  [{min(values):.2f}, {max(values):.2f}]")


if __name__ == "__main__":
    main()
