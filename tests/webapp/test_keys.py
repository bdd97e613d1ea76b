"""API keys: named, with rates of their own, read again while the service runs, and asked for by a browser."""

import base64
import http.client
import http.server
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.browsing import chromium
from tests.conftest import draw
from tests.serving import running
from tests.waiting import wait_until
from tests.webapp.test_server import workers
from tests.webapps import application, encoded
from webapp.keys import ApiKey, Keyring, KeysError, read_keys
from webapp.settings import Settings

PICTURE = encoded(draw("sky", 41))
ASK = "/api/v1/classify"
TABLES = """# of the two front-ends
[phone]
key = "first"
rate = "2/minute"  # it sends one picture at a time

["web page"]
key = "second"
"""


def client(bundle: Path, *keys: ApiKey, rate: str | None = None) -> FlaskClient:
    return application(bundle, settings=Settings(keyring=Keyring(keys), rate=rate)).test_client()


def test_keys_are_named_and_commented_in_tables(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(TABLES)
    assert read_keys(tmp_path / "keys.toml") == (ApiKey("first", "phone", "2/minute"), ApiKey("second", "web page"))
    (tmp_path / "keys").write_text("# ours\nfirst\n\nsecond key\n")
    assert read_keys(tmp_path / "keys") == (ApiKey("first"), ApiKey("second key"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key; expected one per table"),
        ("first\n", "expected tables such as [phone] with key ="),
        ('[phone]\nkey = ""\n', "expected tables such as [phone] with key ="),
        ('[phone]\nkey = "a"\nrates = "1/minute"\n', "expected tables such as [phone] with key ="),
        ('[phone]\nkey = "a"\nrate = "often"\n', "gives phone the rate 'often'; expected such as '60/minute'"),
        ('[phone]\nkey = "a"\n[web]\nkey = "a"\n', "holds a key twice; expected each once; remove one of them"),
        ('[phone]\nkey = "ä"\n', "holds a key with characters outside ASCII"),
    ],
    ids=["empty", "plain", "empty key", "unknown field", "no rate", "twice", "not ASCII"],
)
def test_a_wrong_file_of_keys_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys.toml").write_text(text, encoding="utf-8")
    with pytest.raises(KeysError) as caught:
        read_keys(tmp_path / "keys.toml")
    assert message in str(caught.value)
    assert '"a"' not in str(caught.value)


def test_a_key_with_a_rate_of_its_own_counts_for_itself_at_any_address(light_bundle: Path) -> None:
    asked = client(light_bundle, ApiKey("first", "phone", "2/minute"), ApiKey("second", "web"), rate="3/minute")

    def statuses(key: str, address: str, times: int) -> list[int]:
        environment = {"REMOTE_ADDR": address}
        headers = {"X-API-Key": key}
        return [
            asked.post(ASK, data=PICTURE, headers=headers, environ_base=environment).status_code for _ in range(times)
        ]

    assert statuses("first", "192.0.2.1", 1) + statuses("first", "192.0.2.2", 2) == [200, 200, 429]
    assert statuses("second", "192.0.2.1", 4) == [200, 200, 200, 429]
    assert statuses("second", "192.0.2.2", 1) == [200]


def test_without_a_rate_of_the_service_only_the_keys_with_one_are_limited(light_bundle: Path) -> None:
    asked = client(light_bundle, ApiKey("first", "phone", "1/minute"), ApiKey("second"))
    for key, expected in (("first", [200, 429, 429]), ("second", [200, 200, 200])):
        headers = {"Authorization": f"Bearer {key}"}
        assert [asked.post(ASK, data=PICTURE, headers=headers).status_code for _ in range(3)] == expected
    assert asked.get("/", headers={"X-API-Key": "first"}).status_code == 200


def test_wrong_keys_are_counted_on_every_method_and_stop_right_ones_of_that_address(light_bundle: Path) -> None:
    asked = client(light_bundle, ApiKey("right"), rate="3/minute")

    def status(key: str | None, address: str = "192.0.2.1") -> int:
        headers = {"X-API-Key": key} if key else {}
        return asked.get("/api/v1/models", headers=headers, environ_base={"REMOTE_ADDR": address}).status_code

    assert [status(None) for _ in range(5)] == [401] * 5  # a browser asks without a key first
    assert [status("right") for _ in range(5)] == [200] * 5
    assert [status("wrong") for _ in range(4)] == [401, 401, 401, 429]
    assert status("right") == 429  # else a right guess among many would show
    assert status("right", "192.0.2.2") == 200
    refused = asked.get("/", headers={"X-API-Key": "wrong"}, environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert 0 < int(refused.headers["Retry-After"]) <= 60


def test_the_log_names_the_key_and_not_its_secret(
    light_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("canonistia"), "propagate", True)
    asked = client(light_bundle, ApiKey("s3cret", "phone"), ApiKey("other"))
    with caplog.at_level(logging.INFO, "canonistia.access"):
        for key in ("s3cret", "other", "wr0ng"):
            asked.get("/", headers={"X-API-Key": key})
    named = [record.fields.get("key") for record in caplog.records]  # type: ignore[attr-defined]
    assert named == ["phone", None, None]
    assert not any(secret in caplog.text for secret in ("s3cret", "wr0ng"))


def status_with(port: int, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/api/v1/models", headers={"X-API-Key": key, "Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def test_keys_are_read_again_on_sighup_also_by_a_worker_that_starts_later(light_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('[phone]\nkey = "old"\n')
    keys.chmod(0o600)
    with running("--model", light_bundle, "--api-key-file", keys) as server:
        assert (status_with(server.port, "old"), status_with(server.port, "new")) == (200, 401)
        keys.write_text('[phone]\nkey = "new"\n')
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status_with(server.port, "new") == 200)
        assert status_with(server.port, "old") == 401
        keys.write_text("[phone]\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("the new keys are refused, the old ones stay in use" in line for line in server.said()))
        assert status_with(server.port, "new") == 200
        (worker,) = workers(server)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: workers(server) not in ([worker], []) and status_with(server.port, "new") == 200)
        assert status_with(server.port, "old") == 401


@contextmanager
def challenging(*challenges: str) -> Iterator[str]:
    """Serve a page that asks for a password by these header lines; yield its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if "Authorization" in self.headers else 401)
            for challenge in challenges:
                self.send_header("WWW-Authenticate", challenge)
            self.send_header("Content-Length", "4")  # Chromium shows a page of its own for a refusal without a body
            self.end_headers()
            self.wfile.write(b"text")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_chromium_answers_the_challenge_which_it_would_not_if_both_were_in_one_line(
    light_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with (
        running("--model", light_bundle, "--api-key-file", tmp_path / "keys") as server,
        challenging('Basic realm="canonistia", charset="UTF-8"', 'Bearer realm="canonistia"') as in_two_lines,
        challenging('Basic realm="canonistia", charset="UTF-8", Bearer') as in_one_line,
        chromium() as browser,
    ):
        context = browser.new_context(http_credentials={"username": "anyone", "password": "secret"})
        page = context.new_page()
        statuses = []
        for address in (server.address, in_two_lines, in_one_line):
            answer = page.goto(address)
            assert answer is not None
            statuses.append(answer.status)
        assert statuses == [200, 200, 401]
        page.goto(server.address)
        assert page.locator("#upload").count() == 1  # with its styles and scripts
        context.close()
        stranger = browser.new_context(http_credentials={"username": "anyone", "password": "wrong"}).new_page()
        answer = stranger.goto(server.address)
        assert answer is not None
        assert answer.status == 401


def test_each_challenge_has_a_header_line_of_its_own(light_bundle: Path) -> None:
    refused = client(light_bundle, ApiKey("right")).get("/")
    lines = refused.headers.getlist("WWW-Authenticate")
    assert lines == ['Basic realm="canonistia", charset="UTF-8"', 'Bearer realm="canonistia"']
    right = {"Authorization": "Basic " + base64.b64encode(b"me:right").decode()}
    assert client(light_bundle, ApiKey("right")).get("/", headers=right).status_code == 200
