"""One picture, one answer: training's evaluation, classify, the Python face, the page, the API and /infer agree."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import canonistia
from cascade.images.decoding import decode
from cascade.images.preprocess import preprocess
from cascade.images.view import see
from cascade.inference.engine import Engine
from cascade.outputs.rows import COLUMNS
from tests.conftest import Run, draw
from tests.webapps import application, upload
from trainers.data.loader import PictureDataset


def _kinds() -> dict[str, tuple[bytes, str]]:
    colour = draw("sky", 40, (90, 66))
    alpha = colour.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(colour.size))
    deep = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257 + 13)
    exif = Image.Exif()
    exif[0x0112] = 8
    kinds = {
        "grey": (colour.convert("L"), "JPEG", {}),
        "colour": (colour, "JPEG", {}),
        "cmyk": (colour.convert("CMYK"), "JPEG", {}),
        "palette": (colour.quantize(32), "PNG", {}),
        "alpha": (alpha, "PNG", {}),
        "16-bit": (deep, "PNG", {}),
        "rotated": (colour, "JPEG", {"exif": exif}),
    }
    encoded = {}
    for name, (picture, kind, options) in kinds.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        encoded[name] = (file.getvalue(), f"{name}.{'jpg' if kind == 'JPEG' else 'png'}")
    return encoded


KINDS = _kinds()


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return canonistia.load(str(tiny_bundle))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_path_gives_the_same_probabilities(
    engine: Engine, tiny_bundle: Path, run: Run, tmp_path: Path, kind: str
) -> None:
    data, name = KINDS[kind]
    path = tmp_path / name
    path.write_bytes(data)

    face = engine.classify([path])[0]
    expected = (face.label_1, face.probability_1, face.label_2, face.probability_2)

    run("classify", path, "--model", tiny_bundle, "--out", tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["label_1"], float(row["probability_1"]), row["label_2"], float(row["probability_2"])) == expected

    client = application(tiny_bundle).test_client()
    page = client.post("/", data=upload((data, name), field="pictures")).text
    shown = re.findall(r'data-label="([^"]+)" data-probability="([^"]+)"', page)
    assert [(label, float(number)) for label, number in shown] == [expected[:2], expected[2:]]

    for sent in ({"data": data, "content_type": "image/any"}, {"data": upload((data, name))}):
        (result,) = client.post("/api/v1/classify", **sent).json["results"]
        assert tuple(result[column] for column in COLUMNS[1:5]) == expected

    pixels = np.asarray(decode(data).convert("RGB"))[np.newaxis]
    tensor = {"name": "pixels", "shape": pixels.shape, "datatype": "UINT8", "data": pixels.ravel().tolist()}
    outputs = client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}).json["outputs"]
    probabilities, labels = (output["data"] for output in outputs[:2])
    assert tuple(labels) == (expected[0], expected[2])
    assert sorted(probabilities, reverse=True)[:2] == [expected[1], expected[3]]

    # Training's evaluation reads its pixels from this data set; the array is already of the model's size, and
    # goes through the engine without another resize.
    spec = engine.bundle.manifest.main.preprocess
    pixels = PictureDataset([path], np.zeros(1, dtype=np.int64), spec)[0, 1.0, 0][0].numpy()
    from_pixels = engine.classify([pixels])[0]
    assert (
        from_pixels.label_1,
        from_pixels.probability_1,
        from_pixels.label_2,
        from_pixels.probability_2,
    ) == expected


def test_a_photo_that_is_decoded_at_half_its_size_is_so_in_every_path(
    engine: Engine, tiny_bundle: Path, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    draw("rows", 41, (1500, 1450)).save(path, quality=90)
    spec = engine.bundle.manifest.main.preprocess
    seen = PictureDataset([path], np.zeros(1, dtype=np.int64), spec)[0, 1.0, 0]
    pixels = seen[0].numpy()
    assert (pixels != preprocess(decode(path), spec)).any()

    (expected,) = engine.classify([path])
    with open(path, "rb") as file:
        assert engine.classify([file.read()]) == [expected]
    main = engine.main_outputs([see(path, engine.specs)], "logits")[0]
    assert (main == engine.main_outputs([Image.fromarray(pixels)], "logits")[0]).all()
    run("classify", path, "--model", tiny_bundle, "--out", tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    answer = application(tiny_bundle).test_client().post("/api/v1/classify", data=path.read_bytes())
    (result,) = answer.json["results"]
    for given in (row, result):
        assert (given["label_1"], float(given["probability_1"])) == (expected.label_1, expected.probability_1)
