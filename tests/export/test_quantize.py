"""The 8-bit form of a bundle."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import canonistia
from cascade.bundle.manifest import CARD, MANIFEST, Manifest
from cascade.bundle.precision import precise_folder, processor_kind
from cascade.bundle.reading import read_bundle, read_manifest
from cascade.images.folders import pictures_below
from tests.conftest import Run, run_command, write_data_set


@pytest.fixture(scope="module")
def quantised(tiny_bundle: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tiny bundle with an 8-bit form."""
    folder = tmp_path_factory.mktemp("quantised") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    promised = {"threshold": 0.9, "accuracy": 0.5, "confidence": 0.95, "pictures": 30, "accepted": 29, "mistakes": 0}
    manifest["rules"]["accept"] = promised
    (folder / MANIFEST).write_text(json.dumps(manifest))
    done = run_command("quantize", folder, tiny_data)
    assert done.exit_code == 0, done.output
    assert "of float), a pass of the main network" in done.output
    return folder


def test_networks_are_8_bit_and_what_follows_the_features_is_not(quantised: Path) -> None:
    exact, rounded = read_bundle(quantised), read_bundle(quantised / "int8")
    left = {path.relative_to(rounded.folder).as_posix() for path in rounded.folder.rglob("*") if path.is_file()}
    assert left == {MANIFEST, CARD, *(entry.path for entry in rounded.manifest.files)}
    for entry, _ in rounded.manifest.networks:
        model = onnx.load(rounded.folder / entry.path)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        weights = [name for name, tensor in stored.items() if tensor.data_type == onnx.TensorProto.INT8]
        assert sum(np.prod(stored[name].dims) for name in weights) > 3_000_000
        assert not any(name.startswith(("network.head", "distance.")) for name in weights)
        assert entry.size < 0.4 * (exact.folder / entry.path).stat().st_size
    for submodel in rounded.manifest.submodels:  # linear heads
        assert abs(submodel.file.size - (exact.folder / submodel.file.path).stat().st_size) < 16


def test_both_forms_give_nearly_the_same_answers(quantised: Path, tiny_data: Path) -> None:
    pictures = pictures_below(tiny_data / "validation")
    exact = canonistia.load(str(quantised)).classify(pictures)
    rounded = canonistia.load(str(quantised), precision="int8").classify(pictures)
    agreed = [one.label_1 == other.label_1 for one, other in zip(exact, rounded, strict=True)]
    assert np.mean(agreed) >= 0.9
    assert exact != rounded


def test_calibration_and_rules_are_its_own_and_the_manifest_says_how_it_was_made(quantised: Path) -> None:
    exact, rounded = read_manifest(quantised)[0], read_manifest(quantised / "int8")[0]
    assert exact.quantised is None
    assert rounded.quantised is not None
    assert rounded.name == "tiny-int8"
    assert rounded.calibration.temperature != exact.calibration.temperature
    assert set(rounded.quantised.calibration) == {"main.onnx", "trunk.onnx"}
    assert rounded.quantised.top1_change == rounded.measured.cascade.top1 - exact.measured.cascade.top1
    assert rounded.quantised.top1_change >= -0.003
    assert rounded.provenance.commands[-1] == "canonistia quantize tiny data"
    assert rounded.rules.accept is not None
    assert (rounded.rules.accept.accuracy, rounded.rules.accept.pictures) == (0.5, 24)
    assert "8-bit integers" in (quantised / "int8" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("speed_up", "elsewhere", "form"), [(1.5, False, "int8"), (0.9, False, "tiny"), (1.5, True, "tiny")]
)
def test_auto_takes_8_bits_where_they_were_faster_on_such_a_processor(
    quantised: Path, tmp_path: Path, speed_up: float, elsewhere: bool, form: str
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(quantised, folder)
    manifest = read_manifest(folder / "int8")[0]
    assert manifest.quantised is not None
    known = msgspec.structs.replace(
        manifest.quantised, speed_up=speed_up, processor="another" if elsewhere else processor_kind()
    )
    changed: Manifest = msgspec.structs.replace(manifest, quantised=known)
    (folder / "int8" / MANIFEST).write_bytes(msgspec.json.encode(changed))
    assert precise_folder(folder, "auto").name == form


def test_classify_and_evaluate_run_the_form_that_is_asked_for(
    run: Run, quantised: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder, pictures = tmp_path / "tiny", tiny_data / "validation"
    shutil.copytree(quantised, folder)
    for precision, name in (("float", "tiny"), ("int8", "tiny-int8")):
        evaluated = run("evaluate", pictures, "--model", folder, "--precision", precision, "--json")
        assert json.loads(evaluated.output)["bundle"]["name"] == name
    (folder / "int8" / "main.onnx").write_bytes(b"")
    assert run("classify", pictures, "--model", folder, "--precision", "float").exit_code == 0
    refused = run("classify", pictures, "--model", folder, "--precision", "int8")
    assert refused.exit_code == 1
    assert "int8/main.onnx was changed" in refused.output


def test_what_would_lose_too_much_is_not_written(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.commands.quantize.MOST_LOST", -2.0)  # no form could gain so much
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, folder)
    before = sorted(folder.rglob("*"))
    done = run("quantize", folder, tiny_data)
    assert done.exit_code == 1
    assert "points of top 1 on 24 validation pictures" in done.output
    assert sorted(folder.rglob("*")) == before


def test_bad_input_is_one_sentence(run: Run, quantised: Path, tiny_data: Path, tmp_path: Path) -> None:
    other = write_data_set(tmp_path / "data", training=3, validation=3)
    for arguments, message in (
        ((quantised, tiny_data), "int8 exists; replace it with --overwrite"),
        (
            (quantised / "int8", tiny_data),
            "is quantised already, expected a float bundle; give the bundle",
        ),
        ((quantised, other, "--overwrite"), "is not the data set that"),
    ):
        done = run("quantize", *arguments)
        assert done.exit_code == 1
        assert message in done.output
    assert read_bundle(quantised / "int8").manifest.quantised
