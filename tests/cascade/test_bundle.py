"""Bundles: read whole or refused with a reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from cascade.bundle.lookup import find_bundle, list_bundles
from cascade.bundle.reading import BundleError, describe_file, read_bundle
from cascade.inference.engine import Engine


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def test_an_exported_bundle_is_read(bundle: Path) -> None:
    assert read_bundle(bundle).manifest.classes == ["dots", "rows", "sky"]


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "trunk.onnx").unlink()
    with pytest.raises(BundleError, match=r"trunk\.onnx cannot be read .* copy the whole folder again"):
        read_bundle(bundle)


def test_a_changed_file_is_named(bundle: Path) -> None:
    with (bundle / "main.onnx").open("r+b") as file:
        file.seek(5000)
        file.write(b"canonistia")
    with pytest.raises(BundleError, match=r"main\.onnx was changed"):
        read_bundle(bundle)


def test_weights_in_another_file_are_refused(bundle: Path) -> None:
    model = onnx.load(bundle / "main.onnx")
    convert_model_to_external_data(model, location="main.data", size_threshold=0)
    onnx.save(model, bundle / "main.onnx")
    entry = msgspec.to_builtins(describe_file(bundle, "main.onnx"))
    change_manifest(bundle, lambda manifest: manifest["main"].update(file=entry))
    with pytest.raises(BundleError, match="keeps weights in another file"):
        read_bundle(bundle)


def test_a_newer_schema_is_refused(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(schema_version=99, surprise=1))
    with pytest.raises(BundleError, match="schema version 99, and this canonistia reads version 2; upgrade"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["submodels"].pop(), "one for each"),
        (lambda m: m["submodels"].append(m["submodels"][0]), "one for each"),
        (lambda m: m["rules"].update(routing={"rule": "per_class", "thresholds": [0.5]}), "1 routing thresholds"),
        (lambda m: m["rules"]["routing"].update(rule="dice"), "routing"),
        (lambda m: m["main"]["file"].update(path="../main.onnx"), r"main\.file\.path"),
        (lambda m: m["submodels"][0].update(preprocess={"size": 64}), "shared trunk"),
        (lambda m: m.update(head_features="main"), "head_features"),
        (lambda m: m.update(head_features="both", trunk=None), "there is no trunk"),
    ],
    ids=[
        "extra field",
        "submodel missing",
        "submodel too many",
        "thresholds of others",
        "unknown rule",
        "path outside",
        "submodel with preprocessing on a trunk",
        "unknown features",
        "features of both without a trunk",
    ],
)
def test_a_wrong_manifest_says_where(bundle: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=words):
        read_bundle(bundle)


def test_a_bundle_that_does_not_say_what_its_heads_read_reads_the_trunk_alone(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest.pop("head_features"))
    assert read_bundle(bundle).manifest.head_features == "trunk"


def test_a_manifest_that_is_no_json_is_refused(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        read_bundle(bundle)


def test_a_file_replaced_after_reading_is_not_opened(bundle: Path) -> None:
    engine = Engine(read_bundle(bundle))
    shutil.copy(bundle / "main.onnx", bundle / "trunk.onnx")
    with pytest.raises(BundleError, match=r"trunk\.onnx was replaced while the bundle was in use"):
        engine.open_all()


def test_a_bundle_is_found_by_name_and_by_folder(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANONISTIA_MODELS", str(tiny_bundle.parent))
    assert find_bundle("tiny") == tiny_bundle
    assert find_bundle(str(tiny_bundle)) == tiny_bundle
    assert tiny_bundle in list_bundles()


@pytest.mark.parametrize("name", ["nowhere", "../tiny", "", "tiny/../tiny"])
def test_an_unknown_bundle_lists_those_found(name: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANONISTIA_MODELS", str(tiny_bundle.parent))
    with pytest.raises(BundleError, match=r"bundles found \(.*tiny"):
        find_bundle(name)
