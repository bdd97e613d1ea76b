"""Binary tensors of the Open Inference Protocol: the answers of JSON, and a clear refusal of what does not fit."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import CLASSES, draw
from tests.webapps import application
from webapp.settings import MB, Settings

HEADER = "Inference-Header-Content-Length"
PIXELS = np.stack([np.asarray(draw(label, 31)) for label in CLASSES])  # (3, H, W, 3)
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def app(tiny_bundle: Path) -> Flask:
    return application(tiny_bundle, settings=Settings(max_pictures=4, max_pixels=2_000_000, max_upload_bytes=MB))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def tensor(pixels: np.ndarray, **changed: Any) -> dict[str, Any]:
    size = {"binary_data_size": pixels.nbytes}
    return {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8", "parameters": size} | changed


def send(
    client: FlaskClient, raw: bytes, message: dict[str, Any], length: object = None, path: str = INFER
) -> TestResponse:
    text = json.dumps(message).encode()
    return client.post(path, data=text + raw, headers={HEADER: str(len(text) if length is None else length)})


def as_json(client: FlaskClient, pixels: np.ndarray, **more: Any) -> dict[str, Any]:
    given = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    answer: dict[str, Any] = client.post(INFER, json={"inputs": [given], **more}).json
    return answer


def parts(answer: TestResponse) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the message of a binary answer, and the raw bytes of each output."""
    length = int(answer.headers[HEADER])
    message, raw = json.loads(answer.data[:length]), answer.data[length:]
    found = {}
    for output in message["outputs"]:
        if "parameters" in output:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]], raw = raw[:size], raw[size:]
    assert raw == b""
    return message, found


def test_a_binary_tensor_gets_the_answers_of_json_to_the_last_digit(client: FlaskClient) -> None:
    answer = send(client, PIXELS.tobytes(), {"inputs": [tensor(PIXELS)], "id": "mine"})
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.json == as_json(client, PIXELS, id="mine")


def test_all_outputs_come_as_raw_bytes_on_request(client: FlaskClient) -> None:
    expected = {output["name"]: output for output in as_json(client, PIXELS)["outputs"]}
    asked = {"inputs": [tensor(PIXELS)], "parameters": {"binary_data_output": True}}
    answer = send(client, PIXELS.tobytes(), asked)
    assert answer.content_type == "application/octet-stream"
    message, raw = parts(answer)
    assert [output["name"] for output in message["outputs"]] == list(expected) == list(raw)
    for output in message["outputs"]:
        described = expected[output["name"]]
        assert output == {key: described[key] for key in ("name", "datatype", "shape")} | {
            "parameters": {"binary_data_size": len(raw[output["name"]])}
        }
    assert np.frombuffer(raw["probabilities"], "<f8").tolist() == expected["probabilities"]["data"]
    assert np.frombuffer(raw["routed"], bool).tolist() == expected["routed"]["data"]
    labels = expected["labels"]["data"]
    assert raw["labels"] == b"".join(struct.pack("<I", len(label)) + label.encode() for label in labels)


def test_each_output_says_for_itself_whether_it_is_binary(client: FlaskClient) -> None:
    outputs = [{"name": "labels", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    more = {"outputs": outputs, "parameters": {"binary_data_output": True}}
    message, raw = parts(send(client, PIXELS.tobytes(), {"inputs": [tensor(PIXELS)], **more}))
    assert list(raw) == ["probabilities"]
    assert message["outputs"][0] == as_json(client, PIXELS, outputs=[{"name": "labels"}])["outputs"][0]
    one = [{"name": "unsure", "parameters": {"binary_data": True}}]
    _, raw = parts(send(client, PIXELS.tobytes(), {"inputs": [tensor(PIXELS)], "outputs": one}))
    assert set(raw) == {"unsure"}
    assert len(raw["unsure"]) == len(PIXELS)


def test_a_json_tensor_may_ask_for_binary_outputs(client: FlaskClient) -> None:
    given = {"name": "pixels", "shape": list(PIXELS.shape), "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
    body = {"inputs": [given], "parameters": {"binary_data_output": True}}
    every = {"probabilities", "labels", "routed", "unsure", "both", "accepted"}
    assert set(parts(client.post(INFER, json=body))[1]) == every
    assert set(parts(send(client, b"", body))[1]) == every


def test_unknown_parameters_are_ignored(client: FlaskClient) -> None:
    more = {"priority": 3, "timeout": 10, "sequence_id": "a", "mine": [1, {"a": None}]}
    given = tensor(PIXELS)
    given["parameters"] |= {"mine": 1}
    outputs = [{"name": "labels", "parameters": {"mine": True}}]
    answer = send(client, PIXELS.tobytes(), {"inputs": [given], "parameters": more, "outputs": outputs})
    assert answer.json == as_json(client, PIXELS, outputs=[{"name": "labels"}])


RAW = PIXELS.tobytes()
GOOD = {"inputs": [tensor(PIXELS)]}
WRONG = {
    "shorter than its header says": (RAW[:-1], GOOD, None, "38879 bytes; its shape needs 38880"),
    "longer than its header says": (RAW + b"\0", GOOD, None, "38881 bytes; its shape needs 38880"),
    "a size that is not the shape's": (
        RAW,
        {"inputs": [tensor(PIXELS, parameters={"binary_data_size": 7})]},
        None,
        "binary_data_size is 7; the shape",
    ),
    "a size that is no number": (
        RAW,
        {"inputs": [tensor(PIXELS, parameters={"binary_data_size": "7"})]},
        None,
        "binary_data_size is 7",
    ),
    "a size that is true": (
        b"\0\0\0",
        {"inputs": [tensor(PIXELS[:1, :1, :1], parameters={"binary_data_size": True})]},
        None,
        "binary_data_size is True",
    ),
    "a header that is no number": (RAW, GOOD, "many", "'many'; expected a number"),
    "a negative header": (RAW, GOOD, -1, "'-1'; expected a number"),
    "a header of no bytes": (RAW, GOOD, 0, "is 0; expected 1 to"),
    "a header beyond the body": (b"", GOOD, 10**6, "is 1000000; expected 1 to"),
    "a header of many digits": (RAW, GOOD, "9" * 5000, "expected a number"),
    "a header that cuts the JSON": (RAW, GOOD, 20, "cannot be read"),
    "data and raw bytes": (RAW, {"inputs": [tensor(PIXELS, data=[1])]}, None, "data and a binary_data_size"),
    "no data": (b"", {"inputs": [tensor(PIXELS, parameters={})]}, None, "has no data"),
    "raw bytes of no input": (RAW, {"inputs": [tensor(PIXELS, parameters={})]}, None, "follow the JSON"),
    "a shared memory": (
        b"",
        {"inputs": [tensor(PIXELS, parameters={"shared_memory_region": "a"})]},
        None,
        "has no data",
    ),
    "a flag that is none": (RAW, {**GOOD, "parameters": {"binary_data_output": "yes"}}, None, "binary_data_output"),
    "an output's flag that is none": (
        RAW,
        {**GOOD, "outputs": [{"name": "labels", "parameters": {"binary_data": 1}}]},
        None,
        "binary_data is neither",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_binary_tensor_that_does_not_fit_is_a_400_with_one_sentence(client: FlaskClient, kind: str) -> None:
    raw, message, length, said = WRONG[kind]
    answer = send(client, raw, message, length)
    assert answer.status_code == 400
    assert said in answer.json["error"]
    assert answer.json["error"].endswith(".")
    assert len(answer.data) < 1000
    assert send(client, RAW, GOOD).status_code == 200


def test_a_binary_data_size_without_its_header_is_refused(client: FlaskClient) -> None:
    answer = client.post(INFER, json=GOOD)
    assert answer.status_code == 400
    assert HEADER in answer.json["error"]


def test_a_raw_tensor_may_have_the_bytes_of_the_largest_picture_whatever_an_upload_may_have(app: Flask) -> None:
    client = app.test_client()  # 2 megapixels per picture, 1 MB per upload
    largest = np.zeros((1, 1000, 2000, 3), np.uint8)
    assert send(client, largest.tobytes(), {"inputs": [tensor(largest)]}).status_code == 200
    wide = np.zeros((1, 1001, 2000, 3), np.uint8)
    refused = send(client, wide.tobytes(), {"inputs": [tensor(wide)]})
    assert refused.status_code == 413
    assert "2000x1001" in refused.json["error"]
    several = np.zeros((2, 1000, 2000, 3), np.uint8)
    refused = send(client, several.tobytes(), {"inputs": [tensor(several)]})
    assert refused.status_code == 413
    assert "too large" in refused.json["error"]
    for path, headers in (("/api/v1/classify", {HEADER: "10"}), (INFER, {})):
        assert client.post(path, data=largest.tobytes(), headers=headers).status_code == 413


def test_the_limit_of_raw_tensors_is_none_for_json(client: FlaskClient) -> None:
    given = {"name": "pixels", "shape": [1, 500, 600, 3], "datatype": "UINT8", "data": [0] * 900_000}
    answer = send(client, b"", {"inputs": [given]})  # 2.7 MB of JSON; 1 MB is allowed
    assert answer.status_code == 413
    assert "at most 1 MB" in answer.json["error"]


def test_pictures_of_12_megapixels_are_allowed_by_default() -> None:
    limits = Settings()
    assert limits.max_pixels * 3 > 36_000_000 > limits.max_upload_bytes
