"""Bodies of requests and answers: gzip and deflate both ways, and bombs refused by what they inflate to."""

import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import draw
from tests.serving import served
from tests.webapps import application, encoded
from webapp.problems import Problem
from webapp.requests.bodies import InflatedBody
from webapp.settings import MB, Settings

CLASSIFY = "/api/v1/classify"
ENCODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
PICTURE = encoded(draw("sky", 71))
FORM_TYPE = "multipart/form-data; boundary=edge"
FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + PICTURE + b"\r\n--edge--\r\n"
)


@pytest.fixture(scope="module")
def app(tiny_bundle: Path) -> Flask:
    return application(tiny_bundle, settings=Settings(max_upload_bytes=MB))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize("coding", ENCODERS)
def test_an_encoded_picture_or_form_is_answered_like_a_plain_one(client: FlaskClient, coding: str) -> None:
    encode, headers = ENCODERS[coding], {"Content-Encoding": coding}
    plain = client.post(CLASSIFY, data=PICTURE).json
    assert client.post(CLASSIFY, data=encode(PICTURE), headers=headers).json == plain
    in_form = client.post(CLASSIFY, data=FORM, content_type=FORM_TYPE)
    assert in_form.status_code == 200
    assert client.post(CLASSIFY, data=encode(FORM), content_type=FORM_TYPE, headers=headers).json == in_form.json
    page = client.post(
        "/", data=encode(FORM.replace(b'"file"', b'"pictures"')), content_type=FORM_TYPE, headers=headers
    )
    assert page.status_code == 200


@pytest.mark.parametrize("coding", ENCODERS)
def test_an_encoded_tensor_is_answered_like_a_plain_one(client: FlaskClient, coding: str) -> None:
    pixels = np.asarray(draw("dots", 72))[None]  # (1, H, W, 3)
    given = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    text = json.dumps({"inputs": [given | {"parameters": {"binary_data_size": pixels.nbytes}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    plain = client.post("/v2/models/tiny/infer", data=text + pixels.tobytes(), headers=headers)
    assert plain.status_code == 200
    body = ENCODERS[coding](text + pixels.tobytes())
    answer = client.post("/v2/models/tiny/infer", data=body, headers=headers | {"Content-Encoding": coding})
    assert answer.json == plain.json
    as_json = json.dumps({"inputs": [given | {"data": pixels.ravel().tolist()}]}).encode()
    answer = client.post("/v2/models/tiny/infer", data=ENCODERS[coding](as_json), headers={"Content-Encoding": coding})
    assert answer.json == plain.json


def test_words_for_no_encoding_and_old_names_are_understood(client: FlaskClient) -> None:
    assert client.post(CLASSIFY, data=PICTURE, headers={"Content-Encoding": "Identity"}).status_code == 200
    assert client.post(CLASSIFY, data=gzip.compress(PICTURE), headers={"Content-Encoding": "x-gzip"}).status_code == 200
    assert client.post(CLASSIFY, data=b"", headers={"Content-Encoding": "gzip"}).status_code == 400


WRONG = {
    "not encoded": (PICTURE, "gzip", 400, "is damaged"),
    "cut": (gzip.compress(PICTURE)[:-9], "gzip", 400, "ends too early"),
    "without its checksum": (gzip.compress(PICTURE)[:-4], "gzip", 400, "ends too early"),
    "a wrong checksum": (gzip.compress(PICTURE)[:-8] + bytes(8), "gzip", 400, "is damaged"),
    "followed by more": (zlib.compress(PICTURE) + b"more", "deflate", 400, "goes on after its end"),
    "another coding": (PICTURE, "br", 415, "encoded as br; expected gzip, deflate"),
    "two codings": (gzip.compress(gzip.compress(PICTURE)), "gzip, gzip", 415, "expected gzip, deflate"),
    "a bomb": (gzip.compress(bytes(50 * MB)), "gzip", 413, "inflated request is too large; at most 1 MB"),
}


@pytest.mark.parametrize("path", [CLASSIFY, "/v2/models/tiny/infer"])
@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_inflated_gets_its_status_and_one_sentence(client: FlaskClient, path: str, kind: str) -> None:
    data, coding, status, said = WRONG[kind]
    answer = client.post(path, data=data, headers={"Content-Encoding": coding})
    assert answer.status_code == status
    assert said in answer.json["detail"]
    assert ("Accept-Encoding" in answer.headers) == (status == 415)
    assert client.post(CLASSIFY, data=PICTURE).status_code == 200


def test_a_bomb_in_a_form_is_refused(client: FlaskClient) -> None:
    body = gzip.compress(FORM.replace(PICTURE, bytes(50 * MB)))
    answer = client.post(CLASSIFY, data=body, content_type=FORM_TYPE, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413


def test_a_bomb_is_given_up_at_its_limit_and_never_held(tmp_path: Path) -> None:
    bomb = io.BytesIO(gzip.compress(bytes(200 * MB), 9))
    inflated = InflatedBody(bomb, "gzip", 2 * MB)
    buffer = memoryview(bytearray(64 * 1024))
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="at most 2 MB"):
            all(iter(lambda: inflated.readinto(buffer), 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MB
    assert bomb.tell() < len(bomb.getbuffer()) / 2


def test_a_body_without_a_known_length_is_limited_too(client: FlaskClient) -> None:
    def send(size: int) -> int:
        environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
        body = io.BytesIO(PICTURE + bytes(size - len(PICTURE)))
        return client.post(CLASSIFY, input_stream=body, environ_overrides=environ).status_code

    assert send(MB) == 200
    assert send(MB + 1) == 413


@pytest.mark.parametrize("coding", ENCODERS)
def test_long_answers_to_programs_are_encoded_for_clients_that_accept_it(client: FlaskClient, coding: str) -> None:
    document = "/api/v1/openapi.json"
    plain = client.get(document)
    assert "Content-Encoding" not in plain.headers
    answer = client.get(document, headers={"Accept-Encoding": coding})
    assert answer.headers["Content-Encoding"] == coding
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert int(answer.headers["Content-Length"]) == len(answer.data) < len(plain.data) / 2
    decode = gzip.decompress if coding == "gzip" else zlib.decompress
    assert decode(answer.data) == plain.data


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip, deflate, br", "gzip"), ("*", "gzip"), ("br", None), ("gzip;q=0", None), ("gzip;q=0.1, identity", None)],
)
def test_the_coding_is_one_that_the_client_wants(client: FlaskClient, accepted: str, coding: str | None) -> None:
    answer = client.get("/api/v1/openapi.json", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == coding


def test_short_answers_and_pages_stay_as_they_are(client: FlaskClient) -> None:
    accept = {"Accept-Encoding": "gzip"}
    assert "Content-Encoding" not in client.post(CLASSIFY, data=PICTURE, headers=accept).headers
    assert "Content-Encoding" not in client.get("/", headers=accept).headers


def test_a_real_server_inflates_and_encodes(tiny_bundle: Path) -> None:
    httpx = pytest.importorskip("httpx")
    with served(tiny_bundle) as address, httpx.Client(base_url=address, trust_env=False) as client:
        plain = client.post(CLASSIFY, content=PICTURE)
        headers = {"Content-Encoding": "gzip"}
        encoded_body = gzip.compress(PICTURE)
        assert client.post(CLASSIFY, content=encoded_body, headers=headers).json() == plain.json()
        pieces = (encoded_body[start : start + 100] for start in range(0, len(encoded_body), 100))
        assert client.post(CLASSIFY, content=pieces, headers=headers).json() == plain.json()  # in chunks
        document = client.get("/api/v1/openapi.json")
        assert document.headers["Content-Encoding"] == "gzip"
        assert document.json()["openapi"] == "3.1.0"
        bomb = gzip.compress(bytes(200 * MB))
        assert client.post(CLASSIFY, content=bomb, headers=headers).status_code == 413
        assert httpx.post(f"{address}api/v1/classify", content=PICTURE, trust_env=False).json() == plain.json()
