"""Security: API keys, cross-site requests, rate limits, host names, and the headers of responses."""

import base64
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.conftest import draw
from tests.webapps import application, encoded, upload
from webapp.keys import ApiKey, Keyring
from webapp.settings import Settings

PICTURE = encoded(draw("sky", 41))


def client(bundle: Path, **settings: object) -> FlaskClient:
    return application(bundle, settings=Settings(**settings)).test_client()  # type: ignore[arg-type]


def test_every_answer_carries_the_security_headers(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle)
    for path in ("/", "/api/v1/models", "/nothing", "/static/icon.svg"):
        with asked.get(path) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}],
    ids=["origin", "fetch metadata", "null"],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/classify"])
def test_a_post_from_another_site_is_refused(tiny_bundle: Path, headers: dict[str, str], path: str) -> None:
    asked = client(tiny_bundle)
    data = upload((PICTURE, "a.png"), field="pictures")
    assert asked.post(path, data=data, headers=headers).status_code == 403
    same = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert asked.post(path, data=upload((PICTURE, "a.png"), field="pictures"), headers=same).status_code == 200


def test_only_trusted_names_are_answered(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle, trusted_hosts=("localhost",))
    assert asked.get("/api/v1/models").status_code == 200
    refused = asked.get("/api/v1/models", headers={"Host": "rebound.example"})
    assert refused.status_code == 400
    assert refused.json["type"] == "urn:canonistia:problem:host"


def test_probes_ask_for_health_and_metrics_under_any_name(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle, trusted_hosts=("photos.example",))
    address = {"Host": "10.1.2.3:8000"}
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready", "/metrics"):
        assert asked.get(path, headers=address).status_code == 200
    for path in ("/", "/api/v1/models", "/v2", "/v2/models/tiny", "/static/icon.svg"):
        assert asked.get(path, headers=address).status_code == 400


@pytest.mark.parametrize(
    ("trusted", "host", "status"),
    [
        (("::1",), "[::1]:8000", 200),
        (("[::1]",), "[::1]", 200),
        (("::1", "localhost"), "localhost:8000", 200),
        (("::1",), "[::2]:8000", 400),
        (("127.0.0.1",), "[::1]", 400),
        (("::1",), "::1", 400),
        (("::1",), "[::1].rebound.example", 400),
        ((".example",), "photos.example", 200),
        (("Photos.Example",), "photos.example", 200),
        (("photos.example",), "PHOTOS.example:8000", 200),
        (("2001:DB8::1",), "[2001:db8::1]", 200),
        ((), "[fe80::1]", 200),
    ],
)
def test_names_and_addresses_are_trusted_with_any_port(
    tiny_bundle: Path, trusted: tuple[str, ...], host: str, status: int
) -> None:
    asked = client(tiny_bundle, trusted_hosts=trusted)
    assert asked.get("/api/v1/models", headers={"Host": host}).status_code == status


def test_a_key_opens_everything_but_health(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle, keyring=Keyring([ApiKey("first key"), ApiKey("second")]))
    basic = base64.b64encode(b"anyone:first key").decode()
    for path in ("/", "/api/v1/models", "/metrics", "/v2", "/api/docs"):
        refused = asked.get(path)
        assert refused.status_code == 401
        assert "Basic" in refused.headers["WWW-Authenticate"]
        for wrong in ("Bearer third", "Basic " + base64.b64encode(b"second:").decode(), "Bearer ", "Basic !"):
            assert asked.get(path, headers={"Authorization": wrong}).status_code == 401
        for right in ({"Authorization": "Bearer second"}, {"Authorization": f"Basic {basic}"}, {"X-API-Key": "second"}):
            assert asked.get(path, headers=right).status_code == 200
    assert asked.get("/v2/health/live").status_code == 200
    with asked.get("/static/icon.svg") as answer:
        assert answer.status_code == 200


def test_over_the_rate_is_told_when_to_come_back(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle, rate="3/minute")
    statuses = [asked.post("/api/v1/classify", data=PICTURE).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = asked.post("/api/v1/classify", data=PICTURE)
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert asked.get("/v2/health/ready").status_code == 200
