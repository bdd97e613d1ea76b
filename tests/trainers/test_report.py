"""The report of a run, opened in a real browser, and what it says."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.browsing import chromium
from tests.conftest import CLASSES, Run, write_data_set
from trainers.runs.evaluated import Evaluated
from trainers.runs.label_issues import likely_label_errors
from trainers.runs.report import advice


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set where one sky is called rows, in training and in validation."""
    folder = write_data_set(tmp_path_factory.mktemp("wrong") / "data", training=12, validation=4)
    for split, name in (("training", "003.png"), ("validation", "501.png")):
        (folder / split / "sky" / name).rename(folder / split / "rows" / f"sky{name}")
    return folder


def test_the_report_stands_alone_and_shows_curves_mistakes_maps_and_label_errors(
    run: Run, mislabelled: Path, browser: Browser, tmp_path: Path
) -> None:
    arguments = ("--backbone", "efficientnet_lite0", "--size", 64, "--epochs", 12, "--lr", 0.01, "--tracker", "none")
    done = run("train-main", mislabelled, "--out", tmp_path / "run", *arguments)
    assert done.exit_code == 0, done.output
    asked: list[str] = []
    context = browser.new_context(viewport={"width": 900, "height": 900})
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "run" / "report.html").as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    titles = [title.text_content() for title in page.locator("h2").all()]
    assert titles == [
        "What to do next", "Curves", "Confusion matrix", "Most confused pairs", "Worst mistakes", "Likely label errors",
    ]  # fmt: skip
    images = page.locator("img")
    assert all(image.evaluate("image => image.naturalWidth > 0") for image in images.all())
    mistake = page.locator("#mistakes figure", has_text="sky501.png")
    assert mistake.locator("img").count() == 2  # the picture, and where the evidence for its answer lies
    assert "sky003.png" in (page.locator("#label-issues").text_content() or "")
    taken = tmp_path / "report.png"
    page.screenshot(path=taken, full_page=True)
    assert taken.stat().st_size > 20_000
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_label_errors_are_those_that_out_of_fold_probabilities_contradict() -> None:
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), 20)
    out_of_fold = np.full((60, 3), 0.1) + 0.7 * np.eye(3)[targets] + random.uniform(0, 0.02, (60, 3))
    out_of_fold /= out_of_fold.sum(axis=1, keepdims=True)
    wrong = targets.copy()
    wrong[5:8] = 1
    found = likely_label_errors([Path(str(row)) for row in range(60)], wrong, out_of_fold, CLASSES)
    said = {(item.path.name, item.label, item.likely) for item in found}
    assert said
    assert said <= {(str(row), CLASSES[1], CLASSES[0]) for row in (5, 6, 7)}  # its pruning may spare one


def test_advice_follows_the_figures() -> None:
    def rows(*losses: float) -> list[dict[str, float]]:
        return [{"validation_loss": loss} for loss in losses]

    targets = np.array([0, 0, 1, 1])
    right = Evaluated([Path("x")] * 4, targets, np.eye(2)[targets], ("a", "b"))
    wrong = Evaluated([Path("x")] * 4, targets, np.eye(2)[[0, 1, 1, 1]], ("a", "b"))
    head, whole = {"unfreeze": "head"}, {"unfreeze": "all"}
    assert any("lowest in epoch 2" in line for line in advice(rows(3, 1, 2, 3, 3), whole, right, None))
    assert any("train for more epochs" in line for line in advice(rows(3, 2, 1), whole, right, None))
    assert any("--unfreeze all" in line for line in advice(rows(1, 1), head, right, None))
    said = advice(rows(1, 1), whole, wrong, None)
    assert any("Of the 2 pictures of a, 50% were recognised" in line for line in said)
    assert any("a and b are confused most (1 pictures)" in line for line in said)
