"""Features of a frozen backbone: by ONNX Runtime as by PyTorch."""

from pathlib import Path

import pytest
import torch

from cascade.errors import CanonistiaError
from cascade.images.folders import pictures_below
from cascade.images.preprocess import PreprocessSpec
from trainers.features import cache, graph
from trainers.features.cache import compute_features
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


def test_a_network_that_cannot_be_exported_is_run_by_pytorch_and_that_is_said(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = pictures_below(tiny_data)[:5]
    expected = compute_features(backbone(), paths, SPEC, "cpu")

    def refuse(*_: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator")

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
