"""Stock clients of the Open Inference Protocol, none of this project's: Triton's over HTTP, and KServe's SDK."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import canonistia
from tests.conftest import CLASSES, draw
from tests.serving import served

PIXELS = np.stack([np.asarray(draw(label, 81)) for label in CLASSES])  # (3, H, W, 3)


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    with served(tiny_bundle) as address:
        yield address


@pytest.fixture
def triton(address: str) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    with http.InferenceServerClient(address.removeprefix("http://").rstrip("/")) as client:
        yield client


def given(pixels: np.ndarray, **options: bool) -> list[Any]:
    from tritonclient.http import InferInput

    tensor = InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, **options)
    return [tensor]


def check(answer: Any, tiny_bundle: Path, pixels: np.ndarray = PIXELS) -> None:
    """Check an answer that has ``as_numpy`` against the Python face."""
    expected = canonistia.load(str(tiny_bundle)).classify(list(pixels))
    labels = [[text.decode() for text in pair] for pair in answer.as_numpy("labels")]
    assert labels == [[one.label_1, one.label_2] for one in expected]
    best = np.sort(answer.as_numpy("probabilities"))[:, ::-1][:, :2]  # (N, 2)
    assert best.tolist() == [[one.probability_1, one.probability_2] for one in expected]
    assert answer.as_numpy("routed").tolist() == [one.stage == "submodels" for one in expected]
    assert answer.as_numpy("unsure").tolist() == [one.unsure for one in expected]
    assert answer.as_numpy("both").tolist() == [one.both for one in expected]


def test_tritonclient_infers_at_its_defaults(triton: Any, tiny_bundle: Path) -> None:
    answer = triton.infer("tiny", given(PIXELS), request_id="mine")
    assert answer.get_response()["id"] == "mine"
    assert all("binary_data_size" in output["parameters"] for output in answer.get_response()["outputs"])
    check(answer, tiny_bundle)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_mixes_json_and_binary(triton: Any, tiny_bundle: Path, binary_in: bool, binary_out: bool) -> None:
    from tritonclient.http import InferRequestedOutput

    names = ("probabilities", "labels", "routed", "unsure", "both", "accepted")
    outputs = [InferRequestedOutput(name, binary_data=binary_out) for name in names]
    pixels = PIXELS[:, :20, :20]
    answer = triton.infer("tiny", given(pixels, binary_data=binary_in), outputs=outputs)
    if binary_out:
        check(answer, tiny_bundle, pixels)
    else:
        assert answer.get_output("labels")["data"][0] in CLASSES


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritonclient_compresses_both_ways(triton: Any, tiny_bundle: Path, coding: str) -> None:
    many = np.concatenate([PIXELS] * 15)  # a long answer
    answer = triton.infer(
        "tiny", given(many), request_compression_algorithm=coding, response_compression_algorithm=coding
    )
    assert answer.as_numpy("probabilities").shape == (45, 3)
    check(triton.infer("tiny", given(PIXELS), response_compression_algorithm=coding), tiny_bundle)


def test_tritonclient_reads_health_metadata_versions_index_and_statistics(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert {"binary_tensor_data", "statistics"} <= set(triton.get_server_metadata()["extensions"])
    (version,) = triton.get_model_metadata("tiny")["versions"]
    assert triton.get_model_metadata("tiny", version)["versions"] == [version]
    assert triton.is_model_ready("tiny", version)
    assert not triton.is_model_ready("tiny", "1")
    assert triton.get_model_repository_index() == [{"name": "tiny", "version": version, "state": "READY", "reason": ""}]
    triton.infer("tiny", given(PIXELS), model_version=version, priority=1, timeout=1000, parameters={"mine": "a"})
    (by_version,) = triton.get_inference_statistics("tiny", version)["model_stats"]
    assert by_version["inference_count"] >= 3
    assert by_version["inference_stats"]["success"]["count"] >= 1
    assert triton.get_inference_statistics()["model_stats"] == [by_version]


def test_tritonclient_is_told_what_is_wrong(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    (version,) = triton.get_model_metadata("tiny")["versions"]
    with pytest.raises(InferenceServerException, match=f"no version 7 of tiny; its version is {version}"):
        triton.infer("tiny", given(PIXELS), model_version="7")
    with pytest.raises(InferenceServerException, match="expected pixels, UINT8"):
        triton.infer("tiny", given(PIXELS[..., :2]))
    with pytest.raises(InferenceServerException, match="No model of that name"):
        triton.get_model_metadata("none")


def test_tritonclient_sends_12_megapixels_with_default_settings(triton: Any, tiny_bundle: Path) -> None:
    photo = np.asarray(draw("rows", 82).resize((4000, 3000)))[None]  # (1, 3000, 4000, 3)
    check(triton.infer("tiny", given(photo)), tiny_bundle, photo)


_KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(address, pixels):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(address)
    assert await client.is_server_ready(address)
    assert await client.is_model_ready(address, "tiny")
    found = []
    for options in ({}, {"binary_data": False}):
        tensor = InferInput("pixels", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels, **options)
        for binary in (True, False):
            parameters = {"binary_data_output": binary}
            request = InferRequest("tiny", [tensor], request_id="mine", parameters=parameters)
            answer = await client.infer(address, request, model_name="tiny")
            assert answer.id == "mine"
            found.append({one.name: one.as_numpy().tolist() for one in answer.outputs})
    print(json.dumps(found, default=bytes.decode))

asyncio.run(main(sys.argv[1], np.load(sys.argv[2])))
"""


def kserve_python() -> str:
    """Return a Python that has KServe's SDK, which does not fit beside every library of the tests."""
    if importlib.util.find_spec("kserve"):
        return sys.executable
    if "CANONISTIA_KSERVE_PYTHON" not in os.environ:
        pytest.skip("kserve is not installed here, and $CANONISTIA_KSERVE_PYTHON names no Python that has it")
    return os.environ["CANONISTIA_KSERVE_PYTHON"]


def test_the_sdk_of_kserve_infers_in_binary_and_in_json(address: str, tiny_bundle: Path, tmp_path: Path) -> None:
    python = kserve_python()
    np.save(tmp_path / "pixels.npy", PIXELS)
    command = [python, "-c", _KSERVE, address.rstrip("/"), str(tmp_path / "pixels.npy")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    expected = canonistia.load(str(tiny_bundle)).classify(list(PIXELS))
    answers = json.loads(ran.stdout.splitlines()[-1])
    assert len(answers) == 4
    for answer in answers:
        assert answer["labels"] == [[one.label_1, one.label_2] for one in expected]
        assert [max(row) for row in answer["probabilities"]] == [one.probability_1 for one in expected]
