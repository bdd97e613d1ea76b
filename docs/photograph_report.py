"""Take docs/report.png, the picture of a training report on drawn pictures. Needs chromium.

Run it after a change to the report: python -m docs.photograph_report
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.conftest import write_data_set
from trainers.commands.train_main import train_main
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS

ROOT = Path(__file__).resolve().parent.parent


def photograph(out: Path) -> None:
    """Train on drawn pictures, three of them with a wrong label, and photograph the report."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data = write_data_set(Path(folder) / "data", training=16, validation=8)
        for split, number in (("training", "003"), ("validation", "501"), ("validation", "504")):
            (data / split / "sky" / f"{number}.png").rename(data / split / "rows" / f"sky {number}.png")
        recipe = replace(MAIN_DEFAULTS, epochs=12, lr=3e-3, tracker="none")
        train_main(data, Path(folder) / "drawn pictures", NetworkConfig("efficientnet_lite0", size=96), recipe)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto((Path(folder) / "drawn pictures" / "report.html").as_uri())
        page.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    photograph(ROOT / "docs" / "report.png")
