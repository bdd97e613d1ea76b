"""The page, through Flask's test client."""

import csv
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask.testing import FlaskClient

from cascade.bundle.reading import read_manifest
from cascade.outputs.rows import Row
from tests.conftest import CLASSES, draw
from tests.webapps import application, encoded, upload
from webapp.pages.cells import as_cells
from webapp.pages.model_facts import of_hundred
from webapp.pages.samples import samples_for
from webapp.requests.corrections import Collector
from webapp.settings import Settings

PICTURE = encoded(draw("rows", 1))
HTMX = {"HX-Request": "true"}


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> FlaskClient:
    return application(tiny_bundle, settings=Settings(max_pictures=4)).test_client()


@pytest.fixture(scope="module")
def older(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle without confusion and reliability, whose main model sees the central square."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("bundles") / "older")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["name"] = "older"
    manifest["main"]["preprocess"]["resize"] = "crop"
    del manifest["measured"]["confusion"], manifest["measured"]["reliability"]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    (folder / "MODEL_CARD.md").unlink()
    return folder


def pictures(*files: tuple[bytes, str], **fields: str) -> dict[str, object]:
    return upload(*files, field="pictures") | fields


def test_bad_files_among_good_ones_are_told_apart(client: FlaskClient) -> None:
    answer = client.post("/", data=pictures((PICTURE, "a.png"), (b"<html>", "b.png"), (b"", "c.png")))
    assert answer.status_code == 200
    assert answer.text.count("Not answered") == 2
    assert answer.text.count('class="preview"') == 1


def test_bad_files_alone_answer_the_status_of_the_first(client: FlaskClient) -> None:
    assert client.post("/", data=pictures((b"<html>", "a.png"), (PICTURE[:90], "b.png"))).status_code == 415
    assert client.post("/", data=pictures((PICTURE[:90], "b.png"), (b"<html>", "a.png"))).status_code == 422


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["whole", "for htmx"])
def test_answers_and_refusals_come_whole_or_as_fragments(client: FlaskClient, headers: dict[str, str]) -> None:
    many = [(PICTURE, f"{number}.png") for number in range(5)]
    asked = {
        200: pictures((PICTURE, "a.png")),
        400: {},
        404: pictures((PICTURE, "a.png"), model="nobody"),
        413: pictures(*many),
    }
    for status, data in asked.items():
        answer = client.post("/", data=data, headers=headers)
        assert answer.status_code == status
        assert ("<html" in answer.text) is not bool(headers)
        assert ("<form id" in answer.text) is not bool(headers)
        assert ('role="alert"' in answer.text) == (status != 200)


def test_maps_are_in_the_answer_without_scripts_and_asked_for_with_them(client: FlaskClient) -> None:
    def maps_in(page: str) -> list[str]:
        return re.findall(r'<figure><img src="([^"]+)"', page)

    whole = client.post("/", data=pictures((PICTURE, "a.png")))
    part = client.post("/", data=pictures((PICTURE, "a.png")), headers=HTMX)
    later = client.post("/maps", data=pictures((PICTURE, "a.png"), model="tiny"), headers=HTMX)
    assert len(maps_in(whole.text)) == 2
    assert maps_in(part.text) == []
    assert 'data-address="/maps"' in part.text
    assert maps_in(later.text) == maps_in(whole.text)
    refused = client.post("/maps", data=pictures((b"text", "a.png")), headers=HTMX)
    assert refused.status_code == 415
    assert 'role="alert"' in refused.text


def test_pages_that_change_inside_the_document_come_whole(client: FlaskClient) -> None:
    for header in ("HX-Boosted", "HX-History-Restore-Request"):
        assert "<html" in client.get("/model/none", headers=HTMX | {header: "true"}).text


def test_the_page_names_classes_and_offers_samples_that_the_model_knows(client: FlaskClient, tiny_bundle: Path) -> None:
    page = client.get("/").text
    assert all(f"<span>{label}</span>" in page for label in CLASSES)
    assert 'name="sample"' not in page
    assert [sample.name for sample in samples_for(["Coast", "Open country", "Rows"])] == [
        "coast",
        "open_country",
        "doubtful_coast_or_open_country",
    ]
    assert [sample.title for sample in samples_for(["Coast", "Highway"])] == ["coast", "highway", "coast and highway"]
    answer = client.post("/", data={"sample": "coast"})
    assert answer.status_code == 200
    assert "coast.jpg" in answer.text
    assert client.post("/", data={"sample": "../make_samples"}).status_code == 400


def test_many_classes_are_cut_short(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.pages.page._SHOWN_CLASSES", (2, 1))
    page = application(tiny_bundle).test_client().get("/").text
    assert "and 1 more" in page


def test_too_much_is_told_in_the_form(tiny_bundle: Path) -> None:
    asked = application(tiny_bundle, settings=Settings(max_upload_bytes=2000)).test_client()
    answer = asked.post("/?lang=es", data=pictures((b"x" * 3000, "a.png")))
    assert answer.status_code == 413
    assert "La subida es demasiado grande" in answer.text
    assert "<form id" in answer.text


def test_a_strange_host_and_a_wrong_address_get_a_page(tiny_bundle: Path) -> None:
    asked = application(tiny_bundle, settings=Settings(trusted_hosts=("localhost",))).test_client()
    for path, headers, status in (("/", {"Host": "rebound.example"}, 400), ("/none", {}, 404), ("/model/x", {}, 404)):
        answer = asked.get(path, headers=headers)
        assert answer.status_code == status
        assert 'role="alert"' in answer.text


def test_names_of_files_are_escaped(client: FlaskClient) -> None:
    page = client.post("/", data=pictures((PICTURE, "<script>alert(1)</script>.png"))).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_names_that_steer_a_terminal_or_turn_the_text_are_escaped(client: FlaskClient) -> None:
    page = client.post("/", data=pictures((PICTURE, "a\x1b[31m.png"), (b"text", "\u202egnp.a"))).text
    assert re.findall('class="name">([^<]*)<', page) == ["a\\x1b[31m.png", "\\u202egnp.a"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " =", "＝"])
def test_no_text_of_a_csv_is_a_formula(start: str) -> None:
    row = Row(f"{start}cmd|'/C calc'!A0.png", f"{start}1", 0.5, f"{start}2", 0.25, error=f"{start}3")
    cells = as_cells(row)
    assert [cells.path, cells.label_1, cells.label_2, cells.error] == [
        f"'{text}" for text in (row.path, row.label_1, row.label_2, row.error)
    ]
    assert as_cells(Row("a=1.png", "sky", 0.5)) == Row("a=1.png", "sky", 0.5)


def test_the_csv_of_the_page_holds_no_formula(client: FlaskClient) -> None:
    page = client.post("/", data=pictures((PICTURE, "=1+1.png"))).text
    lines = list(csv.reader(unquote(re.findall(r'href="data:text/csv[^,]*,([^"]*)"', page)[0]).splitlines()))
    assert lines[1][0] == "'=1+1.png"


def test_nothing_on_a_page_needs_a_looser_policy(client: FlaskClient) -> None:
    for page in (client.get("/"), client.post("/", data=pictures((PICTURE, "a.png"))), client.get("/model/tiny")):
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=)|https?://", page.text.partition("<pre")[0])


def test_corrections_are_neither_offered_nor_taken_without_a_folder(client: FlaskClient) -> None:
    page = client.post("/", data=pictures((PICTURE, "a.png"))).text
    assert 'name="token"' not in page
    assert "classified and not stored" in page
    assert client.post("/corrections", data={"token": "x", "label": "sky"}).status_code == 404


def test_a_correction_that_cannot_be_kept_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    asked = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    page = asked.post("/", data=pictures((PICTURE, "a.png"))).text
    (token,) = re.findall(r'name="token" value="([^"]+)"', page)
    assert asked.post("/corrections", data={"token": "gone", "label": "sky"}).status_code == 410
    refused = asked.post("/corrections", data={"token": token, "label": "moon"}, headers=HTMX)
    assert refused.status_code == 422
    assert "does not know this class" in refused.text
    kept = asked.post("/corrections", data={"token": token, "label": "sky"}, headers=HTMX)
    assert "<html" not in kept.text
    assert "sky" in kept.text


def test_the_language_is_the_one_asked_for(client: FlaskClient) -> None:
    languages = {"/?lang=es": "es", "/?lang=en": "en", "/?lang=xx": "en", "/": "en"}
    for path, language in languages.items():
        assert f'<html lang="{language}">' in client.get(path).text
    assert '<html lang="es">' in client.get("/", headers={"Accept-Language": "fr, es;q=0.8, en;q=0.5"}).text
    assert '<html lang="en">' in client.get("/?lang=en", headers={"Accept-Language": "es"}).text


def test_the_page_about_a_model_shows_what_was_measured(client: FlaskClient, tiny_bundle: Path) -> None:
    measured = read_manifest(tiny_bundle)[0].measured
    page = client.get("/model/tiny").text
    cells = [int(count) for count in re.findall(r'<td class="shade-\d+">(\d+)</td>', page)]
    assert cells == [count for row in measured.confusion for count in row]
    assert page.count("<circle") == len([one for one in measured.reliability if one.pictures])
    assert f"{100 * measured.cascade.top1:.1f}%" in page
    assert all(label in page for label in CLASSES)
    assert "# tiny" in page  # the card as it was written


def test_the_page_about_a_model_begins_with_plain_words(client: FlaskClient, tiny_bundle: Path) -> None:
    measured = read_manifest(tiny_bundle)[0].measured
    page = client.get("/model/tiny").text
    assert f"about {of_hundred(measured.cascade.top1)} get the correct class first" in page
    places = [page.index(words) for words in ("In plain words", "How often it is correct", "calibration error")]
    assert places == sorted(places)


@pytest.mark.parametrize(("share", "shown"), [(0, 0), (0.001, 1), (0.974, 97), (0.999, 99), (1, 100)])
def test_no_share_is_rounded_to_always_or_never(share: float, shown: int) -> None:
    assert of_hundred(share) == shown


def test_an_older_bundle_says_what_it_does_not_hold(older: Path) -> None:
    asked = application(older).test_client()
    page = asked.get("/model/older").text
    assert page.count("exported by an older version") == 3
    assert "<circle" not in page
    answers = asked.post("/", data=pictures((PICTURE, "a.png"))).text
    assert "It only sees the central square" in answers
