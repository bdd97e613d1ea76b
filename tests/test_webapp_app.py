"""The page, asked through Flask's test client."""

import dataclasses
import io
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from msgspec.structs import replace
from PIL import Image

import canonistia
from cascade.engine import Engine
from cascade.rules import Confidence
from tests.conftest import draw
from webapp.app import create_app


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return canonistia.load(str(tiny_bundle))


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    return create_app(engine).test_client()


def upload(client: FlaskClient, *files: tuple[bytes, str]):
    return client.post("/", data={"pictures": [(io.BytesIO(data), name) for data, name in files]})


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_the_page_says_what_the_bundle_knows(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "3 classes" in page
    assert "dots, rows, sky" in page


def test_an_upload_shows_preview_both_classes_and_stage(client: FlaskClient, engine: Engine) -> None:
    data = png(draw("sky", 3))
    page = upload(client, (data, "my sky.png")).text
    answer = engine.classify([data])[0]
    shown = [float(text) for text in re.findall(r'data-probability="([^"]+)"', page)]
    assert shown == [answer.probability_1, answer.probability_2]
    assert f"<h2>{answer.label_1}" in page
    assert "data:image/jpeg;base64," in page
    assert "my sky.png" in page
    assert ("The main model was sure enough" in page) == (answer.stage == "main")


def test_a_doubtful_unrecognised_picture_is_marked_unsure(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = engine.bundle.manifest
    mark = replace(manifest.rules.unsure, distance_above=0.01)
    rules = replace(manifest.rules, routing=Confidence(threshold=1.01), unsure=mark)
    bundle = dataclasses.replace(engine.bundle, manifest=replace(manifest, rules=rules))
    page = upload(create_app(Engine(bundle)).test_client(), (png(draw("sky", 3)), "a.png")).text
    assert '<span class="unsure">unsure</span>' in page
    assert "the submodels decided" in page


def test_a_bad_file_among_good_ones_is_told_apart(client: FlaskClient) -> None:
    good = png(draw("rows", 1))
    page = upload(client, (good, "a.png"), (b"<html>", "b.png"), (b"", "c.png"), (good, "d.png")).text
    assert page.count("Not answered") == 2
    assert page.count("data:image/jpeg") == 2
    assert "no picture of a known format" in page


def test_names_of_files_are_escaped(client: FlaskClient) -> None:
    page = upload(client, (png(draw("rows", 1)), "<script>alert(1)</script>.png")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_nothing_chosen_is_told(client: FlaskClient) -> None:
    answer = client.post("/", data={})
    assert answer.status_code == 400
    assert "Choose a picture first" in answer.text


def test_too_much_at_once_is_told(client: FlaskClient) -> None:
    client.application.config["MAX_CONTENT_LENGTH"] = 1000
    answer = upload(client, (b"x" * 2000, "a.png"))
    assert answer.status_code == 413
    assert "Too much at once" in answer.text


# werkzeug stops reading at the limit and leaves the parts it has read to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_too_many_parts_are_told(client: FlaskClient) -> None:
    assert upload(client, *[(b"x", f"{number}.png") for number in range(150)]).status_code == 413


def test_every_answer_carries_the_locks(client: FlaskClient) -> None:
    headers = client.get("/").headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
