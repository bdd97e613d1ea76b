"""Origins: pages of other sites use the API only where the service allows their origin."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browsing import chromium
from tests.conftest import Run, draw
from tests.serving import running
from tests.webapps import application, encoded, upload
from webapp.keys import ApiKey, Keyring
from webapp.requests.origins import parse_origin
from webapp.settings import Settings

PICTURE = encoded(draw("sky", 41))
FRONT = "https://photos.example"
SETTINGS = Settings(allowed_origins=(FRONT,), keyring=Keyring([ApiKey("secret")]))
ASK = "/api/v1/classify"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Photos.Example", "https://photos.example"),
        ("https://photos.example:443", "https://photos.example"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("*", "*"),
        ("photos.example", None),
        ("https://photos.example/", None),
        ("https://photos.example/page", None),
        ("https://me@photos.example", None),
        ("ftp://photos.example", None),
        ("https://", None),
        ("http://[", None),
        ("http://a:99999", None),
        ("http://a b", None),
        ("null", None),
        ("", None),
    ],
)
def test_an_origin_is_a_scheme_and_a_host(text: str, origin: str | None) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "origin", ["http://[", "http://a:b", "no address", "null", "http://localhost@elsewhere.example"]
)
def test_an_origin_that_is_no_url_is_refused_as_another_site(light_bundle: Path, origin: str) -> None:
    client = application(light_bundle).test_client()
    refused = client.post(ASK, data=PICTURE, headers={"Origin": origin})
    assert refused.status_code == 403
    assert refused.json["type"] == "urn:canonistia:problem:cross_site"


def test_an_origin_is_compared_without_case_and_default_port(light_bundle: Path) -> None:
    client = application(light_bundle).test_client()
    for origin in ("http://LOCALHOST", "http://localhost:80"):
        assert client.post(ASK, data=PICTURE, headers={"Origin": origin}).status_code == 200


def test_a_preflight_is_answered_without_a_key_and_names_what_may_be_sent(light_bundle: Path) -> None:
    client = application(light_bundle, settings=SETTINGS).test_client()
    asked = {"Origin": FRONT, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    answer = client.options(ASK, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == FRONT
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "X-API-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    other = client.options(ASK, headers=asked | {"Origin": "https://elsewhere.example"})
    assert other.status_code == 401
    assert "Access-Control-Allow-Origin" not in other.headers


def test_an_allowed_origin_reads_answers_and_refusals_with_its_key(light_bundle: Path) -> None:
    client = application(light_bundle, settings=SETTINGS).test_client()
    headers = {"Origin": FRONT, "Sec-Fetch-Site": "cross-site"}
    answered = client.post(ASK, data=PICTURE, headers=headers | {"X-API-Key": "secret"})
    assert answered.status_code == 200
    refused = client.post(ASK, data=PICTURE, headers=headers)
    assert refused.status_code == 401
    for answer in (answered, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == FRONT
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "https://photos.example.elsewhere.example", "null"])
def test_another_origin_and_the_page_itself_stay_closed(light_bundle: Path, origin: str) -> None:
    client = application(light_bundle, settings=Settings(allowed_origins=(FRONT,))).test_client()
    assert client.post(ASK, data=PICTURE, headers={"Origin": origin}).status_code == 403
    on_page = client.post("/", data=upload((PICTURE, "a.png"), field="pictures"), headers={"Origin": FRONT})
    assert on_page.status_code == 403
    assert "Access-Control-Allow-Origin" not in on_page.headers


def test_a_star_allows_every_origin(light_bundle: Path) -> None:
    client = application(light_bundle, settings=Settings(allowed_origins=("*",))).test_client()
    answer = client.post(ASK, data=PICTURE, headers={"Origin": "https://anyone.example"})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_star_together_with_keys_is_refused_at_start(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    result = run("serve", "--allow-origin", "*", "--api-key-file", tmp_path / "keys")
    assert result.exit_code == 2
    assert "--allow-origin '*' lets every site use the keys of its visitors; name the origins" in result.output


@pytest.mark.parametrize("given", ["photos.example", "https://photos.example/"])
def test_an_option_that_is_no_origin_is_one_sentence(run: Run, given: str) -> None:
    result = run("serve", "--allow-origin", given)
    assert result.exit_code == 2
    assert f"'{given}' is no origin; an origin is a scheme and a host" in result.output


FRONT_PAGE = """<!doctype html><title>front</title><script>
async function ask(address, key) {
  const headers = { "Content-Type": "image/png", "X-API-Key": key };
  const sent = { method: "POST", body: new Uint8Array(BYTES), headers };
  try {
    const answer = await fetch(address, sent);
    return [answer.status, answer.headers.get("X-Request-ID") !== null];
  } catch (error) { return [0, false]; }
}
</script>"""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def front_end(folder: Path) -> Iterator[str]:
    """Serve a folder on a port of its own, as a front-end elsewhere does; yield its origin."""
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_front_end_elsewhere_asks_with_a_key_in_a_real_browser(light_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    (tmp_path / "index.html").write_text(FRONT_PAGE.replace("BYTES", str(list(PICTURE))))
    with front_end(tmp_path) as allowed, front_end(tmp_path) as other:
        options = ("--model", light_bundle, "--api-key-file", tmp_path / "keys", "--allow-origin", allowed)
        with running(*options) as server, chromium() as browser:
            statuses = {}
            for origin in (allowed, other):
                page = browser.new_page()
                page.goto(origin)
                words = [f"{server.address}api/v1/classify", "secret"]
                statuses[origin] = page.evaluate("([address, key]) => ask(address, key)", words)
                page.close()
    assert statuses == {allowed: [200, True], other: [0, False]}
