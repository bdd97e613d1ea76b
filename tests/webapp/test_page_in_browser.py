"""The page in a real browser, served by a real server."""

import base64
import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from cascade.images.decoding import decode
from cascade.rules.unsure import doubtfulness
from tests.conftest import draw, run_command
from tests.serving import served


@pytest.fixture(scope="module")
def doubting(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that asks the submodels about every picture and is unsure of each."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("bundles") / "doubting")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["name"] = "doubting"
    manifest["rules"]["routing"] = {"rule": "confidence", "threshold": 1.01}
    manifest["rules"]["unsure"]["distance_above"] = 0.01
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrections")


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, doubting: Path, collected: Path) -> Iterator[str]:
    with served(tiny_bundle, "--model", doubting, "--collect", collected) as url:
        yield url


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three pictures and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    draw("sky", 8).save(folder / "sky.png")
    draw("rows", 8).save(folder / "rows.png")
    # Between two classes, so that there is an order of doubt.
    Image.blend(draw("dots", 3), draw("rows", 3), 0.5).save(folder / "both, =1+1.png")
    (folder / "text.jpg").write_text("text")
    return folder


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """Return the opened page; its console must stay empty."""
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(address)
    yield opened
    # The browser and htmx report a refused request; a violation of the policy or an error of a script is a fault.
    expected = ("status of 4", "Response Status Error Code 4")
    assert [text for text in complaints if not any(words in text for words in expected)] == []


def choose(page: Page, *files: Path) -> None:
    page.locator("#pictures").set_input_files(files)


def answered(page: Page, pictures: int) -> list[Locator]:
    """Wait for the answers about this many pictures, and return their cards."""
    page.locator("article").nth(pictures - 1).wait_for()
    return page.locator("article").all()


def shares(card: Locator) -> dict[str, float]:
    """Return the probabilities in a card by class."""
    found = card.locator("[data-probability]").all()
    return {str(one.get_attribute("data-label")): float(str(one.get_attribute("data-probability"))) for one in found}


def classified(folder: Path, out: Path, *options: object) -> dict[str, dict[str, str]]:
    """Return what ``canonistia classify`` writes about a folder's files, by name."""
    run_command("classify", *sorted(folder.iterdir()), "--out", out, *options)
    with out.open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row | {"path": Path(row["path"]).name} for row in csv.DictReader(file)}


def downloaded(page: Page, to: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert download.value.suggested_filename == "canonistia.csv"
    download.value.save_as(to)
    with to.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same_rows(rows: list[dict[str, str]], expected: dict[str, dict[str, str]]) -> None:
    """Compare rows by path."""
    assert {row["path"] for row in rows} == set(expected)
    for row in rows:
        known = expected[row["path"]]
        assert row == known


def test_pictures_chosen_by_button_show_bars_stage_and_maps(
    page: Page, pictures: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    files = [pictures / name for name in ("sky.png", "text.jpg", "rows.png")]
    page.on("filechooser", lambda chooser: chooser.set_files(files))
    page.set_viewport_size({"width": 360, "height": 800})
    page.get_by_text("Choose pictures").click()
    first, bad, last = answered(page, 3)
    assert page.locator("#summary").inner_text() == page.locator("#status").text_content()
    assert page.evaluate("document.activeElement.textContent") == "Answers"  # where a screen reader goes on
    expected = classified(pictures, tmp_path / "out.csv", "--model", tiny_bundle)
    for card, name in ((first, "sky.png"), (last, "rows.png")):
        row = expected[name]
        named = {row["label_1"]: float(row["probability_1"]), row["label_2"]: float(row["probability_2"])}
        assert shares(card) == named
        meters = card.locator("meter").all()
        assert [float(str(meter.get_attribute("value"))) for meter in meters] == list(named.values())
        assert card.locator(".preview").evaluate("image => image.naturalWidth") == 72
    assert "not a picture in a known format" in bad.inner_text()
    assert not first.locator(".maps").is_visible()
    first.get_by_text("Why").click()
    assert re.fullmatch(r"The first model .* \(?\d+%\).*\.", first.locator(".stage").inner_text())
    first.locator(".maps img").nth(1).wait_for()
    maps = first.locator(".maps img").all()
    sizes = [
        one.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") for one in maps
    ]
    assert sizes == [[72, 60], [72, 60]]
    data = [base64.b64decode(str(one.get_attribute("src")).partition(",")[2]) for one in maps]
    assert data[0] != data[1]
    strongest = decode(data[0]).convert("HSV").getchannel("S").getextrema()[1]
    assert isinstance(strongest, int)
    assert strongest > 100  # the colours of evidence over a grey picture
    assert page.evaluate("document.documentElement.scrollWidth") <= 360  # nothing sticks out on a telephone


def test_pictures_are_dropped(page: Page, pictures: Path) -> None:
    files = [base64.b64encode((pictures / name).read_bytes()).decode() for name in ("sky.png", "rows.png")]
    transfer = page.evaluate_handle(
        """files => {
          const transfer = new DataTransfer();
          files.forEach((data, number) => {
            const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
            transfer.items.add(new File([bytes], `dropped ${number}.png`, { type: "image/png" }));
          });
          return transfer;
        }""",
        files,
    )
    page.locator("#drop").dispatch_event("dragover", {"dataTransfer": transfer})
    assert "over" in str(page.locator("#drop").get_attribute("class"))
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": transfer})
    assert [card.locator(".name").inner_text() for card in answered(page, 2)] == ["dropped 0.png", "dropped 1.png"]


def test_pictures_are_pasted_and_one_is_taken_back(page: Page, context: BrowserContext, pictures: Path) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name in ("sky.png", "rows.png"):
        page.evaluate(
            """async (data) => {
              const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
              const picture = new Blob([bytes], { type: "image/png" });
              await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
            }""",
            base64.b64encode((pictures / name).read_bytes()).decode(),
        )
        page.keyboard.press("Control+V")
        page.get_by_role("button", name="Remove image.png").last.wait_for()
    answered(page, 2)
    page.get_by_role("button", name="Remove image.png").first.click()
    (card,) = answered(page, 1)
    assert max(shares(card), key=lambda label: shares(card)[label]) == "rows"
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove image.png"  # of the one that is left
    page.keyboard.press("Control+V")  # what is chosen later is added
    assert len(answered(page, 2)) == 2
    page.get_by_role("button", name="Remove all").click()
    assert page.locator("article").count() == 0
    assert not page.locator("#answers").is_visible()


def test_a_slow_upload_shows_how_far_it_is(page: Page, context: BrowserContext, tmp_path: Path) -> None:
    draw("sky", 1, (1100, 900)).save(tmp_path / "large.png")
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000}
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", speed)
    choose(page, tmp_path / "large.png")
    page.locator("progress[value]").wait_for()
    assert re.fullmatch(r"Uploading: \d+%", page.locator("#status").inner_text())
    page.locator("article").wait_for()
    assert not page.locator("progress").is_visible()


def test_another_model_is_picked_and_says_when_it_is_unsure(page: Page, pictures: Path, doubting: Path) -> None:
    right = json.loads((doubting / "bundle.json").read_text())["measured"]["cascade"]["top1"]
    assert f"{100 * right:.1f}% correct" in page.locator(".model", has_text="doubting").inner_text()
    choose(page, pictures / "sky.png")
    (card,) = answered(page, 1)
    assert card.locator("[data-stage=main]").count() == 1
    page.get_by_role("radio", name="doubting").check()  # what is there is asked about again
    page.locator("[data-stage=submodels]").wait_for(state="attached")
    (card,) = answered(page, 1)
    card.get_by_text("Why").click()
    stage = r"The first model hesitated \(\d+%\), so a specialist for each class looked: \w+ \d+%, \w+ \d+%\."
    assert re.fullmatch(stage, card.locator(".stage").inner_text())
    assert re.fullmatch(r"Not sure\. Perhaps \w+", card.locator("h3").inner_text())
    assert "Look yourself" in card.inner_text()
    assert page.locator("#summary").inner_text() == "1 picture · 1 unsure"


def test_answers_that_show_both_are_counted_as_a_kind_of_their_own(
    context: BrowserContext, doubting: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(doubting, tmp_path / "pairing")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["rules"]["unsure"]["distance_above"] = 1e6
    manifest["rules"]["unsure"]["submodels_below"] = 0.0
    manifest["rules"]["both"] = {"weights": {"main_gap": 0.0}, "threshold": 0.0, "false_mark_rate": 0.5}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with served(folder) as url:
        page = context.new_page()
        page.goto(url)
        choose(page, pictures / "sky.png")
        (card,) = answered(page, 1)
        assert card.locator("h3").inner_text().startswith("Shows both: ")
        assert page.locator("#summary").inner_text() == "1 picture · 1 shows both · none unsure"
        choose(page, pictures / "rows.png")
        answered(page, 2)
        assert page.locator("#summary").inner_text() == "2 pictures · 2 show both · none unsure"


def test_the_download_equals_what_classify_writes_in_both_orders(
    page: Page, pictures: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    expected = classified(pictures, tmp_path / "out.csv", "--model", tiny_bundle)
    choose(page, *sorted(pictures.iterdir()))
    answered(page, 4)
    rows = downloaded(page, tmp_path / "sent.csv")
    assert [row["path"] for row in rows] == sorted(expected)
    assert_same_rows(rows, expected)
    page.get_by_label("Order").select_option("Most doubtful first")
    shown = [card.locator(".name").inner_text() for card in page.locator("article").all()]
    rows = downloaded(page, tmp_path / "doubt.csv")
    assert [row["path"] for row in rows] == shown
    assert_same_rows(rows, expected)
    assert (tmp_path / "doubt.csv").stat().st_size == (tmp_path / "sent.csv").stat().st_size  # to the line break
    assert shown[-1] == "text.jpg"
    answers = [(row["unsure"] == "true", float(row["probability_1"]), float(row["probability_2"])) for row in rows[:-1]]
    doubt = [doubtfulness(*answer) for answer in answers]
    assert doubt == sorted(doubt, reverse=True)


def test_a_correction_is_stored_with_its_picture(page: Page, pictures: Path, collected: Path) -> None:
    choose(page, pictures / "sky.png")
    (card,) = answered(page, 1)
    card.get_by_text("Not right?").click()
    card.get_by_label("Class of sky.png").select_option("dots")
    card.get_by_role("button", name="Send").click()
    thanks = card.locator(".thanks")
    thanks.wait_for()
    assert '"dots"' in thanks.inner_text()
    with (collected / "corrections.csv").open(newline="", encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if row["label"] == "dots")
    assert row["label_1"] == next(iter(shares(card)))
    assert decode(collected / row["path"]).tobytes() == decode(pictures / "sky.png").tobytes()


def test_the_keyboard_reaches_everything(page: Page, pictures: Path) -> None:
    def press_tab() -> str:
        page.keyboard.press("Tab")
        return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))

    page.on("filechooser", lambda chooser: chooser.set_files(pictures / "sky.png"))
    assert press_tab() == "Skip to the content"
    page.keyboard.press("Enter")
    assert press_tab() == "pictures"
    assert page.locator(".picker label").first.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    answered(page, 1)
    expected = ["order", "only-unsure", "clear", "csv", "Why", "Not right? Say what it is"]  # from the heading on
    assert [press_tab() for _ in expected] == expected
    page.keyboard.press("Enter")
    assert page.get_by_label("Class of sky.png").is_visible()


def test_everything_works_without_javascript(
    browser: Browser, address: str, pictures: Path, tiny_bundle: Path, collected: Path, tmp_path: Path
) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Pictures", exact=True).set_input_files(sorted(pictures.iterdir()))
    page.get_by_label("Order").select_option("Most doubtful first")
    page.get_by_role("radio", name="tiny").check()
    page.get_by_role("button", name="Classify").click()
    cards = answered(page, 4)
    shown = [card.locator(".name").inner_text() for card in cards]
    rows = downloaded(page, tmp_path / "page.csv")
    assert [row["path"] for row in rows] == shown
    assert_same_rows(rows, classified(pictures, tmp_path / "out.csv", "--model", tiny_bundle))
    assert cards[-1].get_by_text("Not answered").is_visible()
    cards[0].get_by_text("Why").click()
    assert cards[0].locator(".maps img").count() == 2
    cards[0].get_by_text("Not right?").click()
    cards[0].get_by_role("combobox").select_option("sky")
    cards[0].get_by_role("button", name="Send").click()
    page.locator(".thanks").wait_for()
    assert '"sky"' in page.locator(".thanks").inner_text()
    assert ",sky,training," in (collected / "corrections.csv").read_text()
    page.get_by_role("link", name="Back to the pictures").click()
    page.get_by_role("button", name="Classify").click()
    assert "Choose a picture first" in page.get_by_role("alert").inner_text()
    context.close()


def test_a_telephone_offers_its_camera(browser: Browser, address: str, pictures: Path) -> None:
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(address)
    assert page.get_by_text("Take a picture").is_visible()
    camera = page.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    camera.set_input_files(pictures / "sky.png")
    camera.set_input_files(pictures / "rows.png")  # one after the other
    assert len(answered(page, 2)) == 2
    context.close()


def test_the_page_speaks_spanish(browser: Browser, address: str, pictures: Path) -> None:
    context = browser.new_context(locale="es-ES")
    page = context.new_page()
    page.goto(address)
    assert page.locator("html").get_attribute("lang") == "es"
    choose(page, pictures / "sky.png")
    page.locator("article").wait_for()
    assert re.search(r"\d,\d\u00a0%", page.locator("article").inner_text())
    page.get_by_role("link", name="Sobre el modelo").click()
    page.get_by_role("heading", name="Matriz de confusión").wait_for()
    page.get_by_role("link", name="English").click()
    page.get_by_role("heading", name="Confusion matrix").wait_for()
    page.get_by_role("link", name="Classify", exact=True).click()
    page.locator("#upload").wait_for()
    assert page.locator("html").get_attribute("lang") == "en"  # the choice stays
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(browser: Browser, address: str, pictures: Path, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 360, "height": 800})  # type: ignore[arg-type]
    page = context.new_page()
    axe = Axe()

    def check(what: str) -> None:
        violations = axe.run(page).response["violations"]
        assert not violations, f"{what}: {[(found['id'], found['nodes'][0]['html']) for found in violations]}"

    page.goto(address)
    check("the form")
    page.get_by_role("radio", name="doubting").check()
    choose(page, *sorted(pictures.iterdir()))
    for card in answered(page, 4):
        for summary in card.locator("summary").all():
            summary.click()
    page.locator(".maps").nth(2).wait_for()
    check("the answers")
    card = page.locator("article", has=page.get_by_role("combobox")).first
    card.get_by_role("combobox").select_option("rows")
    card.get_by_role("button", name="Send").click()
    page.locator(".thanks").wait_for()
    check("a correction")
    for path in ("model/tiny", "model/tiny?lang=es", "api/docs", "no/such/page"):
        page.goto(address + path)
        check(path)
    context.close()
