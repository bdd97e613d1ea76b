"""The answers in a real browser: they begin when pictures are chosen, and stay while other pages are read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route

from tests.conftest import draw
from tests.serving import running, served
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of the shipped bundle, whose classes the samples show."""
    with served(ROOT / "models" / "scene15") as url:
        yield url


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    opened = context.new_page()
    opened.goto(address)
    return opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return twelve pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        draw("sky", number, (300, 200)).save(folder / f"{number:02d}.png")
    return sorted(folder.iterdir())


def names(page: Page) -> list[str]:
    return [card.locator(".name").inner_text() for card in page.locator("article").all()]


def posts(page: Page) -> list[Request]:
    """Return the list that every request which the page posts is added to."""
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    return sent


def test_answers_begin_when_pictures_are_chosen_in_several_requests(page: Page, pictures: list[Path]) -> None:
    sent = posts(page)
    page.locator("#pictures").set_input_files(pictures)
    page.locator("article").nth(11).wait_for()
    assert len(sent) > 2
    assert names(page) == [path.name for path in pictures]  # as chosen, whichever came first
    assert page.locator("#summary").inner_text().startswith("12 pictures")
    assert len({card.get_attribute("aria-labelledby") for card in page.locator("article").all()}) == 12


def test_the_first_answer_of_twelve_large_photos_waits_for_no_other(page: Page, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    draw("sky", 1, (4000, 3000)).save(photo, quality=95)
    assert photo.stat().st_size > 2e6
    posted: list[Route] = []
    most = [1]  # requests with pictures that reach the service

    def let_through(route: Route) -> None:
        if route.request.method == "POST":
            posted.append(route)
        if route.request.method != "POST" or len(posted) <= most[0]:
            route.continue_()

    page.route("**/*", let_through)
    page.locator("#pictures").set_input_files([photo] * 12)
    page.locator("article").first.wait_for()
    assert page.locator("article").count() < 12
    wait_until(lambda: page.wait_for_timeout(20) or len(posted) > 1, what="another request")
    most[0] = 12
    for route in posted[1:]:
        route.continue_()
    page.locator("article").nth(11).wait_for(timeout=120_000)


def test_what_is_chosen_again_is_added(page: Page, pictures: list[Path]) -> None:
    page.locator("#pictures").set_input_files(pictures[0])
    page.locator("article").wait_for()
    page.locator("#pictures").set_input_files(pictures[:2])  # the first one once more
    page.locator("article").nth(2).wait_for()
    assert names(page) == ["00.png", "00.png", "01.png"]


def test_answers_stay_while_other_pages_are_read_and_speak_the_language_chosen(
    page: Page, pictures: list[Path]
) -> None:
    page.locator("#pictures").set_input_files([*pictures[:2], SAMPLES / "coast.jpg"])
    page.locator("article").nth(2).wait_for()
    sent = posts(page)
    page.get_by_role("link", name="About the model").click()
    page.get_by_role("heading", name="In plain words").wait_for()
    assert page.url.endswith("/model/scene15")
    assert page.evaluate("document.activeElement.id") == "content"  # where a screen reader goes on
    page.get_by_role("link", name="Classify", exact=True).click()
    page.locator("article").nth(2).wait_for()
    page.get_by_role("link", name="API", exact=True).click()
    page.locator("#try").wait_for()
    page.go_back()
    page.locator("article").nth(2).wait_for()
    assert names(page) == ["00.png", "01.png", "coast.jpg"]
    assert sent == []  # nothing was asked again
    page.get_by_role("link", name="Español").click()
    page.locator("article .stage", has_text="primer modelo").nth(2).wait_for(state="attached")
    assert page.locator("html").get_attribute("lang") == "es"
    assert names(page) == ["00.png", "01.png", "coast.jpg"]
    page.locator("article summary").first.click()
    page.locator(".maps img").nth(1).wait_for()
    assert "Dónde ve el primer modelo" in page.locator("article").first.inner_text()


def test_maps_are_made_when_they_are_opened(page: Page) -> None:
    sent = posts(page)
    page.locator("#pictures").set_input_files(SAMPLES / "coast.jpg")
    page.locator("article").wait_for()
    assert page.locator(".maps img").count() == 0
    page.locator("article summary").first.click()
    page.locator(".maps img").nth(1).wait_for()
    assert [request.url.rpartition("/")[2] for request in sent] == ["", "maps"]
    page.locator("article summary").first.click()
    page.locator("article summary").first.click()
    assert page.locator(".maps img").nth(1).is_visible()
    assert len(sent) == 2


def test_the_order_and_a_filter_stand_beside_the_answers(page: Page, pictures: list[Path]) -> None:
    (pictures[0].parent / "text.jpg").write_text("text")
    page.locator("#pictures").set_input_files([SAMPLES / "coast.jpg", pictures[0].parent / "text.jpg", *pictures[:3]])
    (pictures[0].parent / "text.jpg").unlink()
    page.locator("article").nth(4).wait_for()
    page.get_by_label("Order").select_option("Most doubtful first")
    doubts = [float(str(card.get_attribute("data-doubt"))) for card in page.locator("article").all()]
    assert doubts == sorted(doubts, reverse=True)
    unsure = [card.locator(".unsure-why").count() > 0 for card in page.locator("article").all()]
    page.get_by_label("Only unsure").check()
    assert [card.is_visible() for card in page.locator("article").all()] == unsure
    assert page.get_by_text("None of these answers is unsure").is_visible() is not any(unsure)


def test_the_page_says_what_it_recognises_and_offers_samples(page: Page) -> None:
    assert "Coast" in page.locator("h1 ~ .knows").inner_text()
    assert "Tall building" in page.locator(".knows").inner_text()
    page.get_by_role("button", name="Try coast", exact=True).click()
    page.locator("article").wait_for()
    assert names(page) == ["coast.jpg"]
    assert page.get_by_role("heading", name="Coast").is_visible()
    page.locator("article summary").first.click()
    page.locator(".maps img").nth(1).wait_for()


def test_samples_work_without_javascript(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Try coast", exact=True).click()
    page.locator("article").wait_for()
    assert page.get_by_role("heading", name="Coast").is_visible()
    assert not page.locator(".maps img").first.is_visible()
    page.get_by_label("Only unsure").check()  # by style alone
    assert not page.locator("article").is_visible()
    context.close()


def test_on_a_telephone_the_button_is_in_sight_and_nothing_speaks_of_dropping(browser: Browser, address: str) -> None:
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 640})
    page = context.new_page()
    for language in ("en", "es"):
        page.goto(f"{address}?lang={language}")
        for button in page.locator(".picker label").all():
            box = button.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 640
        text = page.locator("body").inner_text().lower()
        assert "drop" not in text
        assert "suelta" not in text
    context.close()


def test_what_is_too_large_is_said_before_it_is_sent(browser: Browser, tmp_path: Path, light_bundle: Path) -> None:
    draw("sky", 1, (1600, 1200)).save(tmp_path / "large.png")
    draw("sky", 1).save(tmp_path / "small.png")
    with served(light_bundle, "--max-upload", 2) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        sent = posts(page)
        page.locator("#pictures").set_input_files([tmp_path / "large.png", tmp_path / "small.png"])
        page.locator("article").nth(1).wait_for()
        assert "more than 2 MB" in page.locator("article").first.inner_text()
        assert page.locator("article.bad").count() == len(sent) == 1
        context.close()


def test_over_the_rate_the_page_waits_and_goes_on(browser: Browser, pictures: list[Path], light_bundle: Path) -> None:
    with served(light_bundle, "--rate", "2/2second") as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.locator("#pictures").set_input_files(pictures)
        page.locator("article").nth(11).wait_for()
        assert page.locator("article.bad").count() == 0
        context.close()


def test_a_server_that_is_gone_becomes_a_sentence_and_is_tried_again(
    browser: Browser, pictures: list[Path], light_bundle: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    with running("--model", light_bundle) as server:
        page.goto(server.address)
        server.process.terminate()
        server.process.wait(timeout=30)
        page.locator("#pictures").set_input_files(pictures[0])
        page.locator("article.bad").wait_for()
        assert "The service cannot be reached" in page.locator("article").inner_text()
        page.get_by_role("link", name="About the model").click()
        page.get_by_role("alert").wait_for()
        assert "The service cannot be reached" in page.get_by_role("alert").inner_text()
        with running("--model", light_bundle, port=server.port):
            page.get_by_role("button", name="Try again").click()
            page.locator("article:not(.bad)").wait_for()
            page.close()
    context.close()


def test_the_api_page_tries_it(page: Page, address: str) -> None:
    page.goto(f"{address}api/docs")
    for words in ("curl -F file=@picture.jpg", '"label_1": "Coast"', "import requests", "await fetch"):
        assert words in page.locator("main").inner_text()
    page.locator("#try-file").set_input_files(SAMPLES / "coast.jpg")
    page.get_by_role("button", name="Send").click()
    page.locator("#try-answer", has_text="results").wait_for()
    shown = page.locator("#try-answer").inner_text()
    assert shown.startswith("200 ")
    assert '"label_1": "Coast"' in shown
