"""Who may ask, from where, how often, and what a browser may do with the answers."""

import base64
import logging
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.conftest import Run, draw
from tests.webapps import application, encoded, upload
from webapp.settings import Settings

PICTURE = encoded(draw("sky", 41))


def client(bundle: Path, **settings: object) -> FlaskClient:
    return application(bundle, settings=Settings(**settings)).test_client()  # type: ignore[arg-type]


def test_every_answer_carries_the_browser_locks(tiny_bundle: Path) -> None:
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


def test_a_key_opens_everything_but_health(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle, api_keys=("first key", "second"))
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


def test_the_log_names_no_file_and_no_address(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("canonistia"), "propagate", True)
    asked = client(tiny_bundle)
    with caplog.at_level(logging.INFO, "canonistia.access"):
        asked.post("/api/v1/classify", data=upload((PICTURE, "my secret.png")))
        asked.post("/", data=upload((b"text", "my secret.png"), field="pictures"))
        asked.get("/my%20secret.png?my=secret")
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


def test_metrics_grow_with_nothing_that_a_client_invents(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle)
    for number in range(20):
        asked.open(f"/{number}", method=f"INVENTED{number}")
    text = asked.get("/metrics").text
    assert "INVENTED" not in text
    assert text.count("canonistia_requests_total{") == 1


def test_a_picture_refused_is_counted_once(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle)
    asked.post("/api/v1/classify", data=b"text")
    asked.post("/", data=upload((b"text", "a.png"), field="pictures"))
    assert 'canonistia_errors_total{kind="format"} 2.0' in asked.get("/metrics").text


def test_metrics_count_what_happened(tiny_bundle: Path) -> None:
    asked = client(tiny_bundle)
    asked.post("/api/v1/classify", data=upload((PICTURE, "a.png"), (b"text", "b.png")))
    asked.post("/api/v1/classify", data=b"")
    lines = asked.get("/metrics").text.splitlines()
    assert 'canonistia_requests_total{method="POST",route="/api/v1/classify",status="200"} 1.0' in lines
    assert 'canonistia_errors_total{kind="format"} 1.0' in lines
    assert 'canonistia_errors_total{kind="no_picture"} 1.0' in lines
    assert any(line.startswith('canonistia_pictures_total{model="tiny",stage=') for line in lines)
    assert "canonistia_queue_pictures 0.0" in lines
    for name in ("batch_pictures", "decode_seconds", "queue_seconds", "inference_seconds"):
        assert f"canonistia_{name}_count" in "\n".join(lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rate", "often"), "'often' is no rate; expected such as '60/minute'"),
        (("--model", "no such"), "no bundle 'no such'"),
        (("--api-key-file", "empty"), "holds no key; expected one a line"),
    ],
)
def test_serve_says_what_is_wrong_with_its_options(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    result = run("serve", *options)
    assert result.exit_code != 0
    assert words in result.output.replace("\n", " ")
