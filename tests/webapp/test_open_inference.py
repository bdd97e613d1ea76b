"""The Open Inference Protocol: the same probabilities as every other path, and clear refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

import canonistia
from tests.conftest import CLASSES, draw
from tests.webapps import application
from webapp.settings import Settings


@pytest.fixture(scope="module")
def app(tiny_bundle: Path) -> Flask:
    return application(tiny_bundle, settings=Settings(max_pictures=4, max_pixels=100_000))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


PIXELS = np.stack([np.asarray(draw(label, 31)) for label in CLASSES])  # (3, H, W, 3)


def tensor(pixels: np.ndarray, **changed: Any) -> dict[str, Any]:
    given = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    return {"inputs": [given | changed]}


def infer(client: FlaskClient, body: dict[str, Any]) -> Any:
    return client.post("/v2/models/tiny/infer", json=body)


def test_the_server_and_its_model_describe_themselves(client: FlaskClient) -> None:
    assert client.get("/v2").json["name"] == "canonistia"
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json == {"ready": True}
    described = client.get("/v2/models/tiny").json
    assert described["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert described["outputs"][0] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]}
    assert described["parameters"]["classes"] == list(CLASSES)


def test_a_tensor_gets_the_probabilities_of_the_python_face(client: FlaskClient, tiny_bundle: Path) -> None:
    expected = canonistia.load(str(tiny_bundle)).classify(list(PIXELS))
    answer = infer(client, tensor(PIXELS) | {"id": "mine"}).json
    assert answer["id"] == "mine"
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["probabilities"]["shape"] == [3, 3]
    probabilities = np.array(outputs["probabilities"]["data"]).reshape(3, 3)
    labels = np.array(outputs["labels"]["data"]).reshape(3, 2)
    for index, prediction in enumerate(expected):
        assert labels[index].tolist() == [prediction.label_1, prediction.label_2]
        assert np.sort(probabilities[index])[::-1][:2].tolist() == [prediction.probability_1, prediction.probability_2]
    assert outputs["routed"]["data"] == [prediction.stage == "submodels" for prediction in expected]


def test_nested_data_and_chosen_outputs_are_understood(client: FlaskClient) -> None:
    flat = infer(client, tensor(PIXELS)).json["outputs"]
    nested = infer(client, tensor(PIXELS, data=PIXELS.tolist()) | {"outputs": [{"name": "labels"}]}).json["outputs"]
    assert nested == [output for output in flat if output["name"] == "labels"]


RAW = {
    "long words": b'["' + b"a" * 20_000 + b'"' + b',""' * 5_000 + b"]",
    "empty lists": b"[" + b"[]," * 100_000 + b"[]]",
    "deep": b"[" * 5_000 + b"]" * 5_000,
    "more commas than numbers": b"[1,,2]",
    "an object": b"{}",
}


@pytest.mark.parametrize("kind", RAW)
def test_data_that_would_take_more_memory_than_bytes_are_refused(client: FlaskClient, kind: str) -> None:
    body = b'{"inputs":[{"name":"pixels","datatype":"UINT8","shape":[1,2,2,3],"data":' + RAW[kind] + b"}]}"
    answer = client.post("/v2/models/tiny/infer", data=body)
    assert answer.status_code == 400
    assert answer.json["type"] == "urn:canonistia:problem:tensor"


def nested(depth: int) -> str:
    return '{"a":' + "[" * depth + "]" * depth + "}"


HUGE = {
    "a repeated output": ('"outputs":[{"name":"labels"},{"name":"labels"}]', ""),
    "many outputs": ('"outputs":[' + ",".join(['{"name":"labels"}'] * 100_000) + "]", ""),
    "many parameters": ('"parameters":{' + ",".join(f'"{number}":[]' for number in range(100_000)) + "}", ""),
    "long parameters": ('"parameters":{"a":"' + "b" * 1_000_000 + '"}', ""),
    "deep parameters": (f'"parameters":{nested(2000)}', ""),
    "very deep parameters": (f'"parameters":{nested(500_000)}', ""),
    "parameters that are a list": ('"parameters":[1]', ""),
    "many parameters of the input": ("", '"parameters":{"a":[' + "[]," * 100_000 + "[]]}"),
    "many parameters of an output": ('"outputs":[{"name":"labels","parameters":{"a":"' + "b" * 100_000 + '"}}]', ""),
    "a long id": ('"id":"' + "x" * 1_000_000 + '"', ""),
    "a long name": ("", '"name":"' + "x" * 1_000_000 + '"'),
    "a long type": ("", '"datatype":"' + "x" * 1_000_000 + '"'),
    "a long shape": ("", '"shape":[' + "1," * 100_000 + "3]"),
    "a huge shape": ("", '"shape":[1,300,300,3]'),
    "a size of many digits": ("", '"shape":[1,2,2,' + "3" * 5_000 + "]"),
    "a value of many digits": ("", '"data":[' + "0," * 11 + "1" * 5_000 + "]"),
    "an unknown field": (f'"more":{nested(500_000)}', ""),
}


@pytest.mark.parametrize("kind", HUGE)
def test_what_is_said_beside_the_data_is_short(client: FlaskClient, kind: str) -> None:
    beside, within = (f",{text}" if text else "" for text in HUGE[kind])
    tensor = '{"name":"pixels","datatype":"UINT8","shape":[1,2,2,3],"data":[0,0,0,0,0,0,0,0,0,0,0,0]' + within + "}"
    answer = client.post("/v2/models/tiny/infer", data=f'{{"inputs":[{tensor}]{beside}}}')
    assert answer.status_code == 400
    assert answer.json["type"] == "urn:canonistia:problem:tensor"
    assert len(answer.data) < 1000


def test_only_one_input_is_read(client: FlaskClient) -> None:
    body = tensor(PIXELS)
    answer = infer(client, {"inputs": body["inputs"] * 50})
    assert answer.status_code == 400
    assert infer(client, body | {"parameters": {"a": 1}, "outputs": None}).status_code == 200


def test_text_that_is_no_unicode_is_refused(client: FlaskClient) -> None:
    body = b'{"inputs":[{"name":"\xff","datatype":"UINT8","shape":[1,2,2,3],"data":[]}]}'
    assert client.post("/v2/models/tiny/infer", data=body).status_code == 400


BAD = {
    "wrong name": (tensor(PIXELS, name="image"), 400),
    "wrong type": (tensor(PIXELS, datatype="FP32"), 400),
    "grey": (tensor(PIXELS[..., :1]), 400),
    "three dimensions": (tensor(PIXELS[0]), 400),
    "too few data": (tensor(PIXELS, data=[1, 2, 3]), 400),
    "too large": (tensor(PIXELS, data=(PIXELS.astype(int) + 200).ravel().tolist()), 400),
    "fractions": (tensor(PIXELS, data=(PIXELS / 255).ravel().tolist()), 400),
    "words": (tensor(PIXELS, data=["a"] * PIXELS.size), 400),
    "ragged": (tensor(PIXELS, data=[[1], [1, 2]]), 400),
    "unknown output": (tensor(PIXELS) | {"outputs": [{"name": "nothing"}]}, 400),
    "no input": ({"inputs": []}, 400),
    "no pictures": (tensor(PIXELS, shape=[0, 4, 4, 3], data=[]), 400),
    "too many pictures": (tensor(PIXELS, shape=[5, 4, 4, 3], data=[0] * 240), 413),
    "too many pixels": (tensor(PIXELS, shape=[1, 400, 400, 3], data=[0]), 413),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_tensor_gets_its_status_and_one_sentence(client: FlaskClient, kind: str) -> None:
    body, status = BAD[kind]
    answer = infer(client, body)
    assert answer.status_code == status
    assert answer.json["error"] == answer.json["detail"]
    assert answer.json["detail"].endswith(".")
    assert infer(client, tensor(PIXELS)).status_code == 200


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc", "unknown", "tiny%00"])
def test_a_model_name_is_looked_up_and_never_a_path(client: FlaskClient, name: str) -> None:
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/ready"):
        assert client.get(path).status_code == 404
    assert client.post(f"/v2/models/{name}/infer", json=tensor(PIXELS)).status_code == 404


def test_text_instead_of_json_is_refused(client: FlaskClient) -> None:
    answer = client.post("/v2/models/tiny/infer", data=b"{")
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
