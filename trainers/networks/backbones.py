"""Backbones by name: networks from picture to features, with their pretrained weights."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cascade.errors import CanonistiaError
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor, probe
from trainers.networks.sources import source_of
from trainers.networks.stages import belongs, split_stages
from trainers.networks.weights import read_weights


class Backbone(nn.Module):
    """A network without its head, divided into stages.

    ``features`` is the number of pooled features. A ``spatial`` backbone returns a map (N, features, h, w), whose mean
    is the pooled features; any other returns the pooled features (N, features).
    """

    def __init__(self, extractor: FeatureExtractor, size: int) -> None:
        super().__init__()
        self.network = extractor.network
        self.spatial = extractor.spatial
        self.stages = split_stages(self.network)
        with torch.inference_mode():
            shape = self.network.eval()(probe(size)).shape
        self.features = shape[1]
        self.map_size = tuple(shape[2:])  # (h, w) of the map at this image size; () without one

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
    """Return what a backbone expects; ``A+B`` is two networks side by side, at the larger of their native sizes.

    Raises
    ------
    CanonistiaError
        The name is unknown.
    """
    if "+" not in name:
        return source_of(name).spec(name)
    parts = tuple(backbone_spec(part) for part in name.split("+"))
    if len({(spec.interpolation, spec.mean, spec.std) for spec in parts}) > 1:
        raise CanonistiaError(
            f"the backbones of '{name}' scale pictures differently, expected one scaling for all; choose others"
        )
    return replace(parts[0], name=name, size=max(spec.size for spec in parts), parts=parts)


def build_backbone(
    spec: BackboneSpec, pretrained: bool, weights: Path | None = None, size: int | None = None
) -> Backbone:
    """Return a backbone, with its source's pretrained weights or those of a file.

    Parameters
    ----------
    spec
        What :func:`backbone_spec` returns for its name.
    pretrained
        False leaves random weights, for a network whose trained weights are loaded next.
    weights
        A safetensors file or a PyTorch state dict of this architecture, instead of the source's weights.
    size
        The image size in pixels; the backbone's native size by default.

    Raises
    ------
    CanonistiaError
        The weights cannot be fetched, read or do not fit, or the image size is too small.
    """
    name, size = spec.name, size or spec.size
    if spec.parts:
        if weights:
            raise CanonistiaError(f"--weights is for one network, and '{name}' names several; leave it out")
        return _side_by_side([build_backbone(part, pretrained, size=size) for part in spec.parts], size)
    state = read_weights(weights) if weights else None
    try:
        return Backbone(source_of(name).build(name, size, pretrained, state), size)
    # What a network raises for an image size that it cannot take: pooling to nothing, or windows that do not divide it.
    except (RuntimeError, ValueError, AssertionError) as error:
        raise CanonistiaError(
            f"{name} cannot be built for image size {size} ({str(error).partition(chr(10))[0]}); its native size is "
            f"{spec.size}: change --size"
        ) from error


class SideBySide(nn.Module):
    """Networks with the same input, their outputs stacked along the channels."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the stacked maps (N, sum of features, h, w), or features (N, sum of features)."""
        return torch.cat([network(x) for network in self.networks], dim=1)


class _Pooled(nn.Module):
    """A backbone that returns its pooled features."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features, (N, D)."""
        return self.backbone.pooled(x)


def _side_by_side(networks: list[Backbone], size: int) -> Backbone:
    # Maps of different sizes cannot be stacked.
    spatial = all(network.spatial for network in networks) and len({network.map_size for network in networks}) == 1
    parts: list[nn.Module] = [network if spatial else _Pooled(network) for network in networks]
    both = Backbone(FeatureExtractor(SideBySide(parts), spatial), size)
    both.stages = (("networks",),)  # the networks may have different numbers of stages
    return both
