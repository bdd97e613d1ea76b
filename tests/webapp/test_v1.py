"""The API: the same rows as on the command line, and one sentence per problem."""

import io
import json
import struct
import zlib
from dataclasses import asdict
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

import canonistia
from cascade.batch.pipeline import answers
from cascade.bundle.reading import read_manifest
from cascade.inputs.item import items_of
from cascade.outputs.rows import COLUMNS
from tests.conftest import CLASSES, draw
from tests.webapps import application, encoded, upload
from webapp.settings import Settings


@pytest.fixture(scope="module")
def app(tiny_bundle: Path) -> Flask:
    return application(tiny_bundle)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_results_are_the_rows_of_classify(client: FlaskClient, tiny_bundle: Path, tmp_path: Path) -> None:
    files = []
    for label in CLASSES:
        draw(label, 21).save(tmp_path / f"{label}.png")
        files.append(tmp_path / f"{label}.png")
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:90])
    files.insert(1, tmp_path / "broken.png")
    rows = [one.row for one in answers(canonistia.load(str(tiny_bundle)), items_of(files), workers=1)]
    expected = [asdict(row) | {"path": Path(row.path).name} for row in rows]
    answer = client.post("/api/v1/classify", data=upload(*((path.read_bytes(), path.name) for path in files)))
    assert answer.status_code == 200
    assert answer.json["results"] == expected
    assert answer.json["model"] == "tiny"


def test_a_picture_as_the_whole_body_gives_the_same_answer_as_in_a_form(client: FlaskClient) -> None:
    data = encoded(draw("sky", 22))
    in_form = client.post("/api/v1/classify", data=upload((data, "body"))).json
    for kind in ("image/png", "application/octet-stream", None):
        assert client.post("/api/v1/classify", data=data, content_type=kind).json == in_form


def test_scores_on_request_hold_every_class_of_both_stages(client: FlaskClient) -> None:
    data = encoded(draw("sky", 23))
    (result,) = client.post("/api/v1/classify?scores=true", data=data).json["results"]
    assert set(result) == {*COLUMNS, "scores", "main", "submodels", "doubt"}
    assert set(result["scores"]) == set(CLASSES)
    assert sum(result["scores"].values()) == pytest.approx(1)
    assert result["probability_1"] == result["scores"][result["label_1"]] == max(result["scores"].values())
    if result["stage"] == "main":
        assert result["scores"] == result["main"]
        assert set(result["submodels"].values()) == {None}


def test_the_most_likely_classes_on_request_are_the_first_of_the_scores(client: FlaskClient) -> None:
    data = encoded(draw("rows", 24))
    (result,) = client.post("/api/v1/classify?scores=true&top_k=3", data=data).json["results"]
    expected = sorted(result["scores"].items(), key=lambda one: -one[1])[:3]
    assert [(one["label"], one["probability"]) for one in result["top"]] == expected
    assert expected[:2] == [(result[f"label_{place}"], result[f"probability_{place}"]) for place in (1, 2)]
    (result,) = client.post("/api/v1/classify?top_k=1000", data=data).json["results"]
    assert len(result["top"]) == len(CLASSES)
    assert "scores" not in result


def test_a_prediction_set_on_request_is_that_of_the_bundles_limit(client: FlaskClient, tiny_bundle: Path) -> None:
    limits = read_manifest(tiny_bundle)[0].prediction_sets
    for coverage, limit in limits.items():
        path = f"/api/v1/classify?scores=true&prediction_set={float(coverage)}"
        (result,) = client.post(path, data=encoded(draw("dots", 25))).json["results"]
        order = sorted(result["scores"], key=lambda label: -result["scores"][label])
        inside = [label for label in order if 1 - result["scores"][label] <= limit]
        assert result["prediction_set"] == (inside or order[:1])
    refused = client.post("/api/v1/classify?prediction_set=0.123", data=encoded(draw("dots", 25)))
    assert refused.status_code == 400
    assert all(coverage in refused.json["detail"] for coverage in limits)


@pytest.mark.parametrize("field", ["file", "files", "image"])
def test_the_field_of_the_files_has_three_names_and_parameters_may_be_fields(client: FlaskClient, field: str) -> None:
    data = encoded(draw("sky", 26))
    expected = client.post("/api/v1/classify?model=tiny&top_k=2", data=upload((data, "a.png"))).json
    form = upload((data, "a.png"), field=field) | {"model": "tiny", "top_k": "2"}
    assert client.post("/api/v1/classify", data=form).json == expected


def test_what_is_not_known_or_twice_is_named(client: FlaskClient) -> None:
    data = encoded(draw("sky", 27))

    def refusal(query: str = "", field: str = "file", **fields: str) -> str:
        answer = client.post(f"/api/v1/classify{query}", data=upload((data, "a.png"), field=field) | fields)
        assert answer.status_code == 400
        return str(answer.json["detail"])

    assert "'topk'" in refusal("?topk=3")
    assert "'treshold'" in refusal(treshold="1")
    assert "'photo'" in refusal(field="photo")
    assert "model is given twice" in refusal("?model=other", model="tiny")
    assert "field file came as text" in refusal(field="image", file="y")
    for value in ("0", "-1", "1001", "two"):
        assert f"'{value}'" in refusal(f"?top_k={value}")


def test_models_lists_what_is_served_with_its_accuracy(client: FlaskClient, tiny_bundle: Path) -> None:
    measured = json.loads((tiny_bundle / "bundle.json").read_text())["measured"]
    (entry,) = client.get("/api/v1/models").json["models"]
    assert entry["name"] == "tiny"
    assert entry["classes"] == list(CLASSES)
    assert entry["top1"] == measured["cascade"]["top1"]
    assert entry["pictures"] == measured["pictures"] == sum(map(sum, measured["confusion"]))
    correct = sum(row[index] for index, row in enumerate(measured["confusion"]))
    assert correct / entry["pictures"] == pytest.approx(entry["top1"])


FORM = "multipart/form-data; boundary=edge"


def bomb() -> bytes:
    """Return a PNG of a few bytes that claims to have 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


BAD_PICTURES = {
    "empty": (b"", 400),
    "text": (b"just some text", 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "html named png": (b"<!doctype html><script>alert(1)</script>", 415),
    "truncated": (encoded(draw("sky", 1))[:120], 422),
    "bomb": (bomb(), 413),
    "too many pixels": (encoded(Image.new("L", (1200, 1000))), 413),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_picture_gets_its_status_and_one_sentence(tiny_bundle: Path, kind: str) -> None:
    client = application(tiny_bundle, settings=Settings(max_pixels=1_000_000)).test_client()
    data, status = BAD_PICTURES[kind]
    raw = client.post("/api/v1/classify", data=data, content_type="image/png")
    assert raw.status_code == raw.json["status"] == status
    assert raw.content_type == "application/problem+json"
    assert raw.json["detail"].endswith(".")
    assert raw.json["type"].startswith("urn:canonistia:problem:")
    if data:
        assert client.post("/api/v1/classify", data=upload((data, "a.png"))).status_code == status
        page = client.post("/", data=upload((data, "a.png"), field="pictures"))
        assert page.status_code == status
        assert page.content_type.startswith("text/html")
    good = client.post("/api/v1/classify", data=encoded(draw("sky", 2)))
    assert good.status_code == 200


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_a_picture_one_pixel_wide_is_answered(client: FlaskClient, size: tuple[int, int]) -> None:
    assert client.post("/api/v1/classify", data=encoded(draw("sky", 3, size))).status_code == 200


def test_of_an_animation_the_first_frame_counts(client: FlaskClient) -> None:
    frames = [draw(label, 4).quantize(64) for label in ("sky", "rows", "dots")]
    moving, still = io.BytesIO(), io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    frames[0].save(still, "GIF")
    moved, stood = (client.post("/api/v1/classify", data=file.getvalue()).json for file in (moving, still))
    assert moved == stood


def test_a_request_is_refused_whole_for_what_is_wrong_with_it(tiny_bundle: Path) -> None:
    limits = Settings(max_upload_bytes=2_000_000, max_pictures=2)
    client = application(tiny_bundle, settings=limits).test_client()
    data = encoded(draw("sky", 5))
    assert client.post("/api/v1/classify", data=upload(*[(data, "a.png")] * 3)).status_code == 413
    assert client.post("/api/v1/classify", data=bytes(2_000_001)).status_code == 413
    part = '--edge\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    assert client.post("/api/v1/classify", data=part + "--edge--", content_type=FORM).status_code == 400
    assert client.post("/api/v1/classify", data=10_000 * part + "--edge--", content_type=FORM).status_code == 413
    assert client.post("/api/v1/classify", json={"a": 1}).status_code == 415
    assert client.post("/api/v1/classify?model=none", data=data).status_code == 404
    assert client.post("/api/v1/classify?scores=maybe", data=data).status_code == 400
    assert client.get("/api/v1/classify").status_code == 405
    assert "POST" in client.get("/api/v1/classify").headers["Allow"]
    assert client.get("/api/v1/nothing").status_code == 404
    assert client.post("/api/v1/classify", data=data).status_code == 200
