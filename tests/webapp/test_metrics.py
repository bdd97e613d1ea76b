"""The metrics: requests, refusals and pictures are counted."""

from pathlib import Path

from tests.conftest import draw
from tests.webapps import application, encoded, upload

PICTURE = encoded(draw("sky", 41))


def test_metrics_grow_with_nothing_that_a_client_invents(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    for number in range(20):
        client.open(f"/{number}", method=f"INVENTED{number}")
    text = client.get("/metrics").text
    assert "INVENTED" not in text
    assert text.count("canonistia_requests_total{") == 1


def test_a_picture_refused_is_counted_once(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    client.post("/api/v1/classify", data=b"text")
    client.post("/", data=upload((b"text", "a.png"), field="pictures"))
    assert 'canonistia_errors_total{kind="format"} 2.0' in client.get("/metrics").text


def test_metrics_count_what_happened(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    client.post("/api/v1/classify", data=upload((PICTURE, "a.png"), (b"text", "b.png")))
    client.post("/api/v1/classify", data=b"")
    lines = client.get("/metrics").text.splitlines()
    assert 'canonistia_requests_total{method="POST",route="/api/v1/classify",status="200"} 1.0' in lines
    assert 'canonistia_errors_total{kind="format"} 1.0' in lines
    assert 'canonistia_errors_total{kind="no_picture"} 1.0' in lines
    assert any(line.startswith('canonistia_pictures_total{model="tiny",stage=') for line in lines)
    assert "canonistia_queue_pictures 0.0" in lines
    for name in ("batch_pictures", "decode_seconds", "queue_seconds", "inference_seconds"):
        assert f"canonistia_{name}_count" in "\n".join(lines)
