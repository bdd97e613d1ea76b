"""The engine and the Python face."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

import canonistia
from cascade.bundle.reading import read_bundle
from cascade.images.decoding import decode
from cascade.images.view import View
from cascade.inference.engine import Engine
from cascade.rules.routing import PerClass
from tests.conftest import CLASSES, Run, draw


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return canonistia.load(str(tiny_bundle), threads=1)


def test_every_kind_of_source_is_answered_in_order(engine: Engine, tmp_path: Path) -> None:
    pictures = [draw(label, 900) for label in CLASSES]
    path = tmp_path / "a.png"
    pictures[0].save(path)
    sources = [path, path.read_bytes(), *pictures, np.asarray(pictures[2])]
    answers = engine.classify(sources)
    assert len(answers) == 6
    assert answers[0] == answers[1] == answers[2]
    assert answers[4] == answers[5]


def test_an_answer_is_frozen_and_its_two_classes_differ(engine: Engine) -> None:
    answer = engine.classify([draw("sky", 901)])[0]
    assert answer.label_1 != answer.label_2
    assert 1 >= answer.probability_1 >= answer.probability_2 >= 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.label_1 = "x"


def test_the_tiny_cascade_has_learnt_its_classes(engine: Engine) -> None:
    labels = [label for label in CLASSES for _ in range(6)]
    answers = engine.classify(draw(label, 950 + number) for number, label in enumerate(labels))
    right = sum(answer.label_1 == label for answer, label in zip(answers, labels, strict=True))
    assert right >= 12  # a third by chance


def test_a_picture_that_cannot_be_read_is_named(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_text("no picture")
    with pytest.raises(canonistia.CanonistiaError, match=r"b\.jpg: is no picture"):
        engine.classify([tmp_path / "b.jpg"])
    with pytest.raises(canonistia.CanonistiaError, match="picture 3: "):
        engine.classify([draw("sky", 1), draw("sky", 2), b"no"], batch_size=2)


def test_no_pictures_give_no_answers(engine: Engine) -> None:
    assert engine.classify([]) == []


def test_activation_maps_average_to_the_logits(engine: Engine) -> None:
    pictures = [decode(draw(label, 5)) for label in CLASSES]
    maps, logits = engine.main_outputs(pictures, "activation_maps", "logits")
    assert maps.shape[:2] == (3, 3)
    assert np.allclose(maps.mean(axis=(2, 3)), logits, atol=1e-4)


def test_routed_pictures_carry_the_submodels_answers(engine: Engine) -> None:
    pictures = [decode(draw(label, seed)) for label in CLASSES for seed in range(20, 30)]
    output = engine.run(pictures)
    assert np.array_equal(np.isnan(output.submodels).all(axis=1), ~output.routed)
    assert np.allclose(output.probabilities.sum(axis=1), 1, atol=1e-5)


def test_heads_read_the_main_models_features_of_the_very_pictures_that_are_routed(both_bundle: Path) -> None:
    bundle = read_bundle(both_bundle)
    pictures = [decode(draw(label, seed)) for label in CLASSES for seed in range(20, 24)]
    all_but_dots = PerClass(thresholds=[0.0, 1.01, 1.01])
    rules = msgspec.structs.replace(bundle.manifest.rules, routing=all_but_dots)
    engine = Engine(dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, rules=rules)))
    output = engine.run(pictures)
    assert 0 < output.routed.sum() < 12
    asked = np.ones((12, 3), dtype=bool)
    for row in np.flatnonzero(output.routed):
        alone = engine.ask_submodels([pictures[row]], asked[:1])
        assert np.allclose(output.submodels[row], alone, atol=1e-5)
    seeing = engine.ask_submodels(pictures, asked, "logit")
    blind = engine.ask_submodels(pictures, asked, "logit", np.zeros((12, 1280), np.float32))
    assert (np.abs(seeing - blind).max(axis=1) > 0.01).all()


def test_threads_share_one_engine(tiny_bundle: Path) -> None:
    engine = canonistia.load(str(tiny_bundle))
    picture = draw("rows", 77)
    expected = engine.classify([picture])
    with ThreadPoolExecutor(8) as pool:
        assert all(answer == expected for answer in pool.map(lambda _: engine.classify([picture]), range(32)))


def test_cuda_is_refused_in_one_sentence_where_the_runtime_has_none(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's onnxruntime has CUDA")
    draw("sky", 3).save(tmp_path / "sky.png")
    done = run("classify", tmp_path / "sky.png", "--model", tiny_bundle, "--device", "cuda")
    assert done.exit_code == 1
    assert "onnxruntime has no CUDA; expected" in done.output
    assert "pip install onnxruntime-gpu" in done.output


ONE = draw("sky", 1)


@pytest.mark.parametrize(
    "one",
    ["a.jpg", Path("a.jpg"), b"a.jpg", bytearray(b"a"), ONE, np.asarray(ONE), np.asarray(ONE.convert("L")), 5, None],
)
def test_one_picture_in_place_of_a_list_is_a_type_error_everywhere(engine: Engine, one: object) -> None:
    asked = np.ones((1, len(CLASSES)), dtype=bool)
    calls: tuple[Callable[[Any], object], ...] = (
        engine.classify,
        lambda pictures: list(engine.viewed_batches(pictures)),
        engine.run,
        lambda pictures: engine.main_outputs(pictures, "logits"),
        lambda pictures: engine.ask_submodels(pictures, asked),
    )
    for call in calls:
        with pytest.raises(TypeError, match=f"^one {type(one).__name__} is given; expected a list of pictures"):
            call(one)


@pytest.mark.parametrize("source", [5, None, ["a.jpg"], 1.5])
def test_what_is_no_picture_is_named_with_what_was_expected(engine: Engine, source: object) -> None:
    with pytest.raises(canonistia.CanonistiaError, match=r"picture 1: is of type .*; expected a path, the bytes"):
        engine.classify([source])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="expected a PIL image"):
        engine.run([source])  # type: ignore[list-item]


@pytest.mark.parametrize("size", [0, -1, 1.5, "4", None])
def test_a_batch_size_is_a_positive_number(engine: Engine, size: Any) -> None:
    with pytest.raises(ValueError, match=r"the batch size is .*; expected a whole number"):
        engine.classify([ONE], batch_size=size)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": 5}, TypeError),
        ({"model": b"scene15"}, TypeError),
        ({"threads": 0}, ValueError),
        ({"threads": "2"}, ValueError),
        ({"precision": "fp16"}, ValueError),
    ],
)
def test_loading_says_what_was_expected(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="expected"):
        canonistia.load(**options)


def test_a_bundle_is_loaded_by_its_path(tiny_bundle: Path) -> None:
    assert canonistia.load(tiny_bundle).classes == CLASSES


def test_memory_that_runs_out_is_the_error_of_one_picture(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(View, "prepare", no_memory)
    assert "does not fit into the memory" in str(engine.see(ONE))
