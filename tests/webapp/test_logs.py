"""The log: one line per request, without file names and addresses."""

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.terminal import printable
from tests.conftest import draw
from tests.webapps import application, encoded, upload
from webapp.requests.logs import configure, greet, native_output_logged

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
    assert first | {"milliseconds": 0, "request_id": "1"} == {
        "method": "POST",
        "route": "/api/v1/classify",
        "status": 200,
        "milliseconds": 0,
        "request_id": "1",
        "model": "tiny",
        "pictures": 1,
    }


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("7f1c-42", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("a" * 129, False),
        ("two words", False),
        ("a\x1b[31m", False),
        ("", False),
    ],
)
def test_the_id_of_a_request_is_taken_if_it_is_short_and_plain_and_is_returned_and_logged(
    light_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, given: str, is_taken: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("canonistia"), "propagate", True)
    client = application(light_bundle).test_client()
    with caplog.at_level(logging.INFO, "canonistia.access"):
        returned = [client.get(path, headers={"X-Request-ID": given}).headers["X-Request-ID"] for path in ("/", "/no")]
    assert [record.fields["request_id"] for record in caplog.records] == returned  # type: ignore[attr-defined]
    assert all((one == given) is is_taken for one in returned)
    assert is_taken or len({len(one) for one in returned} | {32}) == 1


@pytest.fixture
def restored_log() -> Iterator[None]:
    logger = logging.getLogger("canonistia")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("restored_log")
def test_what_libraries_write_to_standard_error_does_not_break_a_json_log(capfd: pytest.CaptureFixture[str]) -> None:
    configure("json")
    with native_output_logged(), ThreadPoolExecutor(8) as threads:
        greet("json", "serving tiny")
        for number in range(200):
            threads.submit(os.write, 2, f"TIFFReadDirectory: Warning {number}\n".encode())
            threads.submit(logging.getLogger("canonistia.access").info, "asked %s", number)
        os.write(2, b"\xff\x1b[31m" + b"x" * 5000 + b"\n\n")
        subprocess.run(["sh", "-c", "echo from another process >&2"], check=True)
    os.write(2, b"as before\n")
    *lines, last = capfd.readouterr().err.splitlines()
    entries = [json.loads(line) for line in lines]
    messages = [entry["message"] for entry in entries]
    for number in range(200):
        assert f"TIFFReadDirectory: Warning {number}" in messages
        assert f"asked {number}" in messages
    assert {"serving tiny", "from another process"} <= set(messages)
    assert all(len(message) <= 1000 for message in messages)
    assert last == "as before"


@pytest.mark.usefixtures("restored_log")
def test_a_log_in_text_steers_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    configure("text")
    greet("text", "serving \x1b]0;title\x07 at http://127.0.0.1")
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError:
        logging.getLogger("canonistia.service").exception("the new %s is refused", "a\x1b[31m\nb")
    shown = capfd.readouterr().err
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert "the new a\\x1b[31m\\nb is refused" in shown
    assert "ValueError: \\x1b[2J\\u202e" in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.usefixtures("restored_log")
def test_a_log_on_a_full_disk_stops_nothing() -> None:
    kept = os.dup(2)
    try:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 2)
        configure("json")
        with native_output_logged():
            greet("text", "serving")
            logging.getLogger("canonistia.service").error("an error")
    finally:
        os.dup2(kept, 2)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("straße 1.png", "straße 1.png"),
        ("a\x1b[31m.png", "a\\x1b[31m.png"),
        ("\u202egnp.a", "\\u202egnp.a"),
        ("\n", "\\n"),
        ("\udcff", "\\udcff"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_a_character_that_is_not_shown_is_an_escape(name: str, shown: str) -> None:
    assert printable(name) == shown
