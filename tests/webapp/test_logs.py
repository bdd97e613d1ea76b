"""The log: one line per request, without file names and addresses."""

import logging
from pathlib import Path

import pytest

from tests.conftest import draw
from tests.webapps import application, encoded, upload

PICTURE = encoded(draw("sky", 41))


def test_the_log_names_no_file_and_no_address(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("canonistia"), "propagate", True)
    client = application(tiny_bundle).test_client()
    with caplog.at_level(logging.INFO, "canonistia.access"):
        client.post("/api/v1/classify", data=upload((PICTURE, "my secret.png")))
        client.post("/", data=upload((b"text", "my secret.png"), field="pictures"))
        client.get("/my%20secret.png?my=secret")
    assert len(caplog.records) == 3
    assert "secret" not in caplog.text
    assert "127.0.0.1" not in caplog.text
    first = caplog.records[0].fields  # type: ignore[attr-defined]
    assert first | {"milliseconds": 0} == {
        "method": "POST",
        "route": "/api/v1/classify",
        "status": 200,
        "milliseconds": 0,
        "model": "tiny",
        "pictures": 1,
    }
