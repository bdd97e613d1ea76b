"""The prefix: every address that the service writes begins with the path under which a proxy publishes it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from tests.conftest import Run, draw
from tests.webapps import application, encoded, upload
from webapp.requests.corrections import Collector
from webapp.requests.prefix import OWN
from webapp.settings import MB, Settings

PICTURE = encoded(draw("sky", 41))
PAGES = ("/", "/?lang=es", "/model/{name}", "/api/docs", "/nothing")
_ADDRESSES = {"href", "src", "action", "hx-post"}


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {str(value) for name, value in attrs if name in _ADDRESSES}


def addresses_in(page: str) -> set[str]:
    """Return the addresses of links, forms, scripts, styles and pictures, without data and places in the page."""
    parser = _Addresses()
    parser.feed(page)
    return {address for address in parser.found if not address.startswith(("data:", "#"))}


@pytest.fixture(params=["option", "header", "both"])
def asking(request: pytest.FixtureRequest, light_bundle: Path, tmp_path: Path) -> tuple[FlaskClient, dict[str, str]]:
    """Return a client of a service under /photos/of, and the headers that its proxy sends."""
    option = {"prefix": "/photos/of"} if request.param != "header" else {}
    proxy = {"behind_proxy": True} if request.param != "option" else {}
    settings = Settings(**option, **proxy)  # type: ignore[arg-type]
    app = application(light_bundle, settings=settings, collector=Collector(tmp_path / "collected", MB))
    return app.test_client(), {"X-Forwarded-Prefix": "/photos/of/"} if proxy else {}


@pytest.mark.parametrize("passed", ["with", "without"])
def test_every_address_of_every_page_begins_with_the_prefix_and_answers(
    asking: tuple[FlaskClient, dict[str, str]], light_bundle: Path, passed: str
) -> None:
    client, headers = asking
    before = "/photos/of" if passed == "with" else ""
    found = set()
    for path in PAGES:
        found |= addresses_in(client.get(before + path.format(name=light_bundle.name), headers=headers).text)
    sent = upload((PICTURE, "a.png"), field="pictures")
    answered = client.post(f"{before}/", data=sent, headers=headers)
    assert answered.status_code == 200
    found |= addresses_in(answered.text)
    assert "/photos/of/corrections" in found
    sent = upload((PICTURE, "a.png"), field="pictures")
    part = client.post(f"{before}/", data=sent, headers={**headers, "HX-Request": "true"}).text
    assert 'data-address="/photos/of/maps"' in part
    assert {address for address in found if not address.startswith("/photos/of/")} == set()
    for address in found - {"/photos/of/corrections"}:
        with client.get(before + address.removeprefix("/photos/of"), headers=headers) as answer:
            assert answer.status_code == 200, address


def test_the_api_document_its_page_and_sentences_name_the_prefix(asking: tuple[FlaskClient, dict[str, str]]) -> None:
    client, headers = asking
    assert client.get("/api/v1/openapi.json", headers=headers).json["servers"] == [{"url": "/photos/of"}]
    page = client.get("/api/docs", headers=headers).text
    assert "http://localhost/photos/of/api/v1/classify" in page
    assert "<code>/photos/of/v2/models/{name}</code>" in page
    sentence = client.get("/api/v1/nothing", headers=headers).json["detail"]
    assert sentence == "There is no page at this address; see /photos/of/ or /photos/of/api/docs."


def test_a_redirect_stays_under_the_prefix(asking: tuple[FlaskClient, dict[str, str]]) -> None:
    client, headers = asking
    answer = client.get("/photos/of//api//docs", headers=headers)
    assert answer.status_code == 308
    assert urlsplit(answer.headers["Location"]).path == "/photos/of/api/docs"


def test_without_a_prefix_the_document_names_the_root(light_bundle: Path) -> None:
    client = application(light_bundle).test_client()
    assert client.get("/api/v1/openapi.json").json["servers"] == [{"url": "/"}]


def test_a_prefix_in_a_header_counts_only_behind_a_proxy(light_bundle: Path) -> None:
    client = application(light_bundle).test_client()
    assert "/photos" not in client.get("/", headers={"X-Forwarded-Prefix": "/photos"}).text


@pytest.mark.parametrize(
    "given", ["album", "//elsewhere.example", "/a/../b", "/a b", '/"onload="', "https://a.example"]
)
def test_a_header_that_holds_no_prefix_is_refused_in_one_sentence(light_bundle: Path, given: str) -> None:
    client = application(light_bundle, settings=Settings(behind_proxy=True)).test_client()
    refused = client.get("/api/v1/models", headers={"X-Forwarded-Prefix": given})
    assert refused.status_code == 400
    assert refused.json["detail"].startswith(
        "The header X-Forwarded-Prefix holds no prefix; a prefix begins with a slash"
    )
    assert given not in refused.text


def test_a_proxy_may_publish_the_service_under_the_name_of_one_of_its_paths(light_bundle: Path) -> None:
    client = application(light_bundle, settings=Settings(behind_proxy=True)).test_client()
    answer = client.get("/api/docs", headers={"X-Forwarded-Prefix": "/api"})
    assert answer.status_code == 200
    assert "/api/api/v1/openapi.json" in addresses_in(answer.text)


@pytest.mark.parametrize("given", ["photos", "photos/", "//photos", "/..", "/a?b", "http://photos"])
def test_an_option_that_is_no_prefix_is_one_clear_sentence(run: Run, given: str) -> None:
    result = run("serve", "--prefix", given)
    assert result.exit_code == 2
    said = re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)
    expected = f"'{given}' is no prefix; a prefix begins with a slash and holds letters, digits and -._~ alone"
    assert f"{expected}, such as /photos" in said


@pytest.mark.parametrize("given", ["/api", "/v2/photos"])
def test_a_prefix_like_a_path_of_the_service_is_refused(run: Run, given: str) -> None:
    result = run("serve", "--prefix", given)
    assert result.exit_code == 2
    assert "begins like a path of the service itself" in result.output


def test_the_paths_that_no_prefix_may_begin_like_are_those_of_the_service(light_bundle: Path) -> None:
    app = application(light_bundle)
    assert {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()} - {""} == OWN
