"""Bundles: read whole or refused with a reason."""

import contextlib
import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.external_data_helper import convert_model_to_external_data

from cascade.bundle.lookup import find_bundle, list_bundles
from cascade.bundle.reading import BundleError, describe_file, read_bundle, read_manifest
from cascade.errors import CanonistiaError
from cascade.inference.engine import Engine
from tests.conftest import CLASSES, draw


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
    with pytest.raises(BundleError, match="schema version 99, and this canonistia reads the versions 2 and 3; upgrade"):
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


def test_a_model_that_would_compute_without_end_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / "trunk.onnx")
    model.graph.node.add(op_type="Loop", name="endless")
    onnx.save(model, bundle / "trunk.onnx")
    entry = msgspec.to_builtins(describe_file(bundle, "trunk.onnx"))
    change_manifest(bundle, lambda manifest: manifest["trunk"].update(file=entry))
    with pytest.raises(BundleError, match=r"trunk\.onnx is no model that canonistia exports: .*'Loop'"):
        read_bundle(bundle)


def test_what_depends_on_no_picture_is_not_computed_at_any_size_while_a_model_is_opened(bundle: Path) -> None:
    path = "submodels/00_dots.onnx"
    model = onnx.load(bundle / path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "c0"))
    for number in range(28):  # doubled each time: 1 GB in the end
        model.graph.node.append(onnx.helper.make_node("Concat", [f"c{number}"] * 2, [f"c{number + 1}"], axis=0))
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["c28"], ["sum"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, None))
    onnx.save(model, bundle / path)
    entry = msgspec.to_builtins(describe_file(bundle, path))
    change_manifest(bundle, lambda manifest: manifest["submodels"][0].update(file=entry))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Engine(read_bundle(bundle)).open_all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_session_is_opened_from_the_bytes_that_were_hashed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    original = onnxruntime.InferenceSession.__init__

    def watched(self: object, content: object, *more: Any, **named: Any) -> None:
        opened.append(content)
        original(self, content, *more, **named)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", watched)
    engine = Engine(read_bundle(bundle))
    engine.open_all()
    hashes = [hashlib.sha256(content).hexdigest() for content in opened if isinstance(content, bytes)]
    assert sorted(hashes) == sorted(file.sha256 for file in engine.bundle.manifest.files)


NAMES = ("bundle.json", "main.onnx", "submodels/00_dots.onnx", "submodels")


@pytest.mark.parametrize("name", NAMES)
def test_a_link_out_of_the_bundle_is_not_followed(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link that leads out of the bundle; copy the file itself"):
        read_bundle(bundle)


def test_a_link_inside_the_bundle_and_to_the_bundle_is_followed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "main.onnx").rename(bundle / "stored.bin")
    (bundle / "main.onnx").symlink_to("stored.bin")
    (tmp_path / "current").symlink_to(bundle)
    assert Engine(read_bundle(tmp_path / "current")).classes == ("dots", "rows", "sky")


@pytest.mark.parametrize("name", [*NAMES[:3], "MODEL_CARD.md"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "large"])
def test_what_is_no_file_is_not_waited_for(bundle: Path, name: str, kind: str) -> None:
    path = bundle / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(2**33)  # no disk holds it, and no memory should
    if name == "MODEL_CARD.md":
        assert read_bundle(bundle).card() == ""
    else:
        with pytest.raises(BundleError, match=path.name):
            read_bundle(bundle)


def test_the_card_is_shown_unless_it_is_a_link_out_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    assert read_bundle(bundle).card().startswith("#")
    (tmp_path / "secret").write_text("secret")
    (bundle / "MODEL_CARD.md").unlink()
    (bundle / "MODEL_CARD.md").symlink_to(tmp_path / "secret")
    assert read_bundle(bundle).card() == ""


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"schema_version": ' + b"[" * 100_000,
        b'{"schema_version": 2, "rules": ' + b'{"a":' * 100_000,
        b'{"schema_version": 1e999}',
        b'{"schema_version": NaN}',
        b'{"schema_version": ' + b"9" * 5000 + b"}",
        b'{"schema_version": 2.0}',
        b'{"schema_version": null}',
        b'"schema_version"',
        b"\xff\xfe\0",
        b'{"schema_version": 2, "name": "\xff"}',
        b"",
    ],
)
def test_a_manifest_of_any_depth_or_size_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        read_manifest(bundle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(part: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value in a manifest."""
    inside = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [(*before, key) for key, _ in inside] + [
        way for key, value in inside for way in places(value, (*before, key))
    ]


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_with_any_wrong_value_is_read_or_refused(bundle: Path, data: st.DataObject) -> None:
    original = bundle.parent / "original.json"
    if not original.exists():
        shutil.copy(bundle / "bundle.json", original)
    manifest = json.loads(original.read_text())
    *way, last = data.draw(st.sampled_from(places(manifest)))
    part = manifest
    for key in way:
        part = part[key]
    if isinstance(part, dict) and data.draw(st.booleans()):
        part[data.draw(st.text(max_size=5))] = part.pop(last)
    else:
        part[last] = data.draw(JSON | st.just(2**62) | st.just(-1) | st.just(1e300) | st.just([]))
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with contextlib.suppress(CanonistiaError):
        read_manifest(bundle)


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


def test_a_bundle_of_version_2_answers_as_it_did() -> None:
    frozen = Path(__file__).parent / "version_2"
    engine = Engine.load(frozen / "bundle")
    assert engine.bundle.manifest.prediction_sets.keys() == {"0.90", "0.95", "0.99"}
    pictures = [draw(label, seed) for label in CLASSES for seed in range(900, 904)]
    expected = json.loads((frozen / "answers.json").read_text())
    answered = [asdict(prediction) for prediction in engine.classify(pictures)]
    for now, before in zip(answered, expected, strict=True):
        for number in ("probability_1", "probability_2"):
            assert now.pop(number) == pytest.approx(before.pop(number), abs=1e-5)
        assert now == before | {"both": False, "accepted": None}


def test_a_damaged_bundle_of_version_2_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(__file__).parent / "version_2" / "bundle", tmp_path / "older"))
    change_manifest(folder, lambda manifest: manifest.pop("answer_sets"))
    with pytest.raises(BundleError, match="missing required field"):
        read_bundle(folder)
    change_manifest(folder, lambda manifest: manifest.update(answer_sets=[1]))
    with pytest.raises(BundleError, match="is not valid: Expected `object`"):
        read_bundle(folder)
