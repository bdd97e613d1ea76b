"""Small inputs that went wrong once, through every command that takes them: rows or one sentence, and nothing else."""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

import canonistia
from cascade.errors import PictureError
from cascade.images.decoding import decode
from tests.webapps import application, upload

LIGHT = ("--backbone", "timm/test_resnet", "--no-pretrained", "--size", 32, "--tracker", "none", "--epochs", 1)
STATUSES = (0, 1, 2, 3)  # answered, refused, wrong usage, rows with errors


@dataclass(frozen=True)
class Place:
    """Where the inputs are, the current folder, and the one folder below which commands are told to write."""

    root: Path
    inputs: Path
    out: Path

    def listing(self) -> set[tuple[Path, int]]:
        """Return every file outside ``out``, with the time of its last change."""
        found = (path for path in self.root.rglob("*") if path.is_file() and not path.is_relative_to(self.out))
        return {(path, path.lstat().st_mtime_ns) for path in found}

    def names(self) -> list[str]:
        return sorted(path.name for path in self.inputs.iterdir())

    def files(self) -> list[Path]:
        return sorted(path for path in self.inputs.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "trials"
    script = Path(os.environ.get("CANONISTIA_TRIALS", beside), "make_inputs.py")
    if not script.is_file():
        pytest.skip("make_inputs.py is not here; set CANONISTIA_TRIALS to its folder to run this test")
    root = tmp_path_factory.mktemp("trials")
    made = Place(root, root / "deep" / "here", root / "out")
    for folder in (made.inputs, made.out, root / "home", root / "tmp"):
        folder.mkdir(parents=True)
    subprocess.run([sys.executable, script], cwd=made.inputs, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.inputs)
        patch.setenv("HOME", str(root / "home"))
        patch.setenv("TMPDIR", str(root / "tmp"))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv("CANONISTIA_CACHE", str(made.out / "cache"))
        patch.setenv("MPLCONFIGDIR", str(made.out / "matplotlib"))  # matplotlib's own folder
        yield made


@pytest.fixture(autouse=True)
def _nothing_outside(place: Place) -> Iterator[None]:
    before = place.listing()
    yield
    assert place.listing() == before


def called(*words: object) -> Result:
    """Run a command; it must end in an answer or in one sentence, whatever the input is."""
    result = CliRunner().invoke(canonistia.main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
    assert result.exit_code in STATUSES, (words, result.output)
    assert "Traceback" not in result.output, (words, result.output)
    if result.exit_code in (1, 2):
        assert result.stderr.rstrip("\n").rpartition("Error: ")[2].count("\n") == 0, (words, result.stderr)
        assert result.stderr.count("Error: ") == 1, (words, result.stderr)
    return result


def each(place: Place, command: Callable[[str], Result]) -> dict[str, int]:
    """Run a command on every input, and return the exit status of each."""
    return {name: command(name).exit_code for name in place.names()}


def test_classify_gives_a_row_per_picture_and_sorts_inside_its_folder(place: Place, tiny_bundle: Path) -> None:
    def classify(name: str) -> Result:
        source, rows = (f"@{name}" if name.startswith("list_") else name), place.out / f"{name}.csv"
        return called(
            "classify", source, "--model", tiny_bundle, "--out", rows, "--sort-into", place.out / "sorted" / name,
            "--report", place.out / f"{name}.html",
        )  # fmt: skip

    statuses = each(place, classify)
    tables = {name for name in statuses if name.startswith("labels_")}  # their pictures are files, not columns
    refused = {"thin.png", "tile.tif"}
    assert {name for name, status in statuses.items() if status == 1} == tables
    assert {name for name, status in statuses.items() if status == 3} == refused
    for name in set(statuses) - tables - refused:
        with (place.out / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert rows, name
        assert len(list((place.out / "sorted" / name).rglob("*.*"))) >= min(len(rows), 1)
    with (place.out / "same_names.parquet.csv").open(newline="", encoding="utf-8") as file:
        assert len({(row["label_1"], row["probability_1"], row["probability_2"]) for row in csv.DictReader(file)}) > 1


def test_check_data_reports_and_fixes_what_is_a_data_set(place: Place) -> None:
    assert set(each(place, lambda name: called("check-data", name)).values()) <= {0, 1}
    fixed = each(place, lambda name: called("check-data", name, "--fix", place.out / f"{name}.fix.csv"))
    assert {name for name, status in fixed.items() if status == 0} >= {
        name for name in fixed if name.startswith("layout_")
    } | {"tables", "labels_int.parquet"}


def test_what_is_no_data_set_is_refused_before_a_training(place: Place) -> None:
    def train(name: str) -> Result:
        return called("train-main", name, "--out", place.out / "runs" / name, *LIGHT)

    data_sets = {name for name in place.names() if name.startswith("layout_")} | {"tables", "labels_int.parquet"}
    assert {train(name).exit_code for name in place.names() if name not in data_sets} == {1}


def test_evaluate_and_tune_refuse_classes_and_layouts_that_they_do_not_know(place: Place, tiny_bundle: Path) -> None:
    assert set(each(place, lambda name: called("evaluate", name, "--model", tiny_bundle)).values()) == {1}
    plot = place.out / "plot.png"
    assert set(each(place, lambda name: called("tune", tiny_bundle, name, "--plot", plot)).values()) == {1}


def test_number_labels_go_from_a_table_to_a_bundle_that_is_measured_on_it(place: Place) -> None:
    data, main, subs, bundle = "labels_int.parquet", *(place.out / name for name in ("main", "subs", "bundle"))
    assert called("train-main", data, "--out", main, *LIGHT).exit_code == 0
    assert called("train-sub", data, "--main", main, "--out", subs, *LIGHT).exit_code == 0
    assert called("export", "--main", main, "--subs", subs, "--data", data, "--out", bundle).exit_code == 0
    assert called("evaluate", data, "--model", bundle).exit_code == 0
    assert called("tune", bundle, data, "--plot", place.out / "plot.png").exit_code == 0


@pytest.fixture
def client(tiny_bundle: Path) -> FlaskClient:
    return application(tiny_bundle).test_client()


def test_the_api_answers_every_file_alone_and_beside_a_good_one(place: Place, client: FlaskClient) -> None:
    good = (place.inputs / "bad_metadata" / "000.jpg").read_bytes()
    for path in place.files():
        content = path.read_bytes()
        alone = client.post("/api/v1/classify", data=content)
        assert alone.status_code == 200 or 400 <= alone.status_code < 500, (path, alone.status_code)
        answer = client.post("/api/v1/classify", data=upload((content, path.name), (good, "good.jpg")))
        assert answer.status_code == 200, path
        beside, first = answer.json["results"][::-1]
        assert beside["error"] is None, path
        assert (first["error"] is None) == (alone.status_code == 200), path


def test_the_open_inference_protocol_answers_the_pixels_of_every_picture(place: Place, client: FlaskClient) -> None:
    def tensor(pixels: np.ndarray) -> dict[str, Any]:
        shape = [1, *pixels.shape]
        return {"inputs": [{"name": "pixels", "shape": shape, "datatype": "UINT8", "data": pixels.ravel().tolist()}]}

    for path in place.files():
        try:
            pixels = np.asarray(decode(path).convert("RGB"))
        except PictureError:
            continue
        answer = client.post("/v2/models/tiny/infer", json=tensor(pixels[:96, :96]))
        assert answer.status_code == 200, (path, answer.text)
