"""The metrics: requests, refusals and pictures are counted."""

import json
import re
import time
from importlib.metadata import version
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import draw
from tests.webapps import application, encoded, upload

ROOT = Path(__file__).resolve().parents[2]
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


def test_durations_are_counted_by_route_model_and_status(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    client.post("/api/v1/classify", data=PICTURE)
    client.post("/api/v1/classify", data=b"text")
    client.post("/api/v1/classify?model=none", data=PICTURE)
    client.get("/")
    client.get("/my-secret")
    counts = {
        (sample.labels["route"], sample.labels["model"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "canonistia_request_seconds_count"
    }
    assert counts == {
        ("/api/v1/classify", "tiny", "200"): 1,
        ("/api/v1/classify", "tiny", "415"): 1,
        ("/api/v1/classify", "", "404"): 1,
        ("/", "", "200"): 1,
        ("none", "", "404"): 1,
    }


def test_a_request_is_timed_from_its_header_to_its_answer(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    before = time.monotonic()
    client.post("/api/v1/classify", data=PICTURE)
    at_most = time.monotonic() - before
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("canonistia_request_seconds_sum") and "classify" in line]
    assert 0 < float(line.split()[-1]) <= at_most


def test_the_version_and_the_process_are_in_the_metrics_and_no_times_of_creation(tiny_bundle: Path) -> None:
    text = application(tiny_bundle).test_client().get("/metrics").text
    assert f'version="{version("canonistia")}"' in next(
        line for line in text.splitlines() if line.startswith("canonistia_build_info{")
    )
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert f"\n{name} " in text
    assert "_created" not in text


def test_the_dashboard_of_grafana_asks_for_series_and_labels_that_there_are(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    client.post("/api/v1/classify", data=PICTURE)
    client.post("/api/v1/classify", data=b"text")
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    series = {sample.name for family in families for sample in family.samples}
    # Series with labels appear with their first value.
    series |= {"canonistia_unsure_total", "canonistia_reloads_total"}
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expression in asked for name in re.findall(r"\b(?:canonistia|process)_\w+", expression)}
    assert named <= series
    grouped = {
        name.strip()
        for expression in asked
        for group in re.findall(r"by \(([^)]*)\)", expression)
        for name in group.split(",")
    }
    assert grouped <= labels | {"job", "instance", "result"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    covered = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) < 24
