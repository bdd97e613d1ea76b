"""A client generated from the OpenAPI document, by a generator that knows nothing of this service."""

import importlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import draw
from tests.serving import served
from tests.webapps import encoded

pytest.importorskip("openapi_python_client", reason="openapi-python-client is not installed")


def test_a_generated_client_uploads_a_picture(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tiny_bundle) as address:
        generator = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
        document = ["--url", f"{address}api/v1/openapi.json", "--output-path", str(tmp_path / "generated")]
        subprocess.run([*generator, *document], check=True, capture_output=True)
        monkeypatch.syspath_prepend(tmp_path)
        classify, models, types = (
            importlib.import_module(f"generated.{name}") for name in ("api.pictures.api_classify", "models", "types")
        )
        picture = types.File(io.BytesIO(encoded(draw("sky", 1))), "sky.png", "image/png")
        body = models.ApiClassifyFilesBody(file=[picture], model="tiny", top_k=3)
        with importlib.import_module("generated").Client(address.rstrip("/")) as client:
            answer = classify.sync(client=client, body=body)
            raw = classify.sync(client=client, body=types.File(io.BytesIO(encoded(draw("sky", 1)))))
    (result,) = answer.results
    assert answer.model == "tiny"
    assert result.path == "sky.png"
    assert [result.label_1, result.label_2] == [one.label for one in result.top[:2]]
    assert len(result.top) == 3
    assert raw.results[0].label_1 == result.label_1
