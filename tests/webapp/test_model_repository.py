"""Versions, index and statistics of the Open Inference Protocol."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from cascade.bundle.reading import read_bundle
from tests.conftest import CLASSES, draw
from tests.webapps import application, encoded, upload

PIXELS = np.stack([np.asarray(draw(label, 31)) for label in CLASSES])  # (3, H, W, 3)
BODY = {
    "inputs": [
        {"name": "pixels", "shape": list(PIXELS.shape), "datatype": "UINT8", "data": PIXELS.ravel().tolist()},
    ]
}


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, folder)
    return folder


@pytest.fixture
def client(bundle: Path) -> FlaskClient:
    return application(bundle).test_client()


def test_the_version_that_the_metadata_names_answers_and_another_is_a_404(client: FlaskClient) -> None:
    (version,) = client.get("/v2/models/tiny").json["versions"]
    base = f"/v2/models/tiny/versions/{version}"
    for path in ("", "/ready", "/stats"):
        assert client.get(base + path).json == client.get("/v2/models/tiny" + path).json
    answer = client.post(f"{base}/infer", json=BODY).json
    assert answer["model_version"] == version
    assert answer == client.post("/v2/models/tiny/infer", json=BODY).json
    other = "/v2/models/tiny/versions/1"
    for path in ("", "/ready", "/stats"):
        refused = client.get(other + path)
        assert refused.status_code == 404
        assert refused.json["error"] == f"There is no version 1 of tiny; its version is {version}."
    assert client.post(f"{other}/infer", json=BODY).status_code == 404
    assert client.get(f"/v2/models/none/versions/{version}").status_code == 404


def test_a_version_that_was_replaced_is_gone(client: FlaskClient, bundle: Path) -> None:
    (old,) = client.get("/v2/models/tiny").json["versions"]
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["rules"]["routing"] = {"rule": "confidence", "threshold": 1.01}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    client.application.extensions["canonistia"].service.reload()
    new = read_bundle(bundle).sha256
    assert client.get("/v2/models/tiny").json["versions"] == [new] != [old]
    assert client.post(f"/v2/models/tiny/versions/{old}/infer", json=BODY).status_code == 404
    assert client.post(f"/v2/models/tiny/versions/{new}/infer", json=BODY).status_code == 200


def test_the_index_lists_every_model_with_its_state(tiny_bundle: Path, bundle: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(tiny_bundle, second)
    manifest = json.loads((second / "bundle.json").read_text())
    (second / "bundle.json").write_text(json.dumps(manifest | {"name": "second"}))
    client = application(bundle, second).test_client()
    versions = {name: client.get(f"/v2/models/{name}").json["versions"][0] for name in ("tiny", "second")}
    ready = [{"name": name, "version": versions[name], "state": "READY", "reason": ""} for name in versions]
    assert client.post("/v2/repository/index").json == ready
    assert client.post("/v2/repository/index", json={"ready": False, "more": 1}).json == ready
    shutil.rmtree(second)  # it is not loaded yet
    gone = client.post("/v2/repository/index").json
    assert gone[0] == ready[0]
    assert gone[1]["state"] == "UNAVAILABLE"
    assert gone[1]["reason"]
    assert client.post("/v2/repository/index", json={"ready": True}).json == ready[:1]
    for body in (b"{", b"[]", b'{"ready": 1}'):
        assert client.post("/v2/repository/index", data=body).status_code == 400


def stats(client: FlaskClient) -> dict[str, Any]:
    (found,) = client.get("/v2/models/tiny/stats").json["model_stats"]
    return dict(found)


def test_statistics_count_requests_pictures_and_batches(client: FlaskClient) -> None:
    nothing = stats(client)
    assert nothing["inference_count"] == nothing["execution_count"] == nothing["last_inference"] == 0
    assert nothing["batch_stats"] == []
    before = time.time() * 1000 - 1
    client.post("/v2/models/tiny/infer", json=BODY)
    client.post("/api/v1/classify", data=encoded(draw("sky", 1)))
    client.post("/", data=upload((encoded(draw("sky", 2)), "a.png"), field="pictures"))
    client.post("/api/v1/classify", data=upload(*[(b"", "a.png")] * 51))  # more than are allowed
    found = stats(client)
    assert found["name"] == "tiny"
    assert found["version"] == client.get("/v2/models/tiny").json["versions"][0]
    assert before <= found["last_inference"] <= time.time() * 1000
    assert found["inference_count"] == 5
    batches = found["batch_stats"]
    assert sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in batches) == 5
    assert sum(batch["compute_infer"]["count"] for batch in batches) == found["execution_count"]
    steps = found["inference_stats"]
    assert steps["success"]["count"] == 3
    assert steps["fail"]["count"] == 1
    for step in ("queue", "compute_input", "compute_infer"):
        assert steps[step]["count"] == 5
        assert steps[step]["ns"] > 0
    assert steps["compute_infer"]["ns"] >= sum(batch["compute_infer"]["ns"] for batch in batches)
    assert steps["success"]["ns"] > 0
    assert client.get("/v2/models/stats").json == {"model_stats": [found]}


def test_statistics_of_a_model_that_is_not_loaded_are_zero(tiny_bundle: Path, bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"name": "second"}))
    client = application(tiny_bundle, bundle).test_client()
    found = client.get("/v2/models/stats").json["model_stats"]
    assert [(entry["name"], entry["inference_count"]) for entry in found] == [("tiny", 0), ("second", 0)]
    assert client.get("/v2/models/none/stats").status_code == 404
    assert client.get("/v2/models/second/ready").json == {"ready": True}
