"""Features of a frozen backbone: by ONNX Runtime as by PyTorch."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from cascade.errors import CanonistiaError
from cascade.images.folders import pictures_below
from cascade.images.preprocess import PreprocessSpec
from trainers.features import cache, graph
from trainers.features.cache import cached_features, compute_features
from trainers.features.graph import write_features
from trainers.features.kept_graphs import runtime_features
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig

SPEC = PreprocessSpec(32, "squash", "bicubic", "rgb")


def backbone(flip: bool = False) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(NetworkConfig("timm/test_efficientnet", size=32, flip=flip, pretrained=False), 1)


@pytest.mark.parametrize("flip", [False, True])
def test_the_runtime_gives_pytorchs_features_in_the_same_order(
    flip: bool, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = pictures_below(tiny_data)
    network = backbone(flip)
    expected = compute_features(network, paths, SPEC, "cpu")
    monkeypatch.setattr(cache, "FEWEST_BY_RUNTIME", 1)
    by_runtime = compute_features(network, paths, SPEC, "cpu")
    assert by_runtime.shape == expected.shape == (len(paths), network.head.in_features)
    assert by_runtime.dtype == torch.float32
    assert (by_runtime - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (by_runtime - by_runtime[0]).abs().sum(dim=1)[1:].min() > 0


def test_a_graph_is_kept_for_what_it_depends_on(written_graphs: list[str], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    network = backbone()
    first = runtime_features(network, 32)(pixels)
    other_head = backbone()
    torch.nn.init.zeros_(other_head.head.weight)
    assert torch.equal(runtime_features(other_head, 32)(pixels), first)
    assert len(written_graphs) == 1
    runtime_features(network, 48)
    runtime_features(backbone(flip=True), 32)
    next(network.backbone.parameters()).data.mul_(3)
    assert not torch.equal(runtime_features(network, 32)(pixels), first)
    assert len(written_graphs) == 4
    assert len(list((tmp_path / "cache" / "graphs").iterdir())) == 4


def test_a_damaged_graph_is_written_anew_and_one_that_cannot_be_kept_is_used(
    written_graphs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    first = runtime_features(backbone(), 32)(pixels)
    (kept,) = (tmp_path / "cache" / "graphs").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[:-100])
    assert torch.equal(runtime_features(backbone(), 32)(pixels), first)
    assert kept.read_bytes() == content
    assert len(written_graphs) == 2
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("no folder")
    assert torch.equal(runtime_features(backbone(), 32)(pixels), first)
    assert "the graph is not kept for the next time" in capsys.readouterr().err


def test_activations_work_in_place_again_after_the_export(tmp_path: Path) -> None:
    network = build_classifier(NetworkConfig("efficientnet_lite0", size=64, pretrained=False), 3)
    before = [getattr(module, "inplace", None) for module in network.modules()]
    write_features(network, 64, tmp_path / "graph.onnx")
    assert True in before
    assert [getattr(module, "inplace", None) for module in network.modules()] == before


def test_a_network_that_cannot_be_exported_is_run_by_pytorch_and_that_is_said(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = pictures_below(tiny_data)[:5]
    expected = compute_features(backbone(), paths, SPEC, "cpu")

    def refuse(*_: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "FEWEST_BY_RUNTIME", 1)
    monkeypatch.setattr(graph, "write_onnx", refuse)
    assert torch.equal(compute_features(backbone(), paths, SPEC, "cpu"), expected)
    assert "timm/test_efficientnet cannot be exported (no such operator): PyTorch" in capsys.readouterr().err


def test_without_room_for_the_graph_pytorch_computes_the_features(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = pictures_below(tiny_data)[:5]
    expected = compute_features(backbone(), paths, SPEC, "cpu")
    monkeypatch.setattr(cache, "FEWEST_BY_RUNTIME", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert torch.equal(compute_features(backbone(), paths, SPEC, "cpu"), expected)
    assert "PyTorch computes its features" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_named(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FEWEST_BY_RUNTIME", 1)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(CanonistiaError, match=r"bad\.png"):
        compute_features(backbone(), [*pictures_below(tiny_data)[:3], tmp_path / "bad.png"], SPEC, "cpu")


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Begin with an empty cache, and note the pictures whose features are computed."""
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    noted: list[Path] = []

    def compute(network: Classifier, paths: list[Path], *rest: Any) -> torch.Tensor:
        noted.extend(paths)
        return compute_features(network, paths, *rest)

    monkeypatch.setattr(cache, "compute_features", compute)
    return noted


@pytest.mark.parametrize("fewest", [1, 200])
def test_of_a_grown_data_set_only_the_new_pictures_are_computed(
    fewest: int, tiny_data: Path, computed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FEWEST_BY_RUNTIME", fewest)
    paths = pictures_below(tiny_data)
    cached_features(backbone(), paths[4:9], SPEC, "cpu")
    del computed[:]
    features = cached_features(backbone(), [*paths[::-1], paths[5]], SPEC, "cpu")
    assert computed == [path for path in paths[::-1] if path not in paths[4:9]]
    expected = compute_features(backbone(), paths, SPEC, "cpu")
    assert torch.allclose(features, torch.cat([expected.flip(0), expected[5:6]]), atol=1e-5)
    cached_features(backbone(), paths, SPEC, "cpu")
    assert len(computed) == len(paths) - 5


def test_copies_of_a_picture_are_computed_once(tiny_data: Path, tmp_path: Path, computed: list[Path]) -> None:
    paths = pictures_below(tiny_data)[:3]
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[1].read_bytes())
    features = cached_features(backbone(), [*paths, copy], SPEC, "cpu")
    assert len(computed) == 3
    assert torch.equal(features[3], features[1])


def test_a_damaged_file_of_the_cache_is_named_and_mended(
    tiny_data: Path, tmp_path: Path, computed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = pictures_below(tiny_data)[:3]
    expected = cached_features(backbone(), paths, SPEC, "cpu")
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-5])
    assert torch.equal(cached_features(backbone(), paths, SPEC, "cpu"), expected)
    assert f"the kept features {kept} cannot be read" in capsys.readouterr().err
    assert torch.equal(cached_features(backbone(), paths, SPEC, "cpu"), expected)
    assert not capsys.readouterr().err
    assert len(computed) == 6


def test_other_settings_find_nothing(tiny_data: Path, computed: list[Path]) -> None:
    paths, grey = pictures_below(tiny_data)[:2], msgspec.structs.replace(SPEC, colour="grey")
    for network, spec in ((backbone(), SPEC), (backbone(flip=True), SPEC), (backbone(), grey)):
        cached_features(network, paths, spec, "cpu")
    assert len(computed) == 6


def test_where_the_cache_cannot_be_written_that_is_said(
    tiny_data: Path, tmp_path: Path, computed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    features = cached_features(backbone(), pictures_below(tiny_data)[:2], SPEC, "cpu")
    assert len(features) == len(computed) == 2
    assert "features are not kept for the next time" in capsys.readouterr().err
